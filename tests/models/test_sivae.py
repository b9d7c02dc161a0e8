"""siVAE: its three phases, its objective against torch.distributions, what its gene encoder sees, its read-outs."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor
from torch.distributions import NegativeBinomial, Normal, kl_divergence

import lucidcell as lc
from lucidcell.cells.batch import Batch
from lucidcell.errors import SettingError
from lucidcell.maths.networks import Stack
from lucidcell.models.sivae import L2_OF_GENES, SIVAE, SIVAEModule
from lucidcell.models.vae import L2_OF_OUTPUT
from lucidcell.training.phases import Loss

SMALL = {"n_latent": 3, "n_hidden": (16, 12, 8), "n_feature_inputs": 20, "batch_key": "batch"}
TRAIN = {"batch_size": 32, "num_threads": 1, "progress": False}
VARIANTS = [
    {},
    {"gamma": 2.0, "feature_kl_weight": "elbo"},
    {"gene_likelihood": "nb", "gamma": 0.5, "feature_kl_weight": 3.0},
    {"linear_decoder": True},
    {"gamma": 0.0, "pretrain": False},
]


@pytest.fixture(scope="module")
def fitted(simulated_once: ad.AnnData):
    """`fitted(**arguments)`: a siVAE of the simulated cells, trained a little; made once."""
    made: dict[str, SIVAE] = {}

    def get(**arguments: Any) -> SIVAE:
        name = repr(sorted(arguments.items()))
        if name not in made:
            made[name] = SIVAE(simulated_once, **(SMALL | arguments))
            made[name].train(4, **TRAIN)
            randomise(made[name].module.j)
        return made[name]

    return get


def randomise(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is the mean of its posterior."""
    monkeypatch.setattr(SIVAEModule, "sample_z", lambda self, posterior: posterior.mu)


def one_batch(model: SIVAE) -> Batch:
    return next(iter(model.batches(model.cells_of(None), 40)))


def mlp(network: Stack, x: Tensor) -> Tensor:
    """Linear layers with ReLU between them, the last without."""
    layers = list(network.layers)
    for i, layer in enumerate(layers):
        x = x @ layer.weight.t() + layer.bias
        x = torch.relu(x) if i < len(layers) - 1 else x
    return x


def literal(model: SIVAE, batch: Batch) -> dict[str, Tensor]:
    """The terms of the paper's objective at the posterior means, per batch of cells, by torch.distributions."""
    module, config = model.module, model.config
    posterior, genes = module.encode(batch), module.encode_genes()
    z, v, s = posterior.mu, genes.mu, module.design(batch)
    linear_part = z @ v.t() + s @ module.j.t() + module.bias
    if config.linear_decoder:
        logits, hidden = linear_part, torch.cat([z, s], 1)
    else:
        hidden = mlp(module.decoder, torch.cat([z, s], 1))
        logits = hidden @ mlp(module.gene_decoder, v).t() + module.bias
    counts = batch.counts.dense()
    if config.gene_likelihood == "nb":
        theta = module.log_theta.exp()

        def log_probability(a: Tensor) -> Tensor:
            mean = batch.library[:, None] * torch.softmax(a, 1)
            return NegativeBinomial(theta, logits=mean.log() - theta.log()).log_prob(counts).sum()

        reconstruction, misfit = -log_probability(logits), -log_probability(linear_part)
    else:
        x = torch.log1p(1e4 * counts / batch.library[:, None])
        x = (x - module.gene_mean) / module.gene_scale
        sd = torch.nn.functional.softplus(module.spread(hidden)) + 1e-5
        reconstruction = -Normal(logits, sd).log_prob(x).sum()
        constant = x.numel() * 0.5 * np.log(2 * np.pi)
        misfit = -Normal(linear_part, 1.0).log_prob(x).sum() - constant
    standard = Normal(0.0, 1.0)
    return {
        "reconstruction": reconstruction,
        "kl": kl_divergence(Normal(posterior.mu, posterior.sigma), standard).sum(),
        "gene_kl": kl_divergence(Normal(genes.mu, genes.sigma), standard).sum(1).mean(),
        "interpretability": torch.zeros(()) if config.linear_decoder else config.gamma * misfit / len(counts),
    }


