"""Expression and draws of counts: against the equations in NumPy, and the moments of the likelihoods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from battery import assert_sentence
from by_hand import ByHand
from scipy.stats import spearmanr

from lucidcell.errors import DataError, SettingError
from lucidcell.models.scvi import SCVI
from lucidcell.readouts.expression import sample_counts

EVERYTHING = {
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["age"],
    "encode_covariates": True,
    "n_layers": 2,
}
VARIANTS = [{}, EVERYTHING, EVERYTHING | {"use_observed_lib_size": False, "gene_likelihood": "zinb"}]


@pytest.mark.parametrize("arguments", VARIANTS)
def test_normalised_expression_by_hand(trained, arguments):
    model = trained(**arguments)
    hand = ByHand(model)
    wanted = np.exp(hand.log_rho(hand.posterior()[0], hand.design))
    found = model.get_normalized_expression()
    assert isinstance(found, pd.DataFrame)
    np.testing.assert_allclose(found, wanted, rtol=2e-4)
    assert list(found.columns) == list(model.schema.gene_names)
    assert list(found.index) == list(model.cells.cell_names)


def test_expression_sums_to_the_library_asked_for(trained):
    model = trained()
    np.testing.assert_allclose(model.get_normalized_expression().sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.get_normalized_expression(library_size=1e4).sum(1), 1e4, rtol=1e-5)
    np.testing.assert_allclose(
        model.get_normalized_expression(library_size="latent").sum(1), model.cells.library, rtol=1e-5
    )


def test_transform_batch_is_what_the_cells_would_be_in_that_batch(trained, simulated):
    model = trained()
    moved = simulated.copy()
    moved.obs["batch"] = ["batch_1"] * 120
    wanted = model.get_normalized_expression(moved)
    both = [model.get_normalized_expression(transform_batch=name) for name in ("batch_0", "batch_1")]
    np.testing.assert_array_equal(both[1], wanted)
    assert not np.array_equal(*both)
    own = model.get_normalized_expression()
    for s in (0, 1):
        rows = model.cells.batch == s
        np.testing.assert_allclose(own[rows], both[s][rows], rtol=1e-6)
    average = model.get_normalized_expression(transform_batch=["batch_0", "batch_1"])
    np.testing.assert_allclose(average, (both[0] + both[1]) / 2, rtol=1e-5)
    with pytest.raises(SettingError, match=r"transform_batch names \['batch_7'\].*batch_0, batch_1") as caught:
        model.get_normalized_expression(transform_batch="batch_7")
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match="transform_batch names"):
        model.get_normalized_expression(transform_batch=[])


def test_batches_that_are_numbers_can_be_named_by_number(simulated):
    simulated.obs["batch"] = np.where(simulated.obs["batch"] == "batch_0", 0, 1)
    model = SCVI(simulated, batch_key="batch", n_hidden=8, n_latent=2)
    model.train(1, num_threads=1, progress=False)
    wanted = model.get_normalized_expression(transform_batch="1")
    np.testing.assert_array_equal(model.get_normalized_expression(transform_batch=1), wanted)
    np.testing.assert_array_equal(model.get_normalized_expression(transform_batch=[1]), wanted)


def test_transform_batch_takes_the_dispersion_of_that_batch(trained, simulated):
    model = trained(dispersion="gene-batch")
    moved = simulated.copy()
    moved.obs["batch"] = ["batch_1"] * 120
    there = model.posterior_predictive_sample(moved, n_samples=3, seed=1)
    transformed = model.posterior_predictive_sample(transform_batch="batch_1", n_samples=3, seed=1)
    for one, other in zip(there, transformed, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_genes_are_picked_by_name(trained):
    model = trained()
    whole = model.get_normalized_expression()
    pd.testing.assert_frame_equal(
        model.get_normalized_expression(gene_list=["gene_7", "gene_0"]), whole[["gene_7", "gene_0"]]
    )
    pd.testing.assert_frame_equal(model.get_normalized_expression(gene_list="gene_7"), whole[["gene_7"]])
    with pytest.raises(DataError, match=r"1 of 2 genes are not in the model, such as \['CD4'\]") as caught:
        model.get_normalized_expression(gene_list=["gene_1", "CD4"])
    assert_sentence(caught.value)


def test_samples_of_expression_and_their_mean(trained):
    model = trained()
    draws = model.get_normalized_expression(n_samples=4, return_mean=False)
    assert draws.shape == (4, 120, 50)
    np.testing.assert_allclose(draws.sum(-1), 1, rtol=1e-5)
    mean = model.get_normalized_expression(n_samples=4)
    np.testing.assert_allclose(mean, draws.mean(0), rtol=1e-5)
    assert not np.allclose(draws[0], draws[1])
    assert isinstance(model.get_normalized_expression(return_numpy=True), np.ndarray)
    many = model.get_normalized_expression(n_samples=300)
    location, scale = many.to_numpy(), draws.std(0) / np.sqrt(300) + 1e-4
    assert np.median(np.abs(location - mean.to_numpy()) / scale) < 20


@pytest.mark.parametrize(
    "wrong", [{"n_samples": 0}, {"library_size": "observed"}, {"batch_size": 0}, {"batch_size": -3}]
)
def test_impossible_requests_are_refused(trained, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))) as caught:
        trained().get_normalized_expression(**wrong)
    assert_sentence(caught.value)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("get_latent_representation", {"give_mean": False, "n_samples": 0}),
        ("get_elbo", {"n_samples": 0}),
        ("get_reconstruction_error", {"n_samples": -1}),
        ("get_marginal_ll", {"n_mc_samples": 0}),
        ("posterior_predictive_sample", {"n_samples": 0}),
        ("posterior_predictive_check", {"n_samples": 0}),
        ("get_feature_correlation_matrix", {"n_samples": 0}),
        ("get_feature_correlation_matrix", {"correlation_type": "kendall"}),
    ],
)
def test_requests_for_nothing_are_refused(trained, method, arguments):
    with pytest.raises(SettingError, match=list(arguments)[-1]) as caught:
        getattr(trained(), method)(**arguments)
    assert_sentence(caught.value)


# --- parameters and draws of counts -----------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_likelihood_parameters_by_hand(trained, likelihood):
    model = trained(gene_likelihood=likelihood)
    hand, found = ByHand(model), model.get_likelihood_parameters()
    z, _ = hand.posterior()
    mean = np.exp(hand.log_rho(z, hand.design)) * model.cells.library[:, None]
    np.testing.assert_allclose(found["mean"], mean, rtol=2e-4)
    assert (
        set(found) == {"nb": {"mean", "theta"}, "zinb": {"mean", "theta", "dropout"}, "poisson": {"mean"}}[likelihood]
    )
    if likelihood != "poisson":
        np.testing.assert_allclose(found["theta"], np.tile(np.exp(hand.w["log_theta"]), (120, 1)), rtol=1e-5)
    if likelihood == "zinb":
        logit = hand.linear(hand.hidden(z, hand.design), "dropout_logit")
        np.testing.assert_allclose(found["dropout"], 1 / (1 + np.exp(-logit)), rtol=2e-4)


@pytest.mark.parametrize(("dispersion", "codes"), [("gene-batch", "batch"), ("gene-label", "label")])
def test_dispersion_by_batch_or_label(trained, dispersion, codes):
    model = trained(dispersion=dispersion)
    theta = np.exp(model.module.log_theta.detach().numpy())
    assert not np.allclose(theta[0], theta[1])
    found = model.get_likelihood_parameters()["theta"]
    np.testing.assert_allclose(found, theta[getattr(model.cells, codes)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["nb", "zinb", "poisson"])
def test_drawn_counts_have_the_moments_of_their_likelihood(kind):
    mean, theta, dropout = 7.0, 1.5, 0.3
    parameters = {"mean": torch.full((200_000, 1), mean)}
    variance, zero = mean, np.exp(-mean)
    if kind != "poisson":
        parameters["theta"] = torch.full((200_000, 1), theta)
        variance, zero = mean + mean**2 / theta, (theta / (theta + mean)) ** theta
    if kind == "zinb":
        parameters["dropout"] = torch.full((200_000, 1), dropout)
        variance = (1 - dropout) * (variance + dropout * mean**2)
        mean, zero = (1 - dropout) * mean, dropout + (1 - dropout) * zero
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        counts = sample_counts(parameters).numpy()
    assert np.all(counts == np.round(counts))
    assert abs(counts.mean() - mean) < 4 * np.sqrt(variance / 200_000)
    assert counts.var() == pytest.approx(variance, rel=0.03)
    assert (counts == 0).mean() == pytest.approx(zero, abs=0.005)


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_predictive_samples_are_counts_around_the_fitted_means(trained, likelihood):
    model = trained(gene_likelihood=likelihood)
    one = model.posterior_predictive_sample()
    assert sp.issparse(one)
    assert one.shape == (120, 50)
    draws = model.posterior_predictive_sample(n_samples=40)
    assert isinstance(draws, list)
    total = sum(draw.toarray() for draw in draws) / 40
    found = model.get_likelihood_parameters()
    fitted = found["mean"] * (1 - found.get("dropout", 0))
    assert total.sum() == pytest.approx(fitted.sum(), rel=0.05)
    assert np.corrcoef(np.log1p(total.mean(0)), np.log1p(fitted.mean(0)))[0, 1] > 0.99
    few = model.posterior_predictive_sample(gene_list=["gene_3", "gene_1"])
    np.testing.assert_array_equal(few.toarray(), one.toarray()[:, [3, 1]])
    assert (model.posterior_predictive_sample(seed=1) != one).nnz > 0


def test_predictive_check_observes_what_numpy_observes(trained):
    model = trained()
    table, x = model.posterior_predictive_check(n_samples=5), ByHand(model).x
    np.testing.assert_allclose(table["mean_observed"], x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(table["zero_fraction_observed"], (x == 0).mean(0))
    np.testing.assert_allclose(table["cv_observed"], x.std(0) / x.mean(0), rtol=1e-6)
    assert list(table.index) == list(model.schema.gene_names)
    assert np.corrcoef(np.log1p(table["mean_expected"]), np.log1p(table["mean_observed"]))[0, 1] > 0.95
    some = model.posterior_predictive_check(indices=np.arange(10))
    np.testing.assert_allclose(some["mean_observed"], x[:10].mean(0), rtol=1e-6)


def test_gene_correlation_is_a_correlation_and_sees_programs(simulated):
    model = SCVI(simulated, batch_key="batch", n_hidden=16, n_latent=3)
    model.train(80, learning_rate=1e-2, batch_size=32, num_threads=1, progress=False)
    table = model.get_feature_correlation_matrix(n_samples=3)
    values = table.to_numpy()
    np.testing.assert_allclose(values, values.T)
    np.testing.assert_allclose(np.diag(values), 1)
    assert np.abs(values).max() <= 1 + 1e-9
    program = simulated.var["program"].astype(str).to_numpy()
    same = (program[:, None] == program) & (program != "none") & ~np.eye(50, dtype=bool)
    other = (program[:, None] != program) & (program[:, None] != "none") & (program != "none")
    assert values[same].mean() > values[other].mean() + 0.1, (values[same].mean(), values[other].mean())
    assert not np.allclose(model.get_feature_correlation_matrix(correlation_type="pearson", n_samples=3), values)


def test_rank_correlation_is_spearmans(trained):
    """With a Poisson likelihood and one draw, the matrix is that of sampled expression."""
    model = trained(gene_likelihood="poisson")
    rho = model.get_normalized_expression(n_samples=1, return_mean=False)  # at the mean: shape only
    assert rho.shape == (1, 120, 50)
    values = model.get_feature_correlation_matrix(n_samples=1, seed=4).to_numpy()
    drawn = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        for batch in model.batches(model.cells, 256):
            posterior = model.module.encode(batch)
            z = posterior.mu + posterior.sigma * torch.randn_like(posterior.sigma)
            drawn.append(model.module.decode(z, model.module.design(batch)).exp().numpy())
    np.testing.assert_allclose(values, spearmanr(np.concatenate(drawn)).statistic, atol=2e-3)
