"""LDVAE: exact loadings, batch-norm folded into them, rotations, shares."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import batch_norm

import lucidcell as lc
from lucidcell.errors import NotTrainedError, SettingError
from lucidcell.models.ldvae import GAMMA_PACE, LDVAE, WEIGHT_PACE, LDVAEConfig, LDVAEModule
from lucidcell.models.linear_model import EPS
from lucidcell.models.scvi import Sizes
from lucidcell.readouts.stability import matched

COVARIATES = {"categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["age"]}
VARIANTS = [
    {"latent_distribution": latent, "use_batch_norm": norm} for latent in ("normal", "ln") for norm in (True, False)
]


@pytest.fixture(scope="module")
def fitted(simulated_once: ad.AnnData):
    """`fitted(**arguments)`: an LDVAE of the simulated cells, trained a little; made once."""
    made: dict[str, LDVAE] = {}

    def get(**arguments: Any) -> LDVAE:
        name = repr(sorted(arguments.items()))
        if name not in made:
            made[name] = LDVAE(simulated_once, **({"n_latent": 4, "n_hidden": 16, "batch_key": "batch"} | arguments))
            made[name].train(8, batch_size=32, num_threads=1, progress=False)
        return made[name]

    return get


def module(**config: Any) -> LDVAEModule:
    """An untrained module of 30 genes, 2 batches and 1 covariate in double precision, its weights drawn."""
    torch.manual_seed(0)
    one = LDVAEModule(LDVAEConfig(n_hidden=8, n_latent=3, **config), Sizes(30, 2, 0, 1)).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return one


def logits_of(model: LDVAE, z: np.ndarray) -> np.ndarray:
    """The decoder's output before the softmax, in evaluation mode, cell by cell."""
    batch = next(model.batches(model.cells_of(None), len(model.cells)))
    with torch.no_grad():
        inputs, weight, bias = model.module.logits(torch.from_numpy(z), model.module.design(batch))
        found = inputs.double() @ weight.double().t()
        return (found if bias is None else found + bias.double()).numpy()


# --- the identity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotate", [None, "varimax"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_logits_are_scores_times_loadings_plus_effects(fitted, simulated, variant, rotate):
    model = fitted(**variant, **COVARIATES)
    z = model.get_latent_representation(mc_samples=50)
    scores = model.get_latent_representation(mc_samples=50, rotate=rotate)
    loadings, effects = model.get_loadings(rotate=rotate), model.get_batch_effects()
    mean, sd = model.schema.continuous_covariates["age"]
    covariates = np.column_stack(
        [simulated.obs["sex"] == "f", simulated.obs["sex"] == "m", (simulated.obs["age"] - mean) / sd]
    )
    assert list(model.get_covariate_effects().columns) == ["sex=f", "sex=m", "age"]
    found = (
        scores.astype(float) @ loadings.to_numpy().T
        + model.get_intercept().to_numpy()
        + effects[list(simulated.obs["batch"].astype(str))].to_numpy().T
        + covariates @ model.get_covariate_effects().to_numpy().T
    )
    np.testing.assert_allclose(found, logits_of(model, z), rtol=1e-5, atol=2e-5)
    expression = np.exp(found - found.max(1, keepdims=True))
    expression /= expression.sum(1, keepdims=True)
    decoded = model.module.decode(torch.from_numpy(z), model.module.design(next(model.batches(model.cells_of(None)))))
    np.testing.assert_allclose(expression, decoded.detach().exp().numpy(), rtol=1e-3)


