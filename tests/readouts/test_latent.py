"""Factors and library of each cell: against the equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import ByHand
from scipy.special import softmax

from lucidcell.errors import DataError, SettingError
from lucidcell.models.scvi import SCVI

EVERYTHING = {
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["age"],
    "encode_covariates": True,
    "n_layers": 2,
}
VARIANTS = [{}, EVERYTHING, EVERYTHING | {"use_observed_lib_size": False, "gene_likelihood": "zinb"}]


@pytest.mark.parametrize("arguments", VARIANTS)
def test_latent_mean_and_variance_by_hand(trained, arguments):
    model = trained(**arguments)
    mean, variance = ByHand(model).posterior()
    found = model.get_latent_representation(return_dist=True)
    np.testing.assert_allclose(found[0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], variance, rtol=1e-4)
    np.testing.assert_array_equal(model.get_latent_representation(), found[0])


def test_samples_have_the_stated_mean_and_variance(trained):
    model = trained()
    mean, variance = model.get_latent_representation(return_dist=True)
    draws = model.get_latent_representation(give_mean=False, n_samples=2000)
    assert draws.shape == (2000, 120, 3)
    z = (draws.mean(0) - mean) / np.sqrt(variance / 2000)
    assert np.abs(z).max() < 5
    assert np.abs(draws.var(0) / variance - 1).max() < 0.2
    assert model.get_latent_representation(give_mean=False).shape == (120, 3)
    other = model.get_latent_representation(give_mean=False, n_samples=2000, seed=1)
    assert not np.array_equal(draws, other)


def test_a_logistic_normal_lies_on_the_simplex(trained):
    model = trained(latent_distribution="ln", n_latent=4)
    mean = model.get_latent_representation(mc_samples=500)
    draws = model.get_latent_representation(give_mean=False, n_samples=500, seed=3)
    for values in (mean, draws):
        assert values.min() >= 0
        np.testing.assert_allclose(values.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(mean, draws.mean(0), atol=0.05)
    location, variance = model.get_latent_representation(return_dist=True)
    rng = np.random.default_rng(0)
    by_hand = softmax(location + np.sqrt(variance) * rng.normal(size=(500, *location.shape)), axis=-1).mean(0)
    np.testing.assert_allclose(mean, by_hand, atol=0.05)


def test_observed_library_is_the_total_count(trained, simulated):
    model = trained()
    np.testing.assert_allclose(model.get_latent_library_size(), simulated.X.sum(1).A1)


def test_latent_library_by_hand(trained):
    model = trained(use_observed_lib_size=False)
    hand = ByHand(model)
    np.testing.assert_allclose(model.get_latent_library_size(), np.exp(hand.library_posterior()[0]), rtol=1e-3)
    logs = np.log(model.cells.library)
    for s in (0, 1):
        of_batch = logs[model.cells.batch == s]
        np.testing.assert_allclose(model.module.library_prior[s], [of_batch.mean(), of_batch.std()], rtol=1e-4)


def test_a_size_factor_takes_the_place_of_the_library(trained, simulated):
    model = trained(size_factor_key="size")
    np.testing.assert_allclose(model.get_latent_library_size(), simulated.obs["size"], rtol=1e-6)
    mean = model.get_likelihood_parameters()["mean"]
    np.testing.assert_allclose(mean.sum(1), simulated.obs["size"], rtol=1e-5)
    with pytest.raises(SettingError, match="takes the place of the library"):
        SCVI(simulated, size_factor_key="size", use_observed_lib_size=False)
    simulated.obs["size"] = 0.0
    with pytest.raises(DataError, match="size factors must be positive"):
        SCVI(simulated, size_factor_key="size")
