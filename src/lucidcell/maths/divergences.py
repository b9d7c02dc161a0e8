"""Kullback-Leibler divergences in closed form, in nats, element by element."""

from __future__ import annotations

from torch import Tensor


def kl_gaussians(mu: Tensor, sigma: Tensor, prior_mu: Tensor | float, prior_sigma: Tensor | float) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)); sigmas are standard deviations."""
    ratio = sigma / prior_sigma
    return 0.5 * (ratio**2 + ((mu - prior_mu) / prior_sigma) ** 2 - 1) - ratio.log()


def kl_standard_normal(mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1))."""
    return 0.5 * (sigma**2 + mu**2 - 1) - sigma.log()