def test_one_constant_added_to_all_loadings_of_a_factor_changes_no_expression(fitted):
    """Which holds for what is decoded, not for the weights before batch-norm."""
    model = fitted()
    z = torch.from_numpy(model.get_latent_representation())
    with torch.no_grad():
        weight, bias = model.module.folded()
        shifted = weight.clone()
        shifted[:, 1] += 3.7
        design = torch.zeros(len(z), 2)
        inputs = torch.cat([z, design], dim=1)
        rho, same = (torch.softmax(inputs @ w.t() + bias, dim=1) for w in (weight, shifted))
        model.module.weight[:, 1] += 3.7
        other = torch.softmax(inputs @ model.module.folded()[0].t() + bias, dim=1)
        model.module.weight[:, 1] -= 3.7
    assert torch.allclose(rho, same, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(rho, other, rtol=1e-2)


def test_centred_loadings_are_slopes_of_log_expression(fitted):
    """d log rho_g / d z_d at the cell whose expression is the weights of the centring; by finite differences."""
    model = fitted(use_batch_norm=False)
    design = torch.zeros(1, 2)
    z = torch.zeros(1, 4)
    with torch.no_grad():
        at = model.module.decode(z, design)[0]
        step = 0.01
        moved = model.module.decode(z + step * torch.eye(4)[[2]], design)[0]
        back = model.module.decode(z - step * torch.eye(4)[[2]], design)[0]
    raw = model.get_loadings().to_numpy()
    weights = at.exp().numpy().astype(float)
    slopes = ((moved - back) / (2 * step)).numpy()
    np.testing.assert_allclose(raw[:, 2] - weights @ raw[:, 2] / weights.sum(), slopes, atol=2e-3)
    centred = model.get_loadings(center=True)
    assert np.abs(model.mean_expression() @ centred.to_numpy()).max() < 1e-6
    assert np.allclose(np.ptp(centred.to_numpy() - raw, axis=0), 0, atol=1e-12)


# --- batch-norm -------------------------------------------------------------------------------------------------


def test_folded_batch_norm_is_torch_batch_norm_with_its_gradients():
    one = module().train()
    z, design = torch.randn(17, 3, dtype=torch.float64), torch.randn(17, 3, dtype=torch.float64)
    target = torch.randn(17, 30, dtype=torch.float64)
    parameters = [one.weight, one.gamma, one.beta]

    def gradients(logits: torch.Tensor, z: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad((torch.log_softmax(logits, 1) * target).sum(), [z, *parameters]))

    z_fold, z_torch = z.clone().requires_grad_(), z.clone().requires_grad_()
    inputs, weight, bias = one.logits(z_fold, design)
    folded = inputs @ weight.t() + bias
    plain = torch.cat([z_torch, design], 1) @ one.free_weight().t()
    mean, variance = torch.zeros(30, dtype=torch.float64), torch.ones(30, dtype=torch.float64)
    normed = batch_norm(plain, mean, variance, GAMMA_PACE * one.gamma, one.beta, training=True, momentum=0.05, eps=EPS)
    torch.testing.assert_close(folded, normed, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(folded, z_fold), gradients(normed, z_torch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(one.running_mean, mean)
    torch.testing.assert_close(one.running_variance, variance)


def test_after_training_moments_are_those_of_all_training_cells(fitted):
    model = fitted()
    cells = model.cells_of(None).select(model.train_indices)
    rng, drawn = np.random.default_rng(0), []
    with torch.no_grad():
        for batch in model.batches(cells):
            posterior, design = model.module.encode(batch), model.module.design(batch)
            for _ in range(200):
                noise = torch.from_numpy(rng.standard_normal(posterior.mu.shape)).float()
                drawn.append(torch.cat([posterior.mu + posterior.sigma * noise, design], 1))
        plain = torch.cat(drawn) @ model.module.free_weight().t()
    sd = plain.std(0)
    assert ((model.module.running_mean - plain.mean(0)).abs() / sd).max() < 0.1
    np.testing.assert_allclose(model.module.running_variance, sd**2, rtol=0.15)


def test_held_out_elbo_is_at_least_that_of_the_running_moments(simulated):
    model = LDVAE(simulated, n_latent=4, n_hidden=16)
    model.train(20, batch_size=32, num_threads=1, progress=False)
    best = model.history["validation_negative_elbo"].min()
    assert -model.get_elbo(indices=model.validation_indices, n_samples=20) < best + 1.0


# --- rotation, order, shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_rotation_keeps_what_is_decoded(fitted, variant):
    model = fitted(**variant)
    raw, turned = model.get_loadings(), model.get_loadings(rotate="varimax")
    assert list(turned.columns) == ["R1", "R2", "R3", "R4"]
    assert turned.attrs["rotation"] == "varimax"
    assert raw.attrs["rotation"] == "none"
    z, scores = (model.get_latent_representation(mc_samples=20, rotate=r) for r in (None, "varimax"))
    np.testing.assert_allclose(scores @ turned.T.to_numpy(), z @ raw.T.to_numpy(), rtol=1e-4, atol=1e-4)
    rotation = model.rotation("varimax")
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-6)
    drawn = [model.get_latent_representation(give_mean=False, n_samples=2, rotate=r, seed=3) for r in (None, "varimax")]
    np.testing.assert_allclose(drawn[1], drawn[0] @ rotation, rtol=1e-4, atol=1e-5)


def test_variances_of_rotated_factors_are_those_of_rotated_draws(fitted):
    model = fitted()
    mean, variance = model.get_latent_representation(return_dist=True, rotate="varimax")
    draws = model.get_latent_representation(give_mean=False, n_samples=4000, rotate="varimax")
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.15)


def test_shares_sum_to_one_and_are_the_variance_of_the_linear_predictor(fitted):
    model = fitted()
    for rotate in (None, "varimax"):
        table = model.get_factor_shares(rotate=rotate)
        assert table["share"].sum() == pytest.approx(1)
        assert table["share"].is_monotonic_decreasing
    z, w = model.get_latent_representation().astype(float), model.get_loadings().to_numpy()
    rho = model.mean_expression() / model.mean_expression().sum()
    w = w - rho @ w
    total = ((z @ w.T).var(0, ddof=1) * rho).sum()
    unordered = model.get_factor_shares(order=None)
    for d in range(4):
        rest = [e for e in range(4) if e != d]
        without = ((z[:, rest] @ w[:, rest].T).var(0, ddof=1) * rho).sum()
        assert unordered["drop_one"][d] == pytest.approx(1 - without / total, rel=1e-5)
    assert unordered["z_variance"].to_numpy() == pytest.approx(z.var(0, ddof=1), rel=1e-5)


def test_the_simplex_has_one_direction_less(fitted):
    model = fitted(latent_distribution="ln")
    scores = pd.DataFrame(model.get_latent_representation(mc_samples=200), columns=model.factor_names)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    values = lc.spectrum(scores)
    assert values.sum() == pytest.approx(1)
    assert values[-1] < 1e-3
    assert values[-2] > 0.02
    assert model.get_factor_shares()["share"].sum() == pytest.approx(1)


def test_archetypes_are_the_expression_of_the_corners(fitted):
    model = fitted(latent_distribution="ln")
    found = model.get_archetypes()
    np.testing.assert_allclose(found.sum(), 1)
    with torch.no_grad():
        weight, bias = model.module.folded()
        corner = weight[:, 2] + weight[:, 4:].mean(1) + bias
    np.testing.assert_allclose(found.iloc[:, 2], torch.softmax(corner, 0), rtol=1e-4)
    with pytest.raises(SettingError, match="latent_distribution='ln'"):
        fitted().get_archetypes()


# --- options ----------------------------------------------------------------------------------------------------


def test_nonnegative_loadings_are_not_negative(fitted):
    model = fitted(nonnegative=True)
    assert (model.get_loadings() >= 0).all(axis=None)
    assert (fitted().get_loadings() < 0).any(axis=None)


def test_l1_makes_loadings_zero_and_settles_the_rotation():
    """Planted programs, five in six of whose weights are zero, are found without rotating afterwards."""
    adata = lc.simulate_counts(800, 150, n_programs=3, seed=11)
    found, zero = {}, {}
    for weight in (0.0, 30.0):
        model = LDVAE(adata, batch_key="batch", n_latent=3, n_hidden=32, l1=weight)
        model.train(40, num_threads=1, progress=False)
        loadings = model.get_loadings(center=True)
        zero[weight] = (model.get_loadings() == 0).to_numpy().mean()
        found[weight] = np.abs(matched(pd.DataFrame(adata.varm["programs"]), loadings)[1]).min()
    assert zero[0.0] == 0
    assert zero[30.0] > 0.3
    assert found[0.0] < 0.8
    assert found[30.0] > 0.95


@pytest.mark.parametrize("options", [{"l1": 30.0}, {"nonnegative": True}, {"latent_distribution": "ln"}], ids=str)
def test_what_settles_the_rotation_is_shown_as_it_is(fitted, simulated, options):
    """Zeros, signs and the simplex survive in what is written."""
    model = fitted(**options)
    assert model.readable_rotation is None
    shown = model.readable_loadings()
    assert list(shown.columns) == model.factor_names
    if "latent_distribution" not in options:
        pd.testing.assert_frame_equal(shown, model.get_loadings())
    model.write(simulated)
    np.testing.assert_array_equal(simulated.obsm["X_ldvae"], model.get_latent_representation())
    assert fitted().readable_rotation == "varimax"


def test_the_penalty_is_on_the_loadings_of_the_step():
    """Batch-norm takes the scale of W out again, so the penalty must not shrink W: its gradient is orthogonal to W."""
    one = module(l1=1.0).train()
    z, design = torch.randn(17, 3, dtype=torch.float64), torch.randn(17, 3, dtype=torch.float64)
    logits = one.logits(z, design)
    (penalty,) = one.penalties(logits).values()
    assert penalty.item() == pytest.approx(logits.weight[:, :3].abs().mean(0).sum().item())
    (gradient,) = torch.autograd.grad(penalty, one.weight)
    along = (gradient * one.weight).sum(1).abs()
    assert (along / (gradient.norm(dim=1) * one.weight.norm(dim=1))).max() < 1e-3


def test_a_bias_only_where_batch_norm_has_none(fitted):
    assert fitted(use_batch_norm=False).get_intercept().abs().max() > 0
    bare = fitted(use_batch_norm=False, decoder_bias=False)
    assert (bare.get_intercept() == 0).all()
    paper = LDVAE(lc.simulate_counts(20, 12, seed=0), reproduce="paper", use_batch_norm=False)
    assert not paper.config.decoder_bias
    assert not paper.config.use_observed_lib_size


def test_new_batches_leave_the_normalisation_of_the_reference_alone(fitted, simulated):
    model = fitted()
    simulated.obs["batch"] = "new"
    query = model.map_query(simulated, max_epochs=2)
    pd.testing.assert_frame_equal(query.get_loadings(), model.get_loadings())
    pd.testing.assert_series_equal(query.get_intercept(), model.get_intercept())
    effects = query.get_batch_effects()
    pd.testing.assert_frame_equal(effects.iloc[:, :2], model.get_batch_effects())
    assert (effects["new"] != effects.iloc[:, :2].mean(axis=1)).any()


def test_the_dropout_head_of_a_new_batch_is_trained(fitted, simulated):
    model = fitted(gene_likelihood="zinb")
    simulated.obs["batch"] = "new"
    query = model.map_query(simulated, max_epochs=3)
    old, new = model.module.dropout_logit.weight, query.module.dropout_logit.weight
    assert torch.equal(new[:, :-1], old)
    assert not torch.allclose(new[:, -1], old[:, -2:].mean(1), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_distribution": "ln", "n_latent": 1}, "use at least 2"),
        ({"use_batch_norm": "both"}, "use_batch_norm is 'both'"),
        ({"decoder_bias": True}, "no effect under batch-norm"),
        ({"l1": -1}, "l1 is -1"),
        ({"nonnegative": 1}, "nonnegative is 1"),
        ({"reproduce": "reference"}, "reproduce is 'reference'"),
        ({"size_factor_key": "size", "use_observed_lib_size": False}, "takes the place of the library"),
        ({"dispersion": "gene-label"}, "needs labels"),
    ],
)
def test_arguments_without_meaning(simulated, arguments, message):
    with pytest.raises(SettingError, match=message):
        LDVAE(simulated, **arguments)


