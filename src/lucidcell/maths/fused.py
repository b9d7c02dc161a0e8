"""Linear layer, softmax over genes and count likelihood in one operation, with its gradients.

For cell b with hidden layer h_b, library l_b and weight w_b (W: G x H):

    a_bg = h_b . W_g + bias_g        rho_b = softmax(a_b)        mu_bg = l_b rho_bg
    total = sum_b w_b sum_g log p(x_bg | mu_bg, theta_g)         log p: `likelihoods.py`

With the slope u_bg = d log p / d log mu_bg, the gradient of the logits is w_b (u_bg - rho_bg sum_h u_bh) and that of
log l_b is w_b sum_g u_bg. Everything else follows by the chain rule. Rows are worked on in blocks and the gradients are
computed on the way forward, so that no B x G tensor outlives its block; backward only scales them. Most counts are
zero, where the likelihood is one logarithm: digamma and Stirling series are needed at the non-zeros alone.

Two implementations of the same formulas: torch operations (any device and precision; the readable one), and on the CPU
in single precision the Numba kernels of `count_kernels.py`, blocks shared between threads. Under
`torch.set_float32_matmul_precision("medium")` the matrix products take bfloat16 operands where the CPU has them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lucidcell.cells.batch import SparseRows
from lucidcell.maths import threads
from lucidcell.maths.likelihoods import nb_log_prob, poisson_log_prob, zero_inflated

BLOCK = 256  # rows; a block of logits stays in the second-level cache


class LogLikelihood(NamedTuple):
    """Log-likelihood of a batch, in nats."""

    total: Tensor  # scalar, differentiable: sum_b weight_b log p(x_b)
    per_cell: Tensor  # (B,), detached: log p(x_b)


def softmax_log_likelihood(
    counts: SparseRows,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    log_library: Tensor,
    *,
    likelihood: str,
    log_theta: Tensor | None = None,
    group: Tensor | None = None,
    dropout_weight: Tensor | None = None,
    dropout_bias: Tensor | None = None,
    cell_weight: Tensor | None = None,
) -> LogLikelihood:
    """Log-likelihood of counts whose means are `library * softmax(hidden @ weight.T + bias)`.

    Parameters
    ----------
    counts
        Counts of B cells over G genes.
    hidden, weight, bias
        Last hidden layer (B, H), decoder weight (G, H) and bias (G,). Leaves or not: gradients reach all of them.
    log_library
        Log of the total count of each cell, (B,).
    likelihood
        "nb", "zinb", "poisson" or "multinomial" (the last without its coefficient and without library).
    log_theta, group
        Log inverse dispersion, (G,) or (D, G) with the row of each cell in `group` (B,). NB and ZINB only.
    dropout_weight, dropout_bias
        Second head (G, H), (G,) for the logits of the dropout probability. ZINB only.
    cell_weight
        Weight of each cell, (B,); ones by default.
    """
    n_cells, n_genes = hidden.shape[0], weight.shape[0]
    if bias is None:
        bias = weight.new_zeros(n_genes)
    if log_theta is None:
        log_theta, group = weight.new_zeros(1, n_genes), None
    if dropout_weight is not None and dropout_bias is None:
        dropout_bias = weight.new_zeros(n_genes)
    if group is None:
        group = torch.zeros(n_cells, dtype=torch.int64, device=hidden.device)
    if cell_weight is None:
        cell_weight = hidden.new_ones(n_cells)
    total, per_cell = _Fused.apply(
        hidden, weight, bias, log_library, torch.atleast_2d(log_theta), dropout_weight, dropout_bias,
        counts, likelihood, group, cell_weight,
    )  # fmt: skip
    return LogLikelihood(total, per_cell)


class _Problem(NamedTuple):
    """Everything the forward pass reads; all tensors detached."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    log_library: Tensor
    theta: Tensor  # (D, G)
    dropout: tuple[Tensor, Tensor] | None  # weight and bias of the second head
    counts: SparseRows
    likelihood: str
    group: Tensor
    cell_weight: Tensor
    gradients: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells, genes, hidden units."""
        return self.hidden.shape[0], self.weight.shape[0], self.weight.shape[1]


class _Sums:
    """Gradients of one thread's blocks; those per gene are summed, those per cell are shared between threads."""

    def __init__(self, problem: _Problem, per_cell: Tensor, d_hidden: Tensor, d_log_library: Tensor) -> None:
        self.per_cell, self.d_hidden, self.d_log_library = per_cell, d_hidden, d_log_library
        self.d_weight: Tensor | None = None  # until the first block
        self.d_dropout_weight: Tensor | None = None
        self.d_bias = torch.zeros_like(problem.bias)
        self.d_dropout_bias = torch.zeros_like(problem.bias)
        self.d_log_theta = torch.zeros_like(problem.theta)

    def per_gene(self) -> list[Tensor | None]:
        return [self.d_weight, self.d_bias, self.d_log_theta, self.d_dropout_weight, self.d_dropout_bias]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        log_library: Tensor,
        log_theta: Tensor,
        dropout_weight: Tensor | None,
        dropout_bias: Tensor | None,
        counts: SparseRows,
        likelihood: str,
        group: Tensor,
        cell_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        gradients = any(ctx.needs_input_grad)
        dropout = None
        if dropout_weight is not None and dropout_bias is not None:
            dropout = dropout_weight.detach(), dropout_bias.detach()
        problem = _Problem(  # detached: worker threads have their own grad mode
            hidden.detach(), weight.detach(), bias.detach(), log_library.detach(), log_theta.detach().exp(),
            dropout, counts, likelihood, group, cell_weight, gradients,
        )  # fmt: skip
        single_cpu = hidden.device.type == "cpu" and hidden.dtype == torch.float32
        per_cell, per_cell_gradients, per_gene_gradients = (_numba if single_cpu else _torch)(problem)
        if gradients:
            d_weight, d_bias, d_log_theta, d_dropout_weight, d_dropout_bias = per_gene_gradients
            if dropout is None:
                d_dropout_bias = None
            ctx.gradients = (*per_cell_gradients, d_weight, d_bias, d_log_theta, d_dropout_weight, d_dropout_bias)
        ctx.mark_non_differentiable(per_cell)
        return per_cell @ cell_weight, per_cell

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("an earlier backward has used up the gradients of this loss; compute the loss again.")
        d_hidden, d_log_library, d_weight, d_bias, d_log_theta, d_dropout_weight, d_dropout_bias = ctx.gradients
        gradients = (d_hidden, d_weight, d_bias, d_log_library, d_log_theta, d_dropout_weight, d_dropout_bias)
        once = grad_total.dtype == torch.float32  # in training: scaled in place, which saves a pass over G x H
        if once:
            ctx.gradients = None
        scaled = (None if g is None else g.mul_(grad_total) if once else g * grad_total for g in gradients)
        return *scaled, None, None, None, None