# --- the objective ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_joint_objective_equals_torch_distributions(fitted, variant: dict[str, Any]) -> None:
    model = fitted(**variant)
    module, batch = model.module, one_batch(model)
    with torch.no_grad():
        wanted, loss = literal(model, batch), module.joint_loss(batch, 1.0)
    n_train = len(model.train_indices)
    weight = {"mean": 1.0, "elbo": 50 / n_train}.get(model.config.feature_kl_weight, model.config.feature_kl_weight)
    assert float(loss.cells) == pytest.approx(float(wanted["kl"] + wanted["reconstruction"]), rel=1e-4)
    assert float(loss.dataset["gene_kl"]) == pytest.approx(weight * float(wanted["gene_kl"]), rel=1e-4)
    assert float(loss.dataset.get("interpretability", 0.0)) == pytest.approx(
        float(wanted["interpretability"]), rel=1e-4
    )


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("pretrain", [True, False])
def test_the_kl_has_weight_one_in_the_joint_phase(fitted, pretrain: bool) -> None:
    model = fitted(pretrain=pretrain)
    module, batch = model.module, one_batch(model)
    with torch.no_grad():
        wanted = literal(model, batch)
        losses = {progress: module.joint_loss(batch, progress) for progress in (0.0, 0.3, 0.65, 1.0)}
    for progress, loss in losses.items():
        weight = 1.0 if pretrain else min(1.0, progress / model.config.kl_warmup)  # the public code's stays 0
        assert float(loss.cells - wanted["reconstruction"]) == pytest.approx(
            weight * float(wanted["kl"]), rel=1e-3, abs=0.05
        )
        assert float(loss.dataset["gene_kl"]) == pytest.approx(weight * float(wanted["gene_kl"]), rel=1e-4)


