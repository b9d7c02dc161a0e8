"""Log-probabilities against 60-digit arithmetic over the extremes, and against scipy at everyday values."""

from __future__ import annotations

import math

import exact
import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lucidcell.maths.likelihoods import (
    gaussian_log_prob,
    multinomial_log_prob,
    nb_log_prob,
    poisson_log_prob,
    stirling_remainder,
    zero_inflated,
    zinb_log_prob,
)

PRECISIONS = [(np.float64, 1e-9), (np.float32, 1e-4)]


def tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array.copy()) for array in arrays]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_poisson_is_exact_from_mean_1e_8_to_1e6(dtype, tolerance):
    x, mean, _ = exact.grid(dtype)
    wanted = [exact.poisson(*point) for point in zip(x.tolist(), mean.tolist(), strict=True)]
    found = poisson_log_prob(*tensors(x, mean)).numpy()
    assert found.dtype == dtype
    assert exact.largest_error(found, wanted) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_nb_is_exact_over_means_and_dispersions(dtype, tolerance):
    x, mean, theta = exact.grid(dtype)
    wanted = [exact.nb(*point) for point in zip(x.tolist(), mean.tolist(), theta.tolist(), strict=True)]
    found = nb_log_prob(*tensors(x, mean, theta)).numpy()
    assert found.dtype == dtype
    assert exact.largest_error(found, wanted) < tolerance


@pytest.mark.parametrize("logit", exact.DROPOUT_LOGITS)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_zinb_is_exact_over_means_dispersions_and_dropouts(dtype, tolerance, logit):
    x, mean, theta = exact.grid(dtype)
    d = np.full_like(x, logit)
    points = zip(x.tolist(), mean.tolist(), theta.tolist(), d.tolist(), strict=True)
    found = zinb_log_prob(*tensors(x, mean, theta, d)).numpy()
    assert found.dtype == dtype
    assert exact.largest_error(found, [exact.zinb(*point) for point in points]) < tolerance


@pytest.mark.parametrize("x", [0.01, 0.5, 2.5, 7.99, 1234.56])
@pytest.mark.parametrize("mean", [1e-3, 2.0, 1e4])
def test_counts_need_not_be_whole(x, mean):
    at = torch.tensor([x, mean, 0.7], dtype=torch.float64)
    assert nb_log_prob(*at).item() == pytest.approx(float(exact.nb(x, mean, 0.7)), rel=1e-9)
    assert poisson_log_prob(*at[:2]).item() == pytest.approx(float(exact.poisson(x, mean)), rel=1e-9)


def test_agreement_with_scipy_at_everyday_values():
    rng = np.random.default_rng(0)
    mean, theta = rng.lognormal(1, 1, 500), rng.lognormal(0, 1, 500)
    x = rng.poisson(mean).astype(float)
    nb = scipy.stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    np.testing.assert_allclose(nb_log_prob(*tensors(x, mean, theta)), nb, rtol=1e-10)
    np.testing.assert_allclose(poisson_log_prob(*tensors(x, mean)), scipy.stats.poisson.logpmf(x, mean), rtol=1e-10)
    y = rng.normal(size=500)
    np.testing.assert_allclose(
        gaussian_log_prob(*tensors(y, x, theta)), scipy.stats.norm.logpdf(y, x, theta), rtol=1e-10
    )


def test_multinomial_is_scipys_without_the_coefficient():
    x, rho = np.array([3.0, 0.0, 5.0, 2.0]), np.array([0.2, 0.1, 0.4, 0.3])
    coefficient = math.lgamma(11) - sum(math.lgamma(k + 1) for k in x)
    found = multinomial_log_prob(*tensors(x, np.log(rho))).sum().item()
    assert found + coefficient == pytest.approx(scipy.stats.multinomial.logpmf(x, 10, rho))


@pytest.mark.parametrize(("mean", "theta"), [(0.3, 0.2), (5.0, 1.0), (40.0, 7.0), (40.0, 1e8)])
def test_probabilities_sum_to_one_and_have_the_stated_moments(mean, theta):
    x = torch.arange(0, 20_000, dtype=torch.float64)
    mu, t, logit = (torch.tensor(v, dtype=torch.float64) for v in (mean, theta, -0.4))
    pi = torch.sigmoid(logit).item()
    nb = nb_log_prob(x, mu, t).exp()
    assert nb.sum().item() == pytest.approx(1, abs=1e-9)
    assert (x * nb).sum().item() == pytest.approx(mean)
    assert ((x - mu) ** 2 * nb).sum().item() == pytest.approx(mean + mean**2 / theta, rel=1e-5)
    assert poisson_log_prob(x, mu).exp().sum().item() == pytest.approx(1, abs=1e-9)
    zinb = zinb_log_prob(x, mu, t, logit).exp()
    assert zinb.sum().item() == pytest.approx(1, abs=1e-9)
    assert (x * zinb).sum().item() == pytest.approx((1 - pi) * mean)


def test_gradients_are_right_and_finite_at_extremes():
    x = torch.tensor([0.0, 1.0, 5.0, 12.0, 3.5, 200.0], dtype=torch.float64)
    mu, theta, logit = (
        torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2, 3)
    )
    inputs = [(v * 5 + 0.1).requires_grad_() for v in (mu, theta, logit)]
    assert gradcheck(lambda m, t, d: zinb_log_prob(x, m, t, d), inputs)
    assert gradcheck(lambda m, t: nb_log_prob(x, m, t), inputs[:2])
    assert gradcheck(lambda m: poisson_log_prob(x, m), inputs[:1])
    x, mean, theta = tensors(*exact.grid())
    mean.requires_grad_()
    theta.requires_grad_()
    (nb_log_prob(x, mean, theta).sum() + poisson_log_prob(x, mean).sum()).backward()
    assert mean.grad.isfinite().all()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("t", [1e-6, 0.5, 7.99, 15.999, 16.0, 16.001, 1e3, 1e8])
def test_stirling_remainder(t):
    from mpmath import log, loggamma, mpf, pi

    s = mpf(t)
    wanted = loggamma(s) - (s - 0.5) * log(s) + s - log(2 * pi) / 2
    assert stirling_remainder(torch.tensor(t, dtype=torch.float64)).item() == pytest.approx(
        float(wanted), rel=1e-12, abs=2e-14
    )


def test_zero_inflation_keeps_what_is_smaller_than_the_precision():
    log_p = torch.tensor([-1e-20, -1e-3, -700.0], dtype=torch.float64)
    found = zero_inflated(log_p, torch.tensor(0.0, dtype=torch.float64))
    np.testing.assert_allclose(found, [-0.5e-20, math.log(0.5 + 0.5 * math.exp(-1e-3)), math.log(0.5)], rtol=1e-12)
