"""Batch-norm after a linear layer, folded into its weight and bias, from the moments of the layer's inputs.

For inputs h (B, P), weight W (G, P), and the outputs a = h @ W.T that are never computed:

    mean_g = W_g . mean(h)      variance_g = W_g' Cov(h) W_g        both over the B rows
    scale_g = gamma_g / sqrt(variance_g + eps)
    batch_norm(a) = h @ (scale W).T + (beta - scale mean)

One operation with its own gradient: as some thirty small ones it takes a fifth of a training step (LOG.md, 2026-11-28).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lucidcell.maths.across import add_up_together, n_processes


class Folded(NamedTuple):
    """Weight and bias that include the batch-norm, and the moments of the outputs before it."""

    weight: Tensor  # (G, P), differentiable
    bias: Tensor  # (G,), differentiable
    n: Tensor  # rows, of all processes
    mean: Tensor  # (G,), detached
    variance: Tensor  # (G,), detached; biased, as batch-norm divides by it


def fold_batch_norm(inputs: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Folded:
    """Batch-norm over the rows of `inputs` folded into `weight` and a bias; gradients reach all four tensors."""
    return Folded(*_Fold.apply(inputs, weight, gamma, beta, eps))


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        local = inputs.mean(0)
        centred = inputs - local
        n, mean_input, covariance = _moments(inputs.new_full((), len(inputs)), local, torch.mm(centred.t(), centred))
        centred = centred if n_processes() == 1 else inputs - mean_input
        product = weight @ covariance  # W Cov(h), (G, P)
        mean, variance = weight @ mean_input, torch.linalg.vecdot(product, weight).clamp_(min=0)
        inverse_sd = (variance + eps).rsqrt_()
        scale = gamma * inverse_sd
        ctx.save_for_backward(n, centred, mean_input, weight, product, gamma, mean, inverse_sd, scale)
        ctx.mark_non_differentiable(n, mean, variance)
        return weight * scale[:, None], torch.addcmul(beta, scale, mean, value=-1), n, mean, variance

    @staticmethod
    def backward(ctx: Any, d_weight: Tensor, d_bias: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        n, centred, mean_input, weight, product, gamma, mean, inverse_sd, scale = ctx.saved_tensors
        d_scale = torch.linalg.vecdot(d_weight, weight).addcmul_(d_bias, mean, value=-1)
        d_gamma = d_scale * inverse_sd
        d_variance = (d_gamma * gamma).mul_(inverse_sd * inverse_sd).mul_(-0.5)
        d_mean = -(d_bias * scale)
        twice = d_variance[:, None] * 2
        d_unfolded = torch.addcmul(d_weight * scale[:, None], product, twice).addr_(d_mean, mean_input)
        d_covariance, d_mean_input = add_up_together(weight.t() @ (weight * twice), d_mean @ weight)
        d_inputs = torch.addmm(d_mean_input, centred, d_covariance).div_(n)
        return d_inputs, d_unfolded, d_gamma, d_bias, None


def _moments(n: Tensor, mean: Tensor, scatter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, mean and covariance over all processes, from rows, mean and centred products of each."""
    if n_processes() == 1:
        return n, mean, scatter.div_(n)
    wide = [one.double() for one in (n, n * mean, scatter)]  # products around 0 would lose digits
    n_all, total, products = add_up_together(*wide[:2], wide[2] + wide[1].outer(wide[1]) / wide[0])
    mean_all = total / n_all
    covariance = products / n_all - torch.outer(mean_all, mean_all)
    return n_all.to(n.dtype), mean_all.to(n.dtype), covariance.to(n.dtype)
