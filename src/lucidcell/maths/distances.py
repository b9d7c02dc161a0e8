"""Squared distances between points, and products of columns with each other, each as one operation.

By automatic differentiation the gradients of both take twice the products and as many copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2, (M, N), of points a (M, d) and b (N, d)."""
    out: Tensor = _SquaredDistances.apply(a, b)
    return out


def gram(a: Tensor) -> Tensor:
    """a_i . a_j, (M, M), of rows a (M, d)."""
    out: Tensor = _Gram.apply(a)
    return out


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        lengths = torch.linalg.vecdot(a, a)[:, None] + torch.linalg.vecdot(b, b)
        return torch.addmm(lengths, a, b.t(), alpha=-2)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        d_a = torch.addmm(a * d_out.sum(1, keepdim=True), d_out, b, beta=2, alpha=-2)
        d_b = torch.addmm(b * d_out.sum(0)[:, None], d_out.t(), a, beta=2, alpha=-2)
        return d_a, d_b


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return a @ a.t()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return (d_out + d_out.t()) @ a
