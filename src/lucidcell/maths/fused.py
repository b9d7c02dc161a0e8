"""Linear layer, softmax over genes and count likelihood in one operation, with its gradients.

For cell b with hidden layer h_b, library l_b and weight w_b (W: G x H):

    a_bg = h_b . W_g + bias_g        rho_b = softmax(a_b)        mu_bg = l_b rho_bg
    total = sum_b w_b sum_g log p(x_bg | mu_bg, theta_g)         log p: `likelihoods.py`

With the slope u_bg = d log p / d log mu_bg, the gradient of the logits is w_b (u_bg - rho_bg sum_h u_bh) and that of
log l_b is w_b sum_g u_bg. Everything else follows by the chain rule. Rows are worked on in blocks and the gradients are
computed on the way forward, so that no B x G tensor outlives its block; backward only scales them. Most counts are
zero, where the likelihood is one logarithm: digamma and Stirling series are needed at the non-zeros alone.

Two implementations of the same formulas: torch operations (any device and precision; the readable one, here), and on
the CPU in single precision `fused_cpu.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lucidcell.cells.batch import SparseRows
from lucidcell.maths.likelihoods import nb_log_prob, poisson_log_prob, zero_inflated

BLOCK = 256  # rows; a block of logits stays in the second-level cache


def has_bfloat16_products() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_low = ContextVar("low precision", default=False)  # of the calling thread


@contextmanager
def low_precision(on: bool) -> Iterator[None]:
    """Take bfloat16 operands for the large products on the CPU, if it has such products; restored on leaving.

    Torch's own `set_float32_matmul_precision("medium")` would convert the operands of small products too, which takes
    longer than these products: 50 us instead of 20 (Xeon with AMX, LOG.md).
    """
    before = _low.set(on and has_bfloat16_products())
    try:
        yield
    finally:
        _low.reset(before)


def is_low_precision() -> bool:
    """Whether the large products take bfloat16 operands now."""
    return _low.get()


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
    n_genes = weight.shape[0]
    if bias is None:
        bias = weight.new_zeros(n_genes)
    if log_theta is None:
        log_theta, group = weight.new_zeros(1, n_genes), None
    if dropout_weight is not None and dropout_bias is None:
        dropout_bias = weight.new_zeros(n_genes)
    total, per_cell = _Fused.apply(
        hidden, weight, bias, log_library, torch.atleast_2d(log_theta), dropout_weight, dropout_bias,
        counts, likelihood, group, cell_weight,
    )  # fmt: skip
    return LogLikelihood(total, per_cell)


class Problem(NamedTuple):
    """Everything the forward pass reads; all tensors detached."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    log_library: Tensor
    theta: Tensor  # (D, G)
    dropout: tuple[Tensor, Tensor] | None  # weight and bias of the second head
    counts: SparseRows
    likelihood: str
    group: Tensor | None
    cell_weight: Tensor | None
    gradients: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells, genes, hidden units."""
        return self.hidden.shape[0], self.weight.shape[0], self.weight.shape[1]


class Result(NamedTuple):
    """Likelihood and, where they were asked for, its gradients."""

    per_cell: Tensor  # (B,)
    d_hidden: Tensor  # (B, H)
    d_log_library: Tensor  # (B,)
    d_weight: Tensor | None  # (G, H)
    d_bias: Tensor  # (G,)
    d_log_theta: Tensor  # (D, G)
    d_dropout_weight: Tensor | None  # (G, H)
    d_dropout_bias: Tensor | None  # (G,)


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
        group: Tensor | None,
        cell_weight: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        gradients = any(ctx.needs_input_grad)
        dropout = None
        if dropout_weight is not None and dropout_bias is not None:
            dropout = dropout_weight.detach(), dropout_bias.detach()
        problem = Problem(  # detached: worker threads have their own grad mode
            hidden.detach(), weight.detach(), bias.detach(), log_library.detach(), log_theta.detach().exp(),
            dropout, counts, likelihood, group, cell_weight, gradients,
        )  # fmt: skip
        if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
            from lucidcell.maths.fused_cpu import evaluate
        else:
            evaluate = _evaluate
        result = evaluate(problem)
        ctx.result = result if problem.gradients else None
        ctx.mark_non_differentiable(result.per_cell)
        total = result.per_cell.sum() if cell_weight is None else result.per_cell @ cell_weight
        return total, result.per_cell

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.result is None:
            raise RuntimeError("an earlier backward has used up the gradients of this loss; compute the loss again.")
        r: Result = ctx.result
        gradients = (
            r.d_hidden, r.d_weight, r.d_bias, r.d_log_library, r.d_log_theta, r.d_dropout_weight, r.d_dropout_bias,
        )  # fmt: skip
        once = grad_total.dtype == torch.float32  # in training: scaled in place, which saves a pass over G x H
        if once:
            ctx.result = None
        scaled = (None if g is None else g.mul_(grad_total) if once else g * grad_total for g in gradients)
        return *scaled, None, None, None, None


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


def _evaluate(problem: Problem) -> Result:
    n_cells, n_genes, n_hidden = problem.shape
    empty, is_zinb = problem.hidden.new_empty, problem.dropout is not None
    result = Result(
        per_cell=empty(n_cells),
        d_hidden=empty(n_cells, n_hidden),
        d_log_library=empty(n_cells),
        d_weight=torch.zeros_like(problem.weight),
        d_bias=torch.zeros_like(problem.bias),
        d_log_theta=torch.zeros_like(problem.theta),
        d_dropout_weight=torch.zeros_like(problem.weight) if is_zinb else None,
        d_dropout_bias=torch.zeros_like(problem.bias) if is_zinb else None,
    )
    for start in range(0, n_cells, BLOCK):
        _evaluate_rows(problem, slice(start, min(start + BLOCK, n_cells)), result)
    return result


def _evaluate_rows(problem: Problem, rows: slice, result: Result) -> None:
    counts = problem.counts.rows(rows.start, rows.stop)
    at = (counts.row_of_entry(), counts.indices.long())
    x = counts.values.to(problem.hidden.dtype)
    hidden, weight = problem.hidden[rows], problem.weight
    log_rho = torch.log_softmax(torch.addmm(problem.bias, hidden, weight.t()), dim=1)
    mu = torch.exp(log_rho + problem.log_library[rows, None])
    theta = problem.theta[0] if problem.group is None else problem.theta[problem.group[rows]]
    theta = theta.expand_as(mu)
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
    result.per_cell[rows] = terms.log_p.sum(1)
    if problem.gradients:
        _accumulate(problem, result, rows, terms, log_rho.exp())


def _accumulate(problem: Problem, result: Result, rows: slice, terms: _Terms, rho: Tensor) -> None:
    hidden = problem.hidden[rows]
    w: Tensor | float = 1.0 if problem.cell_weight is None else problem.cell_weight[rows, None]
    slope_sum = terms.slope.sum(1, keepdim=True)
    d_logits = w * (terms.slope - rho * slope_sum)
    result.d_hidden[rows] = d_logits @ problem.weight
    assert result.d_weight is not None
    result.d_weight.addmm_(d_logits.t(), hidden)
    result.d_bias.add_(d_logits.sum(0))
    is_multinomial = problem.likelihood == "multinomial"
    result.d_log_library[rows] = 0 if is_multinomial else (w * slope_sum).squeeze(1)
    if terms.d_log_theta is not None:
        weighted = w * terms.d_log_theta
        if problem.group is None:
            result.d_log_theta.add_(weighted.sum(0))
        else:
            result.d_log_theta.index_add_(0, problem.group[rows], weighted)
    if terms.d_dropout is not None and problem.dropout is not None:
        d_dropout = w * terms.d_dropout
        result.d_hidden[rows] += d_dropout @ problem.dropout[0]
        assert result.d_dropout_weight is not None
        assert result.d_dropout_bias is not None
        result.d_dropout_weight.addmm_(d_dropout.t(), hidden)
        result.d_dropout_bias.add_(d_dropout.sum(0))
