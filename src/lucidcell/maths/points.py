"""Squared distances between two sets of points, one operation with a gradient of its own.

For genes a (G, d) and topics b (K, d), D = scale |a_g - b_k|^2 and its gradient E (G, K):

    d a_g = 2 scale (a_g sum_k E_gk - sum_k E_gk b_k)      d b_k = 2 scale (b_k sum_g E_gk - sum_g E_gk a_g)

Automatic differentiation takes 1.4 times as long (LOG.md, 2026-11-30).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """scale |a_g - b_k|^2, (G, K), for points a (G, d) and b (K, d); differentiable in both."""
    distances: Tensor = _Distances.apply(a, b, scale)
    return distances


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.scale = scale
        lengths = torch.linalg.vecdot(a, a)[:, None] + torch.linalg.vecdot(b, b)
        return torch.addmm(lengths, a, b.t(), beta=scale, alpha=-2 * scale)

    @staticmethod
    def backward(ctx: Any, d_distances: Tensor) -> tuple[Tensor, Tensor, None]:
        (a, b), twice = ctx.saved_tensors, 2 * ctx.scale
        d_a, d_b = (
            torch.addmm(one * (twice * slope.sum(1, keepdim=True)), slope, other, alpha=-twice)
            for one, other, slope in ((a, b, d_distances), (b, a, d_distances.t()))
        )
        return d_a, d_b, None