def test_rotations_that_there_are_not(fitted, trained, simulated):
    with pytest.raises(SettingError, match="must be 'varimax'"):
        fitted().get_loadings(rotate="oblimin")
    with pytest.raises(SettingError, match="before the softmax"):
        fitted(latent_distribution="ln").get_latent_representation(return_dist=True, rotate="varimax")
    with pytest.raises(SettingError, match="needs a linear decoder"):
        trained().get_latent_representation(rotate="varimax")
    with pytest.raises(NotTrainedError):
        LDVAE(simulated).get_intercept()


# --- against scvi-tools -----------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [True, False])
def test_decoder_and_loadings_are_those_of_linear_scvi(simulated, norm):
    """Their weights in our module: same expression in training and in evaluation, same gradient, same loadings."""
    scvi = pytest.importorskip("scvi", reason="needs the oracle group")
    scvi.settings.seed = 0
    data = simulated.copy()
    scvi.model.LinearSCVI.setup_anndata(data, batch_key="batch")
    theirs = scvi.model.LinearSCVI(data, n_latent=4, n_hidden=16, use_batch_norm=norm)
    theirs.train(3, accelerator="cpu", enable_progress_bar=False, logger=False)
    ours = LDVAE(simulated, batch_key="batch", n_latent=4, n_hidden=16, reproduce="paper", use_batch_norm=norm)
    layer = theirs.module.decoder.factor_regressor.fc_layers[0]
    with torch.no_grad():
        ours.module.weight.copy_(layer[0].weight / WEIGHT_PACE)
        if norm:
            ours.module.gamma.copy_(layer[1].weight / GAMMA_PACE)
            ours.module.beta.copy_(layer[1].bias)
            ours.module.running_mean.copy_(layer[1].running_mean)
            ours.module.running_variance.copy_(layer[1].running_var)
    z = torch.randn(len(simulated), 4)
    codes = torch.from_numpy(ours.cells.batch)
    design, library = torch.nn.functional.one_hot(codes, 2).float(), torch.ones(len(z), 1)
    ours.training_facts = {"epochs": 3}  # as if it had been trained
    np.testing.assert_allclose(ours.get_loadings(), theirs.get_loadings(), rtol=1e-4, atol=1e-6)
    for mode in (False, True):  # training moves the running moments, at another pace
        ours.module.train(mode)
        theirs.module.train(mode)
        scale = theirs.module.decoder("gene", z, library, codes[:, None])[0]
        rho = ours.module.decode(z, design).exp()
        torch.testing.assert_close(rho, scale, rtol=1e-4, atol=1e-7)
    target = torch.rand_like(scale)
    (gradient,) = torch.autograd.grad((rho * target).sum(), ours.module.weight)
    (expected,) = torch.autograd.grad((scale * target).sum(), layer[0].weight)
    torch.testing.assert_close(gradient / WEIGHT_PACE, expected, rtol=1e-3, atol=1e-6)


def test_a_model_without_loadings_is_saved_and_reported(simulated_once, tmp_path):
    """A penalty that leaves nothing: no share to show, and still a folder and a page."""
    model = LDVAE(simulated_once, n_latent=3, n_hidden=8, l1=1e6)
    model.train(2, batch_size=64, num_threads=1, progress=False)
    model.module.weight.data.zero_()
    model.save(tmp_path / "run")
    assert lc.report(tmp_path / "run").is_file()