@pytest.mark.usefixtures("without_noise")
def test_gene_mini_batches_are_unbiased(fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(gene_batch_size=10)
    module, batch = model.module, one_batch(model)
    parts = torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(10)

    def total(loss: Loss) -> float:
        return float(loss.cells / batch.n_cells + sum(loss.dataset.values()))

    with torch.no_grad():
        whole = total(module.joint_loss(batch, 1.0))
        found = []
        for genes in parts:
            monkeypatch.setattr(module, "some_genes", lambda genes=genes: genes)
            found.append(total(module.joint_loss(batch, 1.0)))
    assert np.ptp(found) > 0
    assert np.mean(found) == pytest.approx(whole, rel=1e-4)


def test_a_step_takes_as_many_genes_as_asked_for_and_others_the_next_time(fitted) -> None:
    module = fitted(gene_batch_size=10).module
    module.train()
    drawn = [module.some_genes() for _ in range(200)]
    module.eval()
    assert module.some_genes() is None  # held-out cells are scored on all genes
    assert all(len(set(genes.tolist())) == 10 for genes in drawn)
    visits = torch.bincount(torch.cat(drawn), minlength=50).numpy()
    assert np.abs(visits - 40).max() < 5 * np.sqrt(200 * 0.2 * 0.8)


@pytest.mark.usefixtures("without_noise")
@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
def test_penalties_are_half_the_squares_of_weights(fitted, likelihood: str) -> None:
    model = fitted(gene_likelihood=likelihood)
    module, l2 = model.module, model.config.l2
    with torch.no_grad():
        dataset = module.joint_loss(one_batch(model), 1.0).dataset
        output = mlp(module.gene_decoder, module.encode_genes().mu)

    def squares(*weights: Tensor) -> float:
        return sum(float(w.detach().double().square().sum()) for w in weights) / 2

    cells = squares(module.first.gene_weight, *(s.weight for n in (module.encoder, module.decoder) for s in n.layers))
    genes = squares(*(s.weight for n in (module.gene_encoder, module.gene_decoder) for s in n.layers))
    assert float(dataset["gene_l2"]) == pytest.approx(L2_OF_GENES * l2 * genes, rel=1e-4)
    assert float(dataset["l2"]) == pytest.approx(l2 * (cells + L2_OF_OUTPUT * squares(output)), rel=1e-4)


# --- the phases -------------------------------------------------------------------------------------------------


def test_genes_learn_the_weights_that_the_cells_have_learnt(
    simulated_once: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_cells: list[Tensor] = []
    targets: list[Tensor] = []
    loss, gene_loss = SIVAEModule.loss, SIVAEModule.gene_loss

    def spy(self: SIVAEModule, batch: Batch, progress: float) -> Loss:
        if self.training:
            of_cells.append(self.weight.detach().clone())
        return loss(self, batch, progress)

    def spy_genes(self: SIVAEModule, genes: Tensor, progress: float) -> Loss:
        targets.append(self.weight.detach().clone())
        return gene_loss(self, genes, progress)

    monkeypatch.setattr(SIVAEModule, "loss", spy)
    monkeypatch.setattr(SIVAEModule, "gene_loss", spy_genes)
    model = SIVAE(simulated_once, **SMALL)
    model.train(40, early_stopping=False, train_size=1.0, **TRAIN)
    assert list(model.history["phase"].unique()) == ["cells", "genes", "joint"]
    assert len(targets) > 10
    assert all(torch.equal(one, targets[0]) for one in targets)  # they stay while the genes learn them
    moved, last_step = (float((targets[0] - of_cells[at]).abs().max()) for at in (0, -1))
    assert last_step < 0.1 * moved  # they are where the cells ended: one step on from the last one seen


@pytest.mark.parametrize("phase", ["cells", "genes"])
def test_an_interrupt_before_the_joint_phase_keeps_what_the_cells_have_learnt(
    simulated_once: ad.AnnData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    seen: list[int] = []
    name = {"cells": "loss", "genes": "gene_loss"}[phase]
    loss = getattr(SIVAEModule, name)

    def interrupt(self: SIVAEModule, *arguments: Any) -> Loss:
        seen.append(1)
        if len(seen) == 60:
            raise KeyboardInterrupt
        return loss(self, *arguments)

    monkeypatch.setattr(SIVAEModule, name, interrupt)
    model = SIVAE(simulated_once, **SMALL)
    model.train(200, early_stopping=False, **TRAIN)
    assert model.training_facts["stopped"] == "interrupted"
    assert "what is said of genes is not learnt" in caplog.text
    batch = one_batch(model)
    with torch.no_grad():
        of_gene_decoder = model.module.output_weight(model.module.encode_genes().mu)
        assert (model.module.weight - of_gene_decoder).abs().max() > 0.01
        assert torch.isfinite(model.module.decode(model.module.encode(batch).mu, model.module.design(batch))).all()


@pytest.mark.usefixtures("without_noise")
def test_the_loss_of_genes_is_their_negative_elbo(fitted) -> None:
    module = fitted().module
    genes = torch.tensor([3, 7, 11, 40])
    randomise(module.weight)
    with torch.no_grad():
        loss, posterior = module.gene_loss(genes, 1.0), module.encode_genes(genes)
        w = mlp(module.gene_decoder, posterior.mu)
        sd = torch.nn.functional.softplus(module.gene_spread(w)) + 1e-5
        wanted = -Normal(w, sd).log_prob(module.weight[genes]).sum()
        kl = kl_divergence(Normal(posterior.mu, posterior.sigma), Normal(0.0, 1.0)).sum()
    module.settle()
    assert float(loss.cells) == pytest.approx(float(wanted + kl), rel=1e-4)


def test_the_weights_of_phase_one_have_no_gradient_in_the_other_phases(fitted) -> None:
    model = fitted()
    module, (_, genes, joint) = model.module, model.module.phases()
    assert all(one is not module.weight for one in (*genes.parameters, *joint.parameters))
    module.zero_grad()
    module.gene_loss(torch.arange(5), 1.0).objective.backward()
    module.joint_loss(one_batch(model), 1.0).objective.backward()
    assert module.weight.grad is None


def test_after_training_the_decoder_is_that_of_the_mean_loadings(fitted) -> None:
    for variant in ({}, {"linear_decoder": True}):
        module = fitted(**variant).module
        module.settle()
        with torch.no_grad():
            wanted = module.output_weight(module.encode_genes().mu)
        assert torch.equal(module.weight.detach(), wanted)


def test_a_linear_decoder_is_the_product_of_loadings_and_scores(fitted) -> None:
    model = fitted(linear_decoder=True)
    module, batch = model.module, one_batch(model)
    module.settle()
    z, v = model.get_latent_representation()[:40], model.get_loadings().to_numpy()
    with torch.no_grad():
        found = module.decode(torch.from_numpy(z), module.design(batch)).numpy()
        effects = (module.design(batch) @ module.j.t() + module.bias).numpy()
    np.testing.assert_allclose(found, z @ v.T + effects, atol=1e-4)


# --- what the gene encoder sees ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pca", "sample", "all"])
def test_held_out_cells_never_enter_the_inputs_of_genes(simulated_once: ad.AnnData, kind: str) -> None:
    arguments = SMALL | {"feature_input": kind, "n_feature_inputs": None if kind == "all" else 20}
    model = SIVAE(simulated_once, **arguments)
    model.train(1, **TRAIN)
    changed = simulated_once.copy()
    counts = changed.X.toarray()
    counts[model.validation_indices] = np.random.default_rng(0).poisson(20, (len(model.validation_indices), 50))
    changed.X = counts
    other = SIVAE(changed, **arguments)
    other.train(1, **TRAIN)
    assert np.array_equal(other.validation_indices, model.validation_indices)
    for name in ("gene_inputs", "gene_mean", "gene_scale"):
        assert torch.equal(getattr(model.module, name), getattr(other.module, name)), name
    counts[model.train_indices[0]] += 5
    changed.X = counts
    another = SIVAE(changed, **arguments)
    another.train(1, **TRAIN)
    assert not torch.equal(model.module.gene_mean, another.module.gene_mean)


def test_principal_components_of_genes_equal_scikit_learn(simulated_once: ad.AnnData) -> None:
    from sklearn.decomposition import PCA

    model = SIVAE(simulated_once, **SMALL)
    model.train(1, **TRAIN)
    cells = model.cells_of(None, model.train_indices)
    with torch.no_grad():
        x = model.module.target(cells.take(np.arange(len(cells)))).double().numpy()
    wanted = PCA(20, svd_solver="full").fit_transform(x.T) * np.sqrt(20 / len(cells))
    found = model.module.gene_inputs.numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=2e-3 * np.abs(wanted).max())


# --- read-outs --------------------------------------------------------------------------------------------------


def test_loadings_are_the_means_of_the_gene_embedding_layer_by_layer(fitted) -> None:
    model = fitted()
    module = model.module
    with torch.no_grad():
        v = module.encode_genes().mu
        np.testing.assert_allclose(model.get_loadings(), v, atol=1e-6)
        np.testing.assert_allclose(model.get_loadings(layer=4), mlp(module.gene_decoder, v), atol=1e-5)
    assert model.get_loadings(layer=2).shape == (50, 8)
    assert (model.get_loadings(layer=3) >= 0).all().all()
    with pytest.raises(SettingError, match="layers 1 to 4"):
        model.get_loadings(layer=5)
    with pytest.raises(SettingError, match="linear decoder"):
        model.get_loadings(rotate="varimax")


def test_degree_centrality_is_the_variance_that_the_model_explains(fitted) -> None:
    model = fitted()
    cells = model.cells_of(None)
    batch = cells.take(np.arange(len(cells)))
    with torch.no_grad():
        x = model.module.target(batch).numpy()
        rebuilt = model.module.decode(model.module.encode(batch).mu, model.module.design(batch)).numpy()
    np.testing.assert_allclose(model.get_degree_centrality(), r2_score(x, rebuilt, multioutput="raw_values"), atol=1e-4)
    np.testing.assert_allclose(model.get_degree_centrality(how="mse"), -((x - rebuilt) ** 2).mean(0), atol=1e-4)
    np.testing.assert_allclose(
        model.get_degree_centrality(how="distance"), np.linalg.norm(model.get_loadings(), axis=1), rtol=1e-4
    )
    with pytest.raises(SettingError, match="explained, mse, distance"):
        model.get_degree_centrality(how="pagerank")


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
def test_samples_have_the_moments_of_the_model(fitted, likelihood: str) -> None:
    model = fitted(gene_likelihood=likelihood)
    first = model.sample(seed=0)
    assert first.shape == (120, 50)
    assert first.equals(model.sample(seed=0))
    assert not first.equals(model.sample(seed=1))
    many = np.mean([model.sample(seed=seed).to_numpy() for seed in range(200)], axis=0)
    cells = model.cells_of(None)
    batch = cells.take(np.arange(len(cells)))
    module = model.module
    draws = []
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        posterior, design = module.encode(batch), module.design(batch)
        for _ in range(200):
            z = posterior.mu + posterior.sigma * torch.randn_like(posterior.mu)
            mean = module.decode(z, design)
            draws.append(batch.library[:, None] * mean.exp() if likelihood == "nb" else mean)
    expected = torch.stack(draws).mean(0).numpy()
    spread = first.to_numpy().std() / np.sqrt(200)
    assert np.abs(many - expected).mean() < 2 * spread


def test_gamma_pulls_expression_towards_the_product_of_loadings_and_scores() -> None:
    adata = lc.simulate_hubs(400, n_communities=2, community_size=10, n_isolated=5, seed=0)
    fits = []
    for gamma in (0.0, 5.0):
        model = SIVAE(adata, n_latent=2, n_hidden=(32, 16), input="values", gamma=gamma)
        model.train(30, learning_rate=5e-3, early_stopping=False, **TRAIN)
        x = (adata.X - adata.X.mean(0)) / adata.X.std(0)
        product = model.get_latent_representation() @ model.get_loadings().to_numpy().T
        fits.append(((x - product) ** 2).mean())
    assert fits[1] < fits[0] - 0.02


def test_more_genes_than_fit_at_once_train_in_parts(simulated_once: ad.AnnData) -> None:
    with pytest.raises(SettingError, match="softmax of gene_likelihood='nb' needs all genes"):
        SIVAE(simulated_once, gene_likelihood="nb", gene_batch_size=10)
