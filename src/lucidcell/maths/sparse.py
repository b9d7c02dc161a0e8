"""Product of sparse cells with a dense weight: the first layer of an encoder, at the cost of the non-zeros only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucidcell.cells.batch import SparseRows
from lucidcell.maths import threads

WORTH_A_THREAD = 20_000  # non-zeros: about 0.2 ms


def sparse_linear(x: SparseRows, weight: Tensor) -> Tensor:
    """x @ weight for cells x (B, G) and weight (G, H); differentiable in the weight."""
    if x.device.type == "cpu" and weight.dtype == torch.float32:
        return _SparseLinear.apply(x, weight)
    return x.dense().to(weight.dtype) @ weight


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: SparseRows, weight: Tensor) -> Tensor:
        from lucidcell.maths.sparse_kernels import multiply

        ctx.x, ctx.shape = x, weight.shape
        out = weight.new_empty(x.n_cells, weight.shape[1])
        arrays = [t.numpy() for t in (*x[:3], weight.detach(), out)]
        cuts = row_cuts(x, WORTH_A_THREAD)
        threads.run(lambda t: multiply(*arrays, cuts[t], cuts[t + 1]), len(cuts) - 1)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[None, Tensor]:
        from lucidcell.maths.sparse_kernels import multiply_transposed

        d_weight = d_out.new_empty(ctx.shape)
        arrays = [t.numpy() for t in (*ctx.x[:3], d_out.contiguous(), d_weight)]
        cuts = _gene_cuts(ctx.x)
        threads.run(lambda t: multiply_transposed(*arrays, cuts[t], cuts[t + 1]), len(cuts) - 1)
        return None, d_weight


def row_cuts(x: SparseRows, worth_a_thread: int) -> list[int]:
    """Bounds of each thread's rows; a thread is worth so many non-zeros."""
    pieces = threads.worth(x.values.shape[0], worth_a_thread)
    return [x.n_cells * t // pieces for t in range(pieces + 1)]


def _gene_cuts(x: SparseRows) -> list[int]:
    """Bounds of each thread's genes, which share out the non-zeros: nothing is written twice and nothing added up."""
    pieces = threads.worth(x.values.shape[0], WORTH_A_THREAD)
    if pieces == 1:
        return [0, x.n_genes]
    some = np.sort(x.indices.numpy()[:: x.indices.shape[0] // 1000 or 1])
    return [0, *(int(some[len(some) * t // pieces]) for t in range(1, pieces)), x.n_genes]
