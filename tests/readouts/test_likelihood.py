"""ELBO and likelihood of cells: with one factor every integral can be done on a grid, in NumPy and scipy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest
import torch
from by_hand import ByHand
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from lucidcell.models.scvi import SCVI

Z = np.linspace(-10, 10, 801)
N_CELLS = 5


def exact_log_likelihood(hand: ByHand, n: int) -> float:
    """log of the integral of p(x_n | z) N(z; 0, 1) dz."""
    log_p = hand.log_likelihood(n, Z[:, None], hand.cells.library[n])
    return float(logsumexp(log_p + norm.logpdf(Z)) + np.log(Z[1] - Z[0]))


def exact_expectation(hand: ByHand, n: int, values: np.ndarray) -> float:
    """Mean of `values` (on the grid) under q(z | x_n)."""
    mean, variance = hand.posterior()
    density = norm.pdf(Z, mean[n, 0], np.sqrt(variance[n, 0]))
    return float((density * values).sum() / density.sum())


@pytest.fixture(scope="module")
def well_trained(simulated_once: ad.AnnData) -> Callable[..., SCVI]:
    """Trained until q(z | x) is near the posterior, without which importance sampling is noise."""

    def get(**arguments: object) -> SCVI:
        model = SCVI(simulated_once, batch_key="batch", n_hidden=16, **arguments)
        model.train(80, learning_rate=1e-2, batch_size=32, num_threads=1, progress=False)
        return model

    return get


@pytest.fixture(scope="module", params=["nb", "zinb", "poisson"])
def one_factor(well_trained: Callable[..., SCVI], request: pytest.FixtureRequest) -> SCVI:
    return well_trained(n_latent=1, gene_likelihood=request.param)


def test_elbo_and_reconstruction_error_by_quadrature(one_factor):
    hand, rows = ByHand(one_factor), np.arange(N_CELLS)
    mean, variance = (torch.from_numpy(v[rows, 0]) for v in hand.posterior())
    kl = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).numpy()
    grids = [hand.log_likelihood(n, Z[:, None], hand.cells.library[n]) for n in rows]
    fit = np.array([exact_expectation(hand, n, grid) for n, grid in zip(rows, grids, strict=True)])
    squares = np.array([exact_expectation(hand, n, grid**2) for n, grid in zip(rows, grids, strict=True)])
    error = 5 * np.sqrt(np.maximum(squares - fit**2, 0) / 400) + 1e-3 * np.abs(fit)
    found = one_factor.get_elbo(indices=rows, n_samples=400, return_mean=False)
    assert np.all(np.abs(found - (fit - kl)) < error)
    reconstruction = one_factor.get_reconstruction_error(indices=rows, n_samples=400, return_mean=False)
    assert np.all(np.abs(reconstruction + fit) < error)
    np.testing.assert_allclose(found, -reconstruction - kl, rtol=1e-4, atol=1e-2)


def with_broad_posterior(model: SCVI) -> SCVI:
    """The same decoder under q(z | x) = N(0, 1.5^2) and q(log l | x) a little wider than the prior.

    Importance sampling then converges for every cell, however well the encoder has been trained.
    """
    broad = copy.copy(model)
    broad.module = copy.deepcopy(model.module)
    with torch.no_grad():
        for linear in (broad.module.z_mean, broad.module.z_variance):
            linear.weight.zero_()
        broad.module.z_mean.bias.zero_()
        broad.module.z_variance.bias.fill_(2 * math.log(1.5))
        if not model.config.use_observed_lib_size:
            prior = model.module.library_prior.mean(0)
            for linear, value in (
                (broad.module.library_mean, prior[0]),
                (broad.module.library_variance, 2 * prior[1].log()),
            ):
                linear.weight.zero_()
                linear.bias.copy_(value)
    return broad


def sampled(model: SCVI, n: int, copies: int = 3000, draws: int = 30) -> float:
    """log p(x_n) from `copies` x `draws` draws: the cell many times over."""
    each = model.get_marginal_ll(indices=np.full(copies, n), n_mc_samples=draws, return_mean=False)
    return float(logsumexp(each.astype(float)) - math.log(copies))


def test_importance_sampling_finds_the_exact_likelihood(one_factor):
    hand, broad = ByHand(one_factor), with_broad_posterior(one_factor)
    for n in range(3):
        assert sampled(broad, n) == pytest.approx(exact_log_likelihood(hand, n), abs=0.2)


def test_the_elbo_of_a_cell_is_below_its_exact_likelihood(one_factor):
    hand = ByHand(one_factor)
    exact = np.array([exact_log_likelihood(hand, n) for n in range(N_CELLS)])
    elbo = one_factor.get_elbo(indices=np.arange(N_CELLS), n_samples=400, return_mean=False)
    assert np.all(elbo < exact + 0.1)
    assert np.any(elbo > exact - 30), "a bound, and not an empty one"


def test_importance_sampling_with_a_latent_library(well_trained):
    """A grid over z and log l, the latter with the prior of the cell's batch."""
    model = well_trained(n_latent=1, use_observed_lib_size=False)
    hand, broad = ByHand(model), with_broad_posterior(model)
    z = np.linspace(-5, 5, 101)
    for n in (0, 5):
        location, scale = hand.w["library_prior"][hand.cells.batch[n]]
        logs = np.linspace(location - 6 * scale, location + 6 * scale, 121)
        rows = [
            hand.log_likelihood(n, np.full((len(logs), 1), point), np.exp(logs)) + norm.logpdf(logs, location, scale)
            for point in z
        ]
        total = logsumexp(np.stack(rows) + norm.logpdf(z)[:, None])
        exact = total + np.log(z[1] - z[0]) + np.log(logs[1] - logs[0])
        assert sampled(broad, n) == pytest.approx(exact, abs=0.15)
        assert model.get_elbo(indices=[n], n_samples=500) < exact + 0.05


