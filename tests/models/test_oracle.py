"""SCVI against scvi-tools 1.4.2: the same weights and the same noise give the same loss, gradients and factors.

Weights travel the way a user's would: trained and saved by scvi-tools, read by `SCVI.from_scvi_tools`. Names of tensors
differ, the genes' weight is transposed, and the columns of covariates stand in another order; `gradients_by_our_names`
says how.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from lucidcell.maths.likelihoods import nb_log_prob, poisson_log_prob, zinb_log_prob
from lucidcell.models.scvi import SCVI

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

N_CELLS = 120


@pytest.fixture(scope="module")
def scvi() -> Any:
    module = pytest.importorskip("scvi", reason="needs the oracle group")
    module.settings.verbosity = 40
    module.settings.seed = 0
    return module


@pytest.fixture
def theirs(scvi: Any, simulated: ad.AnnData, tmp_path: Path) -> Callable[..., tuple[Any, SCVI, ad.AnnData]]:
    """Train with scvi-tools, save, and read; returns their model, ours, and the data."""

    def make(setup: dict[str, Any] | None = None, epochs: int = 3, **arguments: Any) -> tuple[Any, SCVI, ad.AnnData]:
        simulated.obs["dose"] = np.log(simulated.obs["size"])
        data = simulated.copy()
        scvi.model.SCVI.setup_anndata(data, **({"batch_key": "batch"} | (setup or {})))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = scvi.model.SCVI(data, **({"n_hidden": 16, "n_latent": 4} | arguments))
            model.train(max_epochs=epochs, batch_size=32, accelerator="cpu", enable_progress_bar=False, logger=False)
        model.save(str(tmp_path / "scvi"), overwrite=True)
        return model, SCVI.from_scvi_tools(tmp_path / "scvi", simulated), data

    return make


COVARIATES = {"categorical_covariate_keys": ["sex", "cell_type"], "continuous_covariate_keys": ["age", "dose"]}
STRUCTURES = [
    ({}, {}),
    ({}, {"gene_likelihood": "nb", "n_layers": 2}),
    ({}, {"gene_likelihood": "poisson"}),
    ({}, {"dispersion": "gene-batch"}),
    ({"labels_key": "cell_type"}, {"dispersion": "gene-label"}),
    ({}, {"use_observed_lib_size": False, "n_layers": 2}),
    ({"batch_key": None}, {}),
    (COVARIATES, {"n_layers": 2}),
    (COVARIATES, {"n_layers": 2, "encode_covariates": True, "gene_likelihood": "nb"}),
    (COVARIATES | {"batch_key": None}, {"encode_covariates": True, "use_observed_lib_size": False}),
]


@pytest.mark.parametrize(("setup", "arguments"), STRUCTURES, ids=str)
def test_the_factors_of_a_read_model_are_theirs(theirs, setup, arguments):
    model, ours, _ = theirs(setup, **arguments)
    mean, variance = model.get_latent_representation(return_dist=True)
    found = ours.get_latent_representation(return_dist=True)
    assert np.abs(found[0] - mean).max() < 1e-5
    assert np.abs(found[1] - variance).max() < 1e-5


@pytest.mark.parametrize(("setup", "arguments"), STRUCTURES, ids=str)
def test_the_expression_of_a_read_model_is_theirs(theirs, setup, arguments):
    """Decoded from the very same z, since their read-out samples it."""
    model, ours, data = theirs(setup, **arguments)
    tensors = next(iter(model._make_data_loader(data, batch_size=N_CELLS)))
    with torch.no_grad():
        inference = model.module.inference(**model.module._get_inference_input(tensors))
        inference["z"] = inference["qz"].loc
        generative = model.module.generative(**model.module._get_generative_input(tensors, inference))
    batch = ours.cells.take(np.arange(N_CELLS))
    with torch.no_grad():
        z = ours.module.encode(batch).mu
        rho = ours.module.decode(z, ours.module.design(batch)).exp()
    scale = generative["px"].scale
    torch.testing.assert_close(rho, scale, rtol=1e-4, atol=1e-7)
    if ours.config.gene_likelihood != "poisson":
        theta = ours.get_likelihood_parameters()["theta"]
        wanted = generative["px"].theta.detach().expand(N_CELLS, -1)
        np.testing.assert_allclose(theta, wanted, rtol=1e-4)


def test_a_logistic_normal_model_has_their_posterior(theirs):
    model, ours, _ = theirs(latent_distribution="ln")
    mean, _ = model.get_latent_representation(return_dist=True)
    assert np.abs(ours.get_latent_representation(return_dist=True)[0] - mean).max() < 1e-5
    averages = model.get_latent_representation(mc_samples=2000)
    assert np.abs(ours.get_latent_representation(mc_samples=2000) - averages).max() < 0.05


def gradients_by_our_names(theirs: torch.nn.Module, n_genes: int, n_layers: int) -> dict[str, torch.Tensor]:
    """Gradients of their module under our names; one batch key, no other covariates, so the columns agree."""
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found: dict[str, torch.Tensor] = {}

    def take(ours: str, their_name: str) -> None:
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = grads[f"{their_name}.{part}"]

    first = grads["z_encoder.encoder.fc_layers.Layer 0.0.weight"]
    found["encoder.first.gene_weight"] = first[:, :n_genes].t()
    found["encoder.first.covariate_weight"] = first[:, n_genes:]
    found["encoder.first.bias"] = grads["z_encoder.encoder.fc_layers.Layer 0.0.bias"]
    take("encoder.first.norm", "z_encoder.encoder.fc_layers.Layer 0.1")
    for i in range(1, n_layers):
        take(f"encoder.rest.layers.{i - 1}.linear", f"z_encoder.encoder.fc_layers.Layer {i}.0")
        take(f"encoder.rest.layers.{i - 1}.norm", f"z_encoder.encoder.fc_layers.Layer {i}.1")
    for i in range(n_layers):
        take(f"decoder.layers.{i}.linear", f"decoder.px_decoder.fc_layers.Layer {i}.0")
        take(f"decoder.layers.{i}.norm", f"decoder.px_decoder.fc_layers.Layer {i}.1")
    take("z_mean", "z_encoder.mean_encoder")
    take("z_variance", "z_encoder.var_encoder")
    take("rho", "decoder.px_scale_decoder.0")
    if "decoder.px_dropout_decoder.weight" in grads and grads["decoder.px_dropout_decoder.weight"].any():
        take("dropout_logit", "decoder.px_dropout_decoder")
    found["log_theta"] = grads["px_r"].t() if grads["px_r"].ndim == 2 else grads["px_r"][None]
    return found


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"n_layers": 2, "encode_covariates": True}, {"dispersion": "gene-batch"}],
    ids=["default", "two layers, encoded batch", "dispersion by batch"],
)
@pytest.mark.parametrize("kl_weight", [1.0, 0.4])
def test_loss_and_every_gradient_are_theirs(theirs, likelihood, arguments, kl_weight):
    """In training mode, with batch-norm over the batch and without dropout; the noise of z from one seed."""
    model, ours, data = theirs(gene_likelihood=likelihood, dropout_rate=0.0, **arguments)
    tensors = next(iter(model._make_data_loader(data, batch_size=N_CELLS)))
    module = model.module.train()
    module.zero_grad()
    torch.manual_seed(5)
    _, _, losses = module(tensors, loss_kwargs={"kl_weight": kl_weight})
    losses.loss.backward()

    batch = ours.cells.take(np.arange(N_CELLS))
    assert torch.equal(batch.counts.dense(), tensors["X"].to_dense() if tensors["X"].is_sparse else tensors["X"])
    ours.module.train()
    warm_up = ours.config.kl_warmup
    torch.manual_seed(5)
    loss = ours.module.loss(batch, progress=kl_weight * warm_up)
    loss.objective.backward()

    assert loss.objective.item() == pytest.approx(losses.loss.item(), rel=1e-4)
    wanted = gradients_by_our_names(module, 50, ours.config.n_layers)
    wanted = {name: gradient for name, gradient in wanted.items() if gradient.numel()}
    found = {name: p.grad for name, p in ours.module.named_parameters() if p.grad is not None and p.numel()}
    assert found.keys() == wanted.keys()
    largest = max(value.norm().item() for value in wanted.values())
    for name in wanted:
        difference = (found[name] - wanted[name]).norm().item()
        # a bias before batch-norm has no gradient at all; what either finds there is rounding
        assert difference <= max(1e-4 * wanted[name].norm().item(), 1e-6 * largest), name


def test_the_running_statistics_move_as_theirs_do(theirs):
    model, ours, data = theirs(dropout_rate=0.0)
    tensors = next(iter(model._make_data_loader(data, batch_size=N_CELLS)))
    module = model.module.train()
    for one in (module, ours.module.train()):
        torch.manual_seed(5)
        with torch.no_grad():
            one(tensors) if one is module else one.loss(ours.cells.take(np.arange(N_CELLS)), 1.0)
    norms = {
        "encoder.first.norm": module.z_encoder.encoder.fc_layers[0][1],
        "decoder.layers.0.norm": module.decoder.px_decoder.fc_layers[0][1],
    }
    for name, norm in norms.items():
        mine = ours.module.get_submodule(name)
        torch.testing.assert_close(mine.running_mean, norm.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.running_var, norm.running_var, rtol=1e-4, atol=1e-5)


def test_elbo_and_marginal_likelihood_are_theirs_on_average(theirs):
    model, ours, _ = theirs(gene_likelihood="nb", epochs=20)
    their_elbo = np.mean([float(model.get_elbo()) for _ in range(20)])
    assert ours.get_elbo(n_samples=20) == pytest.approx(-abs(their_elbo), rel=2e-3)
    their_marginal = float(model.get_marginal_ll(n_mc_samples=1000, batch_size=N_CELLS))
    assert ours.get_marginal_ll(n_mc_samples=1000) == pytest.approx(-abs(their_marginal), rel=5e-3)


def test_likelihoods_are_those_of_scvi_distributions(scvi):
    from scvi.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

    rng = np.random.default_rng(0)
    mu, theta = (torch.from_numpy(rng.lognormal(m, 1, 3000)) for m in (1, 0.5))
    logit = torch.from_numpy(rng.normal(size=3000))
    x = torch.poisson(mu, generator=torch.Generator().manual_seed(0))
    # they add 1e-8 inside logarithms
    theirs = NegativeBinomial(mu=mu, theta=theta).log_prob(x).squeeze()
    torch.testing.assert_close(nb_log_prob(x, mu, theta), theirs, rtol=1e-5, atol=1e-6)
    theirs = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logit).log_prob(x).squeeze()
    torch.testing.assert_close(zinb_log_prob(x, mu, theta, logit), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(poisson_log_prob(x, mu), Poisson(mu).log_prob(x), rtol=1e-5, atol=1e-6)


def test_their_size_factors_are_refused(theirs):
    from lucidcell.errors import FileError

    with pytest.raises(FileError, match="softplus in the place of the softmax"):
        theirs({"size_factor_key": "size"}, epochs=1)


def test_other_models_of_theirs_are_refused(scvi, simulated, tmp_path):
    from lucidcell.errors import FileError

    data = simulated.copy()
    scvi.model.LinearSCVI.setup_anndata(data, batch_key="batch")
    model = scvi.model.LinearSCVI(data, n_hidden=8, n_latent=2)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, logger=False)
    model.save(str(tmp_path / "linear"))
    with pytest.raises(FileError, match="holds a LinearSCVI model; only SCVI can be read"):
        SCVI.from_scvi_tools(tmp_path / "linear")
