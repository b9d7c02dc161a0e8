"""Product of sparse cells with a dense weight: the first layer of an encoder, at the cost of the non-zeros only."""

from __future__ import annotations

from typing import Any

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
        cuts = _cuts(x)
        threads.run(lambda t: multiply(*arrays, cuts[t], cuts[t + 1]), len(cuts) - 1)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[None, Tensor]:
        from lucidcell.maths.sparse_kernels import multiply_transposed

        cuts = _cuts(ctx.x)
        parts = [d_out.new_zeros(ctx.shape) for _ in cuts[1:]]
        arrays = [t.numpy() for t in (*ctx.x[:3], d_out.contiguous())]
        outs = [part.numpy() for part in parts]
        threads.run(lambda t: multiply_transposed(*arrays, outs[t], cuts[t], cuts[t + 1]), len(cuts) - 1)
        for part in parts[1:]:
            parts[0] += part
        return None, parts[0]


def _cuts(x: SparseRows) -> list[int]:
    """Bounds of each thread's rows; one thread alone where there is less to do than waking another takes."""
    pieces = max(1, min(threads.n_threads(), x.values.shape[0] // WORTH_A_THREAD))
    return [x.n_cells * t // pieces for t in range(pieces + 1)]
