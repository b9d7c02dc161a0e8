"""The fused likelihood on the CPU in single precision: Numba kernels, row blocks shared between threads.

Inside `low_precision(True)` the matrix products take bfloat16 operands where the CPU has them.
Everything that needs the interpreter is prepared on the calling thread, so that a block is a handful of calls without
its lock: two threads that take turns with the lock wake each other up, which takes as long as a product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lucidcell.maths import count_kernels, threads
from lucidcell.maths.fused import BLOCK, Problem, Result, is_low_precision

Call = Callable[[], object]
LEAST_HIDDEN = 32  # products with fewer take less time than the conversion of their operands


class _Head(NamedTuple):
    """One linear map to the genes; the second is the dropout logit of ZINB."""

    weight: Tensor  # (G, H), in the precision of the products
    bias: np.ndarray  # (G,)
    d_hidden: Tensor  # (B, H), its part of the gradient
    d_weight: Sequence[Tensor]  # (G, H), for each thread


class _Share:
    """Thread `thread`'s part of the sums over cells."""

    def __init__(self, thread: int, n_heads: int, theta: np.ndarray) -> None:
        sums = np.zeros((n_heads + len(theta), theta.shape[1]), np.float32)
        self.thread, self.sums, self.is_empty = thread, sums, True
        self.d_biases, self.d_log_theta = list(sums[:n_heads]), sums[n_heads:]


def evaluate(problem: Problem) -> Result:
    """Log-likelihood and gradients of all cells."""
    n_cells, n_genes, n_hidden = problem.shape
    n_threads, rows = _shares(n_cells)
    dtype = torch.bfloat16 if is_low_precision() and n_hidden >= LEAST_HIDDEN else torch.float32
    hidden = problem.hidden.to(dtype)
    heads = [
        _Head(
            weight.to(dtype),
            bias.numpy(),
            hidden.new_empty(n_cells, n_hidden),
            [torch.empty(n_genes, n_hidden) for _ in range(n_threads if problem.gradients else 0)],
        )
        for weight, bias in ((problem.weight, problem.bias), *([problem.dropout] if problem.dropout else []))
    ]
    theta = problem.theta.numpy()
    shares = [_Share(t, len(heads), theta) for t in range(n_threads)]
    per_cell, d_log_library = np.empty(n_cells, np.float32), np.empty(n_cells, np.float32)
    prepare = _Preparation(problem, hidden, heads, theta, per_cell, d_log_library)
    work = [
        [
            call
            for start in range(t * rows, n_cells, n_threads * rows)
            for call in prepare(shares[t], start, start + rows)
        ]
        for t in range(n_threads)
    ]

    def task(t: int) -> None:
        for call in work[t]:
            call()

    threads.run(task, n_threads)
    return _result(problem, heads, shares, per_cell, d_log_library)


def _shares(n_cells: int) -> tuple[int, int]:
    """Number of threads, which take blocks in turn, always the same ones, and rows of a block."""
    n_threads = threads.n_threads()
    n_blocks = -(-n_cells // (BLOCK * n_threads)) * n_threads  # as many for each thread
    rows = -(-n_cells // n_blocks)
    return min(n_threads, -(-n_cells // rows)), rows


class _Preparation:
    """Makes the calls that work on a block, all their arguments at hand."""

    def __init__(
        self,
        problem: Problem,
        hidden: Tensor,
        heads: list[_Head],
        theta: np.ndarray,
        per_cell: np.ndarray,
        d_log_library: np.ndarray,
    ) -> None:
        self.hidden, self.heads, self.theta, self.gradients = hidden, heads, theta, problem.gradients
        self.per_cell, self.d_log_library = per_cell, d_log_library
        self.kernel = getattr(count_kernels, f"{problem.likelihood}_rows")
        self.tables = count_kernels.small_counts(theta if problem.likelihood in ("nb", "zinb") else theta[:, :0])
        n_cells = problem.shape[0]
        self.indptr, self.indices, self.values = (t.numpy() for t in problem.counts[:3])
        self.log_library = problem.log_library.numpy()
        self.group = np.zeros(n_cells, np.int64) if problem.group is None else problem.group.numpy()
        weight = problem.cell_weight
        self.cell_weight = np.ones(n_cells, np.float32) if weight is None else weight.numpy()

    def __call__(self, share: _Share, start: int, stop: int) -> list[Call]:
        rows = slice(start, min(stop, len(self.per_cell)))
        hidden, n_genes = self.hidden[rows], self.theta.shape[1]
        shape = (len(self.heads), len(hidden), n_genes)
        logits = threads.workspace(("logits", share.thread), shape, hidden.dtype).unbind()
        arguments = [array for out, head in zip(logits, self.heads, strict=True) for array in (_bits(out), head.bias)]
        kernel = partial(
            self.kernel, *arguments, self.indptr[start : rows.stop + 1], self.indices, self.values,
            self.log_library[rows], self.theta, *self.tables, self.group[rows], self.cell_weight[rows], self.gradients,
            self.per_cell[rows], *share.d_biases, share.d_log_theta, self.d_log_library[rows],
        )  # fmt: skip
        calls: list[Call] = [
            partial(torch.mm, hidden, head.weight.t(), out=out) for out, head in zip(logits, self.heads, strict=True)
        ]
        calls.append(kernel)
        if self.gradients:
            for out, head in zip(logits, self.heads, strict=True):
                calls.append(partial(torch.mm, out, head.weight, out=head.d_hidden[rows]))
                calls += _add_product(head.d_weight[share.thread], out.t(), hidden, share)
            share.is_empty = False
        return calls


def _add_product(total: Tensor, a: Tensor, b: Tensor, share: _Share) -> list[Call]:
    """total += a @ b, or = where nothing is there yet."""
    if a.dtype == total.dtype:
        return [partial(torch.addmm, total, a, b, beta=0 if share.is_empty else 1, out=total)]
    product = threads.workspace(("product", share.thread), tuple(total.shape), a.dtype)
    return [partial(torch.mm, a, b, out=product), partial(total.copy_ if share.is_empty else total.add_, product)]


def _result(
    problem: Problem, heads: list[_Head], shares: list[_Share], per_cell: np.ndarray, d_log_library: np.ndarray
) -> Result:
    """The shares of all threads added up."""
    sums = shares[0].sums
    for share in shares[1:]:
        sums += share.sums
    rows = torch.from_numpy(sums)
    d_hidden = heads[0].d_hidden.float()
    for head in heads:
        for other in head.d_weight[1:]:
            head.d_weight[0].add_(other)
    if len(heads) == 2:
        d_hidden += heads[1].d_hidden
    d_weights = [head.d_weight[0] if problem.gradients else None for head in heads]
    dropout = (d_weights[1], rows[1]) if len(heads) == 2 else (None, None)
    per_cell_tensors = torch.from_numpy(per_cell), d_hidden, torch.from_numpy(d_log_library)
    return Result(*per_cell_tensors, d_weights[0], rows[0], rows[len(heads) :], *dropout)


def _bits(logits: Tensor) -> Any:
    """The numbers as NumPy sees them: float32, or bfloat16 held as uint16."""
    return logits.numpy() if logits.dtype == torch.float32 else logits.view(torch.uint16).numpy()
