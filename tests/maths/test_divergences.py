from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from lucidcell.maths.divergences import kl_gaussians, kl_standard_normal


def gaussians() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mu, prior_mu = torch.randn(2, 50, dtype=torch.float64, generator=generator) * 3
    sigma, prior_sigma = torch.randn(2, 50, dtype=torch.float64, generator=generator).exp()
    return mu, sigma, prior_mu, prior_sigma


def test_kl_between_gaussians_is_that_of_torch():
    mu, sigma, prior_mu, prior_sigma = gaussians()
    wanted = kl_divergence(Normal(mu, sigma), Normal(prior_mu, prior_sigma))
    torch.testing.assert_close(kl_gaussians(mu, sigma, prior_mu, prior_sigma), wanted)


def test_kl_from_the_standard_normal_is_that_of_torch():
    mu, sigma, _, _ = gaussians()
    torch.testing.assert_close(kl_standard_normal(mu, sigma), kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)))
    torch.testing.assert_close(kl_gaussians(mu, sigma, 0.0, 1.0), kl_standard_normal(mu, sigma))


def test_kl_is_zero_only_at_the_prior():
    one = torch.ones(())
    assert kl_standard_normal(torch.zeros(()), one) == 0
    assert kl_gaussians(one, one, one, one) == 0
    assert kl_standard_normal(torch.tensor(1e-3), one) > 0
    assert kl_standard_normal(torch.zeros(()), torch.tensor(1.01)) > 0