def _blocks(problem: _Problem, prepare: Callable[[_Sums, int, int], Callable[[], None]], n_threads: int) -> tuple:
    """Run `prepare(sums, start, stop)()` over all rows; thread t takes every n_threads-th block, always the same.

    What needs the interpreter is done in `prepare`, on the calling thread: two threads that take turns with the
    interpreter's lock wake each other up, which takes longer than a product.
    """
    n_cells, _, n_hidden = problem.shape
    n_blocks = -(-n_cells // (BLOCK * n_threads)) * n_threads  # as many for each thread
    rows = -(-n_cells // n_blocks)
    n_threads = min(n_threads, -(-n_cells // rows))
    per_cell = problem.hidden.new_empty(n_cells)
    d_hidden = problem.hidden.new_empty(n_cells, n_hidden)
    d_log_library = problem.hidden.new_empty(n_cells)
    sums = [_Sums(problem, per_cell, d_hidden, d_log_library) for _ in range(n_threads)]

    work = [
        [prepare(sums[t], start, min(start + rows, n_cells)) for start in range(t * rows, n_cells, n_threads * rows)]
        for t in range(n_threads)
    ]

    def task(t: int) -> None:
        for block in work[t]:
            block()

    threads.run(task, n_threads)
    totals = sums[0].per_gene()
    for other in sums[1:]:
        for total, part in zip(totals, other.per_gene(), strict=True):
            if total is not None and part is not None:
                total += part
    return per_cell, (d_hidden, d_log_library), totals


# --- torch operations -------------------------------------------------------------------------------------------


class _Terms(NamedTuple):
    """Per element: log p, its slope in log mu, and its derivatives in log theta and the dropout logit."""

    log_p: Tensor
    slope: Tensor
    d_log_theta: Tensor | None = None
    d_dropout: Tensor | None = None


def _nb_terms(x: Tensor, at: tuple[Tensor, Tensor], mu: Tensor, theta: Tensor) -> _Terms:
    log_p = -theta * torch.log1p(mu / theta)
    slope = -theta * mu / (theta + mu)
    d_log_theta = log_p - slope
    m, t = mu[at].clamp(min=1e-30), theta[at]
    log_p[at] = nb_log_prob(x, m, t)
    slope[at] = t * (x - m) / (t + m)
    d_log_theta[at] += t * (torch.digamma(x + t) - torch.digamma(t)) - x * t / (t + m)
    return _Terms(log_p, slope, d_log_theta)


def _zinb_terms(x: Tensor, at: tuple[Tensor, Tensor], mu: Tensor, theta: Tensor, dropout: Tensor) -> _Terms:
    nb = _nb_terms(x, at, mu, theta)
    nb_zero = -theta * torch.log1p(mu / theta)
    log_p = zero_inflated(nb_zero, dropout)
    log_p[at] = nb.log_p[at] - torch.nn.functional.softplus(dropout[at])
    share = torch.sigmoid(nb_zero - dropout)  # P(the zero is the NB part's)
    share[at] = 1
    assert nb.d_log_theta is not None
    return _Terms(log_p, share * nb.slope, share * nb.d_log_theta, torch.sigmoid(-dropout) - share)


def _poisson_terms(x: Tensor, at: tuple[Tensor, Tensor], mu: Tensor) -> _Terms:
    log_p, slope = -mu, -mu
    m = mu[at].clamp(min=1e-30)
    log_p[at] = poisson_log_prob(x, m)
    slope[at] = x - m
    return _Terms(log_p, slope)


def _multinomial_terms(x: Tensor, at: tuple[Tensor, Tensor], log_rho: Tensor) -> _Terms:
    slope = torch.zeros_like(log_rho)
    slope[at] = x
    return _Terms(slope * log_rho, slope)


def _torch(problem: _Problem) -> tuple:
    def work(sums: _Sums, start: int, stop: int) -> None:
        rows = slice(start, stop)
        counts = problem.counts.rows(start, stop)
        at = (counts.row_of_entry(), counts.indices.long())
        x = counts.values.to(problem.hidden.dtype)
        hidden, weight = problem.hidden[rows], problem.weight
        log_rho = torch.log_softmax(torch.addmm(problem.bias, hidden, weight.t()), dim=1)
        mu = torch.exp(log_rho + problem.log_library[rows, None])
        theta = problem.theta[problem.group[rows]]
        if problem.likelihood == "nb":
            terms = _nb_terms(x, at, mu, theta)
        elif problem.likelihood == "zinb":
            assert problem.dropout is not None
            dropout_weight, dropout_bias = problem.dropout
            terms = _zinb_terms(x, at, mu, theta, torch.addmm(dropout_bias, hidden, dropout_weight.t()))
        elif problem.likelihood == "poisson":
            terms = _poisson_terms(x, at, mu)
        else:
            terms = _multinomial_terms(x, at, log_rho)
        sums.per_cell[rows] = terms.log_p.sum(1)
        if problem.gradients:
            _accumulate(problem, sums, rows, terms, log_rho.exp())

    return _blocks(problem, lambda *block: partial(work, *block), n_threads=1)


def _accumulate(problem: _Problem, sums: _Sums, rows: slice, terms: _Terms, rho: Tensor) -> None:
    hidden, w = problem.hidden[rows], problem.cell_weight[rows, None]
    slope_sum = terms.slope.sum(1, keepdim=True)
    d_logits = w * (terms.slope - rho * slope_sum)
    sums.d_hidden[rows] = d_logits @ problem.weight
    sums.d_weight = _add_product(sums.d_weight, d_logits.t(), hidden)
    sums.d_bias += d_logits.sum(0)
    is_multinomial = problem.likelihood == "multinomial"
    sums.d_log_library[rows] = 0 if is_multinomial else (w * slope_sum).squeeze(1)
    if terms.d_log_theta is not None:
        sums.d_log_theta.index_add_(0, problem.group[rows], w * terms.d_log_theta)
    if terms.d_dropout is not None and problem.dropout is not None:
        d_dropout = w * terms.d_dropout
        sums.d_hidden[rows] += d_dropout @ problem.dropout[0]
        sums.d_dropout_weight = _add_product(sums.d_dropout_weight, d_dropout.t(), hidden)
        sums.d_dropout_bias += d_dropout.sum(0)


# --- Numba kernels ----------------------------------------------------------------------------------------------


def has_bfloat16_products() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _numba(problem: _Problem) -> tuple:
    from lucidcell.maths import count_kernels

    kernel = getattr(count_kernels, f"{problem.likelihood}_rows")
    low = torch.get_float32_matmul_precision() == "medium" and has_bfloat16_products()
    dtype = torch.bfloat16 if low else torch.float32
    hidden = problem.hidden.to(dtype)
    heads = [(problem.weight.to(dtype), problem.bias.numpy())]
    if problem.dropout is not None:
        heads.append((problem.dropout[0].to(dtype), problem.dropout[1].numpy()))
    indptr, indices, values = (t.numpy() for t in problem.counts[:3])
    log_library, group = problem.log_library.numpy(), problem.group.numpy()
    cell_weight, theta = problem.cell_weight.numpy(), problem.theta.numpy()
    rising, digammas = count_kernels.small_counts(theta if problem.likelihood in ("nb", "zinb") else theta[:, :0])
    n_genes = problem.weight.shape[0]

    def prepare(sums: _Sums, start: int, stop: int) -> Callable[[], None]:
        rows = slice(start, stop)
        block_hidden, d_hidden = hidden[rows], sums.d_hidden[rows]
        d_biases = [sums.d_bias.numpy(), sums.d_dropout_bias.numpy()][: len(heads)]
        arguments = (
            indptr[start : stop + 1], indices, values, log_library[rows], theta, rising, digammas, group[rows],
            cell_weight[rows], problem.gradients, sums.per_cell.numpy()[rows], *d_biases, sums.d_log_theta.numpy(),
            sums.d_log_library.numpy()[rows],
        )  # fmt: skip

        def block() -> None:
            logits = threads.workspace((len(heads), stop - start, n_genes), dtype).unbind()
            for out, (weight, _) in zip(logits, heads, strict=True):
                torch.mm(block_hidden, weight.t(), out=out)
            inputs = [array for out, (_, bias) in zip(logits, heads, strict=True) for array in (_bits(out), bias)]
            kernel(*inputs, *arguments)
            if problem.gradients:
                d_hidden.copy_(logits[0] @ heads[0][0])
                sums.d_weight = _add_product(sums.d_weight, logits[0].t(), block_hidden)
                if len(heads) == 2:
                    d_hidden.add_(logits[1] @ heads[1][0])
                    sums.d_dropout_weight = _add_product(sums.d_dropout_weight, logits[1].t(), block_hidden)

        return block

    return _blocks(problem, prepare, threads.n_threads())


def _bits(logits: Tensor) -> Any:
    """The numbers as NumPy sees them: float32, or bfloat16 held as uint16."""
    return logits.numpy() if logits.dtype == torch.float32 else logits.view(torch.uint16).numpy()


def _add_product(out: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """out + a @ b in the precision of `out`, in place; float32 at least."""
    if out is None:
        product = a @ b
        return product.float() if product.dtype == torch.bfloat16 else product
    return out.addmm_(a, b) if a.dtype == out.dtype else out.add_(a @ b)
