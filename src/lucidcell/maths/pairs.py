"""Networks that see a cell and a label, for many pairs of both: layers and densities without one-hot copies.

A model that sums over C labels passes each of its B cells through a network C times. What depends on the cell alone is
computed once for each cell, what depends on the label alone once for each label, and only their sum for every pair. On
the CPU in single precision each function is one pass over the pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


def relu_of_sum(x: Tensor, cell: Tensor, table: Tensor, label: Tensor) -> Tensor:
    """relu(x[cell] + table[label]), (P, H), for x (B, H), table (C, H), and P pairs of positions in them."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return _ReluOfSum.apply(x, cell, table, label)
    return (embedding(cell, x) + embedding(label, table)).relu()


class _ReluOfSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cell: Tensor, table: Tensor, label: Tensor) -> Tensor:
        from lucidcell.maths.pairs_kernels import add_and_rectify

        out = x.new_empty(len(cell), x.shape[1])
        add_and_rectify(*(t.detach().contiguous().numpy() for t in (x, cell, table, label)), out.numpy())
        ctx.pairs, ctx.out, ctx.sizes = (cell.numpy(), label.numpy()), out.numpy(), (x.shape, table.shape)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, Tensor, None]:
        from lucidcell.maths.pairs_kernels import scatter_active

        d_x, d_table = (d_out.new_zeros(shape) for shape in ctx.sizes)
        scatter_active(ctx.out, d_out.contiguous().numpy(), *ctx.pairs, d_x.numpy(), d_table.numpy())
        return d_x, None, d_table, None


def log_density(
    z: Tensor, cell: Tensor, hidden: Tensor, mean: nn.Linear, log_variance: nn.Linear, smallest_variance: float
) -> Tensor:
    """log N(z[cell]; mean(hidden), exp(log_variance(hidden)) + smallest_variance), (P,), summed over the D factors.

    The constant -D/2 log(2 pi) is left out. z is (B, D), hidden (P, H).
    """
    mu, log_v = mean(hidden), log_variance(hidden)
    if z.device.type == "cpu" and z.dtype == torch.float32:
        return _LogDensity.apply(z, cell, mu, log_v, smallest_variance)
    v = log_v.exp() + smallest_variance
    return -0.5 * ((embedding(cell, z) - mu).square() / v + v.log()).sum(1)


class _LogDensity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, cell: Tensor, mu: Tensor, log_variance: Tensor, smallest_variance: float
    ) -> Tensor:
        from lucidcell.maths.pairs_kernels import density

        out = mu.new_empty(len(mu))
        ctx.inputs = [t.detach().contiguous().numpy() for t in (z, cell, mu, log_variance)]
        ctx.floor = smallest_variance
        density(*ctx.inputs, smallest_variance, out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        from lucidcell.maths.pairs_kernels import density_gradient

        z, _, mu, _ = ctx.inputs
        d_z, d_mu, d_log_variance = d_out.new_zeros(z.shape), d_out.new_empty(mu.shape), d_out.new_empty(mu.shape)
        gradients = (t.numpy() for t in (d_z, d_mu, d_log_variance))
        density_gradient(d_out.contiguous().numpy(), *ctx.inputs, ctx.floor, *gradients)
        return d_z, None, d_mu, d_log_variance, None