def test_a_latent_library_has_its_kl_in_the_elbo(trained):
    model = trained(use_observed_lib_size=False)
    hand = ByHand(model)
    mean, variance = (torch.from_numpy(v) for v in hand.posterior())
    kl = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum(1)
    library_mean, library_variance = (torch.from_numpy(v) for v in hand.library_posterior())
    prior = torch.from_numpy(hand.w["library_prior"])[torch.from_numpy(hand.cells.batch)]
    kl += kl_divergence(Normal(library_mean, library_variance.sqrt()), Normal(prior[:, 0], prior[:, 1]))
    difference = -model.get_elbo(return_mean=False) - model.get_reconstruction_error(return_mean=False)
    np.testing.assert_allclose(difference, kl, rtol=1e-3, atol=0.02)


@pytest.mark.parametrize("arguments", [{}, {"gene_likelihood": "zinb"}, {"latent_distribution": "ln", "n_latent": 4}])
def test_the_elbo_is_below_the_likelihood_on_average(trained, arguments):
    model = trained(**arguments)
    assert model.get_elbo(n_samples=5) < model.get_marginal_ll(n_mc_samples=200)


def test_a_logistic_normal_is_integrated_over_its_gaussian(well_trained):
    """With two factors the simplex is a line: z = softmax(u) depends on u_1 - u_2 ~ N(0, 2) only."""
    model = well_trained(latent_distribution="ln", n_latent=2)
    hand, broad, gap = ByHand(model), with_broad_posterior(model), np.linspace(-9, 9, 361)
    z = softmax(np.stack([gap, np.zeros_like(gap)], axis=1), axis=1)
    for n in (0, 5, 11):
        log_p = hand.log_likelihood(n, z, hand.cells.library[n]) + norm.logpdf(gap, 0, np.sqrt(2))
        exact = logsumexp(log_p) + np.log(gap[1] - gap[0])
        assert sampled(broad, n) == pytest.approx(exact, abs=0.15)


def test_means_are_means_and_nats_are_per_cell(trained):
    model = trained()
    for name in ("get_elbo", "get_reconstruction_error"):
        each = getattr(model, name)(return_mean=False)
        assert each.shape == (120,)
        assert getattr(model, name)() == pytest.approx(each.mean(), rel=1e-6)
    each = model.get_marginal_ll(n_mc_samples=3, return_mean=False)
    assert model.get_marginal_ll(n_mc_samples=3) == pytest.approx(each.mean(), rel=1e-6)


def test_the_held_out_elbo_of_the_history_is_that_of_the_read_out(simulated):
    from battery import HELD_OUT

    model = SCVI(simulated, batch_key="batch", n_hidden=16, n_latent=3)
    model.train(4, batch_size=32, num_threads=1, train_size=0.5, early_stopping=False, progress=False)
    best = model.history[HELD_OUT].iloc[model.record.best_epoch]
    read_out = model.get_elbo(indices=model.validation_indices, n_samples=50)
    assert -read_out == pytest.approx(best, rel=0.01)
