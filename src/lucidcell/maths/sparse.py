"""Product of sparse cells with a dense weight: the first layer of an encoder, at the cost of the non-zeros only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lucidcell.cells.batch import SparseRows
from lucidcell.maths import threads


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
        bounds = _cuts(x.n_cells)
        threads.run(lambda t: multiply(*arrays, bounds[t], bounds[t + 1]), len(bounds) - 1)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[None, Tensor]:
        from lucidcell.maths.sparse_kernels import multiply_transposed

        d_weight = d_out.new_zeros(ctx.shape)
        arrays = [t.numpy() for t in (*ctx.x[:3], d_out.contiguous(), d_weight)]
        bounds = _cuts(ctx.shape[1])  # columns, so that no two threads write to one place
        threads.run(lambda t: multiply_transposed(*arrays, bounds[t], bounds[t + 1]), len(bounds) - 1)
        return None, d_weight


def _cuts(length: int) -> list[int]:
    """Bounds of one piece for each thread."""
    pieces = max(1, min(threads.n_threads(), length))
    return [length * t // pieces for t in range(pieces + 1)]
