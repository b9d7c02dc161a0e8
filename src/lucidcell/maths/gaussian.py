"""A draw from the Gaussian posterior of an encoder, with its divergence and its density, in one operation.

The posterior has a few dozen numbers a batch; as separate torch operations its forward and backward passes cost as much
as the decoder's first layer. On the CPU in single precision they are one pass each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lucidcell.maths.divergences import kl_standard_normal


class Draw(NamedTuple):
    """One draw z ~ q(z | x) = N(mu, sigma^2) for each of B cells."""

    z: Tensor  # (B, D)
    kl: Tensor  # (B,): KL(q || N(0, I))
    log_q: Tensor  # (B,): log q(z | x), without the constant -D/2 log(2 pi)


def draw_gaussian(hidden: Tensor, mean: nn.Linear, log_variance: nn.Linear, smallest_variance: float) -> Draw:
    """Draw z with mu = mean(hidden) and sigma^2 = exp(log_variance(hidden)) + smallest_variance.

    `hidden` is (B, H). Everything returned is differentiable; z by the reparametrisation mu + sigma epsilon.
    """
    epsilon = torch.randn(hidden.shape[0], mean.out_features, dtype=hidden.dtype, device=hidden.device)
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
        return Draw(
            *_Draw.apply(
                hidden, mean.weight, mean.bias, log_variance.weight, log_variance.bias, epsilon, smallest_variance
            )
        )
    mu, sigma = mean(hidden), (log_variance(hidden).exp() + smallest_variance).sqrt()
    log_q = -(sigma.log() + 0.5 * epsilon.square()).sum(1)
    return Draw(mu + sigma * epsilon, kl_standard_normal(mu, sigma).sum(1), log_q)


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        mean_weight: Tensor,
        mean_bias: Tensor,
        variance_weight: Tensor,
        variance_bias: Tensor,
        epsilon: Tensor,
        smallest_variance: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from lucidcell.maths.gaussian_kernels import draw

        mu = torch.addmm(mean_bias, hidden, mean_weight.t())
        variance = torch.addmm(variance_bias, hidden, variance_weight.t()).exp_()  # without the floor
        z, sigma = torch.empty_like(mu), torch.empty_like(mu)
        kl, log_q = mu.new_empty(mu.shape[0]), mu.new_empty(mu.shape[0])
        draw(*(t.numpy() for t in (mu, variance, epsilon, z, sigma, kl, log_q)), smallest_variance)
        ctx.save_for_backward(hidden, mean_weight, variance_weight)
        ctx.draw = mu, variance, epsilon, sigma
        return z, kl, log_q

    @staticmethod
    def backward(ctx: Any, d_z: Tensor, d_kl: Tensor, d_log_q: Tensor) -> tuple[Tensor | None, ...]:
        from lucidcell.maths.gaussian_kernels import gradient

        hidden, mean_weight, variance_weight = ctx.saved_tensors
        mu, variance, epsilon, sigma = ctx.draw
        d_mu, d_log_variance = torch.empty_like(mu), torch.empty_like(mu)
        outer = (t.contiguous() for t in (d_z, d_kl, d_log_q))
        gradient(*(t.numpy() for t in (mu, variance, epsilon, sigma, *outer, d_mu, d_log_variance)))
        d_hidden = torch.addmm(d_mu @ mean_weight, d_log_variance, variance_weight)
        return (
            d_hidden, d_mu.t() @ hidden, d_mu.sum(0), d_log_variance.t() @ hidden, d_log_variance.sum(0), None, None,
        )  # fmt: skip
