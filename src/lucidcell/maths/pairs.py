"""Networks that see a cell and a label, for the many pairs of both over which a model sums.

A model that sums over C labels passes each of its B cells through a network C times. What depends on the cell alone is
computed once for each cell, what depends on the label alone once for each label, and only their sum for every pair.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from lucidcell.maths.divergences import kl_standard_normal


class GivenLabel(nn.Module):
    """Gaussian over D numbers from D numbers and a label, one hidden layer: q(u | z, c) and p(z | u, c).

    The layer is that of [x, one-hot label], whose part of the label is a row of a table. No batch-norm: a cell would be
    seen once or C times, depending on what is known of it.
    """

    def __init__(self, n_latent: int, n_labels: int, n_hidden: int, smallest_variance: float) -> None:
        super().__init__()
        self.smallest_variance = smallest_variance
        self.x = nn.Linear(n_latent, n_hidden)
        bound = 1 / math.sqrt(n_latent)
        self.label = nn.Parameter(torch.empty(n_labels, n_hidden).uniform_(-bound, bound))
        self.mean, self.log_variance = nn.Linear(n_hidden, n_latent), nn.Linear(n_hidden, n_latent)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, both (P, D), for rows of x (P, D) and labels (P,)."""
        return self.heads(self.x(x), label)

    def heads(self, of_x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The same from `self.x(x)`, (P, H)."""
        hidden = (of_x + embedding(label, self.label)).relu()
        return self.mean(hidden), (self.log_variance(hidden).exp() + self.smallest_variance).sqrt()

    def table_and_heads(self) -> list[Tensor]:
        """What follows `x`, in the order of the kernels."""
        return [self.label, self.mean.weight, self.mean.bias, self.log_variance.weight, self.log_variance.bias]


class PairTerms(NamedTuple):
    """At one draw of u from q(u | z, c) for each of P pairs of a cell and a label c; all (P,)."""

    log_p: Tensor  # log p(z | u, c), without the constant -D/2 log(2 pi)
    kl: Tensor  # KL(q(u | z, c) || N(0, I))


def pair_terms(z: Tensor, cell: Tensor, label: Tensor, q_u: GivenLabel, p_z: GivenLabel) -> PairTerms:
    """Terms of P pairs of a row `cell` of z (B, D) and a `label`; differentiable.

    On the CPU in single precision both networks, the draw and the terms are one operation.
    """
    epsilon = torch.randn(len(cell), z.shape[1], dtype=z.dtype, device=z.device)
    of_z = q_u.x(z)
    if z.device.type == "cpu" and z.dtype == torch.float32:
        weights = [*q_u.table_and_heads(), p_z.x.weight, p_z.x.bias, *p_z.table_and_heads()]
        floors = q_u.smallest_variance, p_z.smallest_variance
        return PairTerms(*_PairTerms.apply(cell, label, epsilon, floors, z, of_z, *weights))
    mu, sigma = q_u.heads(embedding(cell, of_z), label)
    mean, sd = p_z(mu + sigma * epsilon, label)
    log_p = -(0.5 * ((embedding(cell, z) - mean) / sd).square() + sd.log()).sum(1)
    return PairTerms(log_p, kl_standard_normal(mu, sigma).sum(1))


class _PairTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: Tensor,
        label: Tensor,
        epsilon: Tensor,
        floors: tuple[float, float],
        z: Tensor,
        of_z: Tensor,
        q_table: Tensor,
        q_mean: Tensor,
        q_mean_bias: Tensor,
        q_variance: Tensor,
        q_variance_bias: Tensor,
        p_x: Tensor,
        p_x_bias: Tensor,
        p_table: Tensor,
        p_mean: Tensor,
        p_mean_bias: Tensor,
        p_variance: Tensor,
        p_variance_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        from lucidcell.maths.pairs_kernels import density, draw, rectified_sum

        pair, each = (cell.numpy(), label.numpy()), np.arange(len(cell))
        log_p, kl, u = epsilon.new_empty(len(cell)), epsilon.new_empty(len(cell)), torch.empty_like(epsilon)
        of_u, of_z_given_u = epsilon.new_empty(2, *u.shape), epsilon.new_empty(2, *u.shape)

        q_hidden = of_z.new_empty(len(cell), of_z.shape[1])
        rectified_sum(of_z.detach().numpy(), pair[0], q_table.detach().numpy(), pair[1], q_hidden.numpy())
        torch.addmm(q_mean_bias, q_hidden, q_mean.t(), out=of_u[0])
        torch.addmm(q_variance_bias, q_hidden, q_variance.t(), out=of_u[1])
        draw(of_u.numpy(), epsilon.numpy(), floors[0], u.numpy(), kl.numpy())
        p_hidden = torch.addmm(p_x_bias, u, p_x.t())
        rectified_sum(p_hidden.numpy(), each, p_table.detach().numpy(), pair[1], p_hidden.numpy())
        torch.addmm(p_mean_bias, p_hidden, p_mean.t(), out=of_z_given_u[0])
        torch.addmm(p_variance_bias, p_hidden, p_variance.t(), out=of_z_given_u[1])
        density(z.detach().numpy(), pair[0], of_z_given_u.numpy(), floors[1], log_p.numpy())

        ctx.save_for_backward(z, q_mean, q_variance, p_x, p_mean, p_variance)
        ctx.between = q_hidden, of_u, epsilon, u, p_hidden, of_z_given_u
        ctx.pair, ctx.floors, ctx.shapes = pair, floors, (of_z.shape, q_table.shape, p_table.shape)
        return log_p, kl

    @staticmethod
    def backward(ctx: Any, d_log_p: Tensor, d_kl: Tensor) -> tuple[Tensor | None, ...]:
        from lucidcell.maths.pairs_kernels import add_rows, density_back, draw_back, rectified_sum_back

        z, q_mean, q_variance, p_x, p_mean, p_variance = ctx.saved_tensors
        q_hidden, of_u, epsilon, u, p_hidden, of_z_given_u = ctx.between
        (cell, label), (q_floor, p_floor) = ctx.pair, ctx.floors
        d_z = torch.zeros_like(z)
        d_of_z, d_q_table, d_p_table = (z.new_zeros(shape) for shape in ctx.shapes)

        d_heads, outer = torch.empty_like(of_u), d_log_p.contiguous().numpy()
        density_back(z.numpy(), cell, of_z_given_u.numpy(), p_floor, outer, d_z.numpy(), d_heads.numpy())
        d_p_heads = [gradient for d in d_heads for gradient in (d.t() @ p_hidden, d.sum(0))]
        d_hidden = torch.addmm(d_heads[0] @ p_mean, d_heads[1], p_variance)
        rectified_sum_back(p_hidden.numpy(), d_hidden.numpy(), label, d_p_table.numpy())
        d_p_x, d_u = (d_hidden.t() @ u, d_hidden.sum(0)), d_hidden @ p_x

        draw_back(of_u.numpy(), epsilon.numpy(), q_floor, d_u.numpy(), d_kl.contiguous().numpy(), d_heads.numpy())
        d_q_heads = [gradient for d in d_heads for gradient in (d.t() @ q_hidden, d.sum(0))]
        d_hidden = torch.addmm(d_heads[0] @ q_mean, d_heads[1], q_variance)
        rectified_sum_back(q_hidden.numpy(), d_hidden.numpy(), label, d_q_table.numpy())
        add_rows(d_hidden.numpy(), cell, d_of_z.numpy())
        return None, None, None, None, d_z, d_of_z, d_q_table, *d_q_heads, *d_p_x, d_p_table, *d_p_heads
