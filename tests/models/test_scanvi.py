"""The bounds of scANVI against enumeration over types, and what its training may and may not see."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from battery import (
    TRAINING,
    Killed,
    assert_same_answers,
    assert_same_training,
    assert_same_weights,
    assert_sentence,
    checkpoint_every_step,
    killing,
    weights,
)
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal
from torch.distributions.kl import kl_divergence as kl

import lucidcell as lc
from lucidcell.cells.cells import Cells
from lucidcell.cells.simulate import simulate_counts
from lucidcell.cells.taxonomy import Taxonomy
from lucidcell.errors import DataError, NotTrainedError, SettingError
from lucidcell.maths.pairs import GivenLabel
from lucidcell.models.scanvi import SCANVIConfig, SCANVIModule
from lucidcell.models.scvi import Sizes
from lucidcell.training.checkpoint import Checkpoint
from lucidcell.training.settings import Settings

TREE = Taxonomy.from_parents({"a": "x", "b": "x", "c": None})
FLAT = Taxonomy.flat(("a", "b", "c"))
FLOOR = 1e-4


def toy(taxonomy: Taxonomy = FLAT, seed: int = 0, **changed: Any) -> SCANVIModule:
    """A module of 2 factors and 8 genes in double precision, its weights large enough to matter."""
    torch.manual_seed(seed)
    config = SCANVIConfig(**({"n_latent": 2, "n_hidden": 5, "label_hidden": 6, "classifier_hidden": 7} | changed))
    module = SCANVIModule(config, Sizes(8, 1, len(taxonomy.names), 0), taxonomy).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module


class Enumeration:
    """All that depends on the type, one cell and one type after the other, with one-hot inputs and no shortcut."""

    def __init__(self, module: SCANVIModule, taxonomy: Taxonomy, z: Tensor, noise: Tensor) -> None:
        self.module, self.taxonomy, self.z = module, taxonomy, z
        self.noise = iter(noise)  # of u, in the order of cells and types

    def q_leaves(self, z: Tensor) -> Tensor:
        """q(c | z), (C,): proportional to exp of the sum of logits on the way down to each leaf."""
        logits = self.module.classifier(z[None])[0]
        found = []
        for leaf in self.taxonomy.leaves:
            total, node = torch.zeros((), dtype=z.dtype), int(leaf)
            while node != -1:
                total, node = total + logits[node], self.taxonomy.parents[node]
            found.append(total.exp())
        return torch.stack(found) / torch.stack(found).sum()

    def network(self, network: GivenLabel, x: Tensor, leaf: int) -> Independent:
        one_hot = torch.eye(len(self.taxonomy.leaves), dtype=x.dtype)[leaf]
        weight = torch.cat([network.x.weight, network.label.t()], dim=1)
        hidden = torch.relu(weight @ torch.cat([x, one_hot]) + network.x.bias)
        return Independent(Normal(network.mean(hidden), (network.log_variance(hidden).exp() + FLOOR).sqrt()), 1)

    def terms(self, cell: int, label: int) -> Tensor:
        """Sum over the leaves under the label (all for -1) of q~ [log p(c) - log q~ + log p(z | u, c) - KL_u]."""
        z, n_leaves = self.z[cell], len(self.taxonomy.leaves)
        allowed = [c for c, leaf in enumerate(self.taxonomy.leaves) if label == -1 or self.is_under(int(leaf), label)]
        q = self.q_leaves(z)[allowed]
        total = torch.zeros((), dtype=z.dtype)
        for share, leaf in zip(q / q.sum(), allowed, strict=True):
            q_u = self.network(self.module.q_u, z, leaf)
            u = q_u.base_dist.loc + q_u.base_dist.scale * next(self.noise)
            prior = Independent(Normal(torch.zeros_like(u), torch.ones_like(u)), 1)
            log_p_c = Categorical(torch.ones(n_leaves, dtype=z.dtype)).log_prob(torch.tensor(leaf))
            log_p_z = self.network(self.module.p_z, u, leaf).log_prob(z)
            total = total + share * (log_p_c - share.log() + log_p_z - kl(q_u, prior))
        return total

    def is_under(self, leaf: int, node: int) -> bool:
        while leaf not in (-1, node):
            leaf = self.taxonomy.parents[leaf]
        return leaf == node


def label_terms(module: SCANVIModule, z: Tensor, log_q_z: Tensor, label: Tensor) -> Tensor:
    torch.manual_seed(5)
    return module.label_terms(z, log_q_z, label).total


@pytest.mark.parametrize(
    ("taxonomy", "label"),
    [pytest.param(tree, label, id=f"{name} {label}") for name, tree in (("flat", FLAT), ("tree", TREE))
     for label in range(-1, len(tree.names))],
)  # fmt: skip
def test_the_bounds_equal_enumeration(taxonomy: Taxonomy, label: int) -> None:
    """L for a leaf, U for no label, and the bound between them for an inner node."""
    module = toy(taxonomy)
    z, posterior = torch.randn(4, 2).double(), Independent(Normal(torch.zeros(4, 2), 0.7 * torch.ones(4, 2)), 1)
    log_q_z = posterior.log_prob(z)
    n_allowed = 3 if label == -1 else int(taxonomy.holds[label].sum())
    torch.manual_seed(5)
    oracle = Enumeration(module, taxonomy, z, torch.randn(4 * n_allowed, 2, dtype=z.dtype))
    wanted = torch.stack([log_q_z[i] - oracle.terms(i, label) for i in range(4)])
    constant = 0.5 * z.shape[1] * math.log(2 * math.pi)  # left out of both densities of z
    found = label_terms(module, z, log_q_z + constant, torch.full((4,), label))
    np.testing.assert_allclose(found.detach(), wanted.detach(), rtol=1e-9, atol=1e-9)


def test_the_whole_loss_is_the_negative_bound(partly: ad.AnnData) -> None:
    """Reconstruction, density of z and the terms of the types, with the draws of the loss; mixed labels."""
    model = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=8, n_latent=2)
    module = model.module.eval()
    batch = model.cells.take(np.arange(45, 75))
    torch.manual_seed(3)
    loss = module.loss(batch, 1.0)
    torch.manual_seed(3)
    epsilon = torch.randn(30, 2)
    posterior = module.vae.encode(batch)
    z = posterior.mu + posterior.sigma * epsilon
    log_q_z = Independent(Normal(posterior.mu, posterior.sigma), 1).log_prob(z)
    n_pairs = int(torch.where(batch.label < 0, 3, 1).sum())
    oracle = Enumeration(module, model.taxonomy, z, torch.randn(n_pairs, 2))
    logits = module.vae.logits(z, module.vae.design(batch))
    wanted = module.vae.log_likelihood(batch, logits, batch.library.log()).per_cell - log_q_z
    wanted = wanted + torch.stack([oracle.terms(i, int(batch.label[i])) for i in range(30)])
    assert set(batch.label.tolist()) == {-1, 0, 1, 2}
    assert loss.cells.item() == pytest.approx(-wanted.sum().item(), rel=1e-5)
    assert sum(loss.terms.values()).item() == pytest.approx(loss.cells.item(), rel=1e-6)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_u_with_a_one_hot_classifier_is_l(label: int) -> None:
    module = toy()
    with torch.no_grad():
        module.classifier.logits.weight.zero_()
        module.classifier.logits.bias.copy_(torch.where(torch.arange(3) == label, 2000.0, -2000.0))
    z, log_q_z = torch.randn(5, 2).double(), torch.randn(5).double()
    noise = torch.randn(5, 3, 2).double()
    with patch.object(
        torch, "randn", lambda *shape, **kwargs: noise.view(15, 2) if shape[0] == 15 else noise[:, label]
    ):
        unlabelled = module.label_terms(z, log_q_z, torch.full((5,), -1)).total
        labelled = module.label_terms(z, log_q_z, torch.full((5,), label)).total
    # the same sum in double precision, from matrix products of other shapes
    torch.testing.assert_close(unlabelled, labelled, rtol=1e-13, atol=1e-13)


def test_an_inner_node_with_one_leaf_gives_l_and_the_node_above_all_gives_u() -> None:
    above_all = Taxonomy(("all", "a", "b", "only", "c"), (-1, 0, 0, 0, 3))
    module = toy(above_all)
    z, log_q_z = torch.randn(5, 2).double(), torch.randn(5).double()
    of = {name: label_terms(module, z, log_q_z, torch.full((5,), i)) for i, name in enumerate(above_all.names)}
    assert torch.equal(of["only"], of["c"])
    assert torch.equal(of["all"], label_terms(module, z, log_q_z, torch.full((5,), -1)))
    assert not torch.allclose(of["a"], of["b"])


def test_marginal_takes_u_for_every_cell() -> None:
    labels = torch.tensor([0, 2, -1, 1])
    assert toy().visible(labels).tolist() == [0, 2, -1, 1]
    assert toy(elbo="marginal").visible(labels).tolist() == [-1] * 4


def test_the_compiled_passes_equal_the_double_precision_ones() -> None:
    """Values and gradients of the label terms; the reference is what `test_the_bounds_equal_enumeration` tests."""
    exact, fast = toy(TREE), toy(TREE).float()
    z, log_q_z, label = torch.randn(50, 2), torch.randn(50), torch.arange(50) % 5 - 1
    noise = torch.randn(500, 2)
    found = []
    for module, dtype in ((exact, torch.float64), (fast, torch.float32)):
        point = z.to(dtype).requires_grad_()
        with patch.object(torch, "randn", lambda *shape, dtype, device: noise[: shape[0]].to(dtype)):
            terms = module.label_terms(point, log_q_z.to(dtype), label).total
        (terms * torch.linspace(-1, 2, 50, dtype=dtype)).sum().backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        found.append([terms.detach(), point.grad, *gradients])
    assert len(found[0]) == 2 + 4 + 14
    for wanted, value in zip(*found, strict=True):
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(value, wanted, atol=1e-5 * scale, rtol=1e-4)


# --- the sampled sum --------------------------------------------------------------------------------------------------


def test_a_sampled_sum_is_right_on_average_in_value_and_gradient() -> None:
    """Over weights times a function of the leaf: mean of many draws, in units of its standard error."""
    module = toy(Taxonomy.flat([f"t{i}" for i in range(30)]), label_sum="sampled")
    logits = (2 * torch.randn(3, 30)).double().requires_grad_()
    values = torch.randn(3, 30).double()
    exact = (logits.softmax(1) * values).sum(1)
    (wanted_gradient,) = torch.autograd.grad(exact.sum(), logits)
    sums, gradients = [], []
    torch.manual_seed(0)
    for _ in range(3000):
        pairs = module.pairs(logits.log_softmax(1))
        assert len(pairs.cell) == 3 * 9
        terms = pairs.weight * values[pairs.cell, pairs.leaf]
        gradients.append(torch.autograd.grad(terms.sum(), logits)[0])
        sums.append(torch.zeros(3).double().index_add(0, pairs.cell, terms.detach()))
    for drawn, wanted in ((torch.stack(sums), exact.detach()), (torch.stack(gradients), wanted_gradient)):
        error = (drawn.mean(0) - wanted).abs() / (drawn.std(0) / math.sqrt(3000) + 1e-12)
        assert error.max() < 4.5
        assert drawn.std(0).max() > 1e-3, "nothing was drawn"


def test_a_sampled_sum_over_few_types_is_the_exact_one() -> None:
    exact, sampled = toy(), toy(label_sum="sampled")
    log_q = torch.randn(4, 3).double().log_softmax(1)
    assert all(map(torch.equal, exact.pairs(log_q), sampled.pairs(log_q)))


def test_a_sampled_sum_leaves_out_what_a_label_excludes() -> None:
    """Of 30 leaves, a label allows 1, 3, 9 or all: no pair lies outside, and few leaves are summed exactly."""
    parents = {f"t{i}": ("one" if i == 0 else "three" if i < 4 else "nine" if i < 13 else None) for i in range(30)}
    tree = Taxonomy.from_parents(parents)
    module = toy(tree, label_sum="sampled")
    labels = torch.tensor([tree.names.index("one"), tree.names.index("three"), tree.names.index("nine"), -1])
    allowed = module.allowed[labels]
    log_q = torch.randn(4, 30).double().masked_fill(~allowed, -torch.inf).log_softmax(1).requires_grad_()
    pairs = module.pairs(log_q)
    assert torch.bincount(pairs.cell).tolist() == [1, 3, 9, 9]
    assert allowed[pairs.cell, pairs.leaf].all()
    few = pairs.cell < 2
    assert torch.equal(pairs.weight[few], log_q.exp()[pairs.cell[few], pairs.leaf[few]])
    pairs.weight.sum().backward()
    assert log_q.grad is not None
    assert log_q.grad.isfinite().all()
    totals = torch.zeros(4).double().index_add(0, pairs.cell, pairs.weight.detach())
    np.testing.assert_allclose(totals, 1)


def test_extreme_classifiers_leave_everything_finite() -> None:
    module = toy(Taxonomy.flat([f"t{i}" for i in range(30)]), label_sum="sampled").float()
    with torch.no_grad():
        module.classifier.logits.weight.mul_(1e4)
    z = torch.randn(20, 2, requires_grad=True)
    module.label_terms(z, torch.zeros(20), torch.full((20,), -1)).total.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


# --- taxonomies in the model ------------------------------------------------------------------------------------------


@pytest.fixture
def partly() -> ad.AnnData:
    """120 cells of 3 types; 20 of each have a label in `known`, the others "?"; `kind` holds coarser labels."""
    adata = simulate_counts(120, 50, n_programs=3, n_types=3, n_batches=2, mean_library=2000, seed=1)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    order = pd.Series(types).groupby(types).cumcount().to_numpy()
    adata.obs["known"] = np.where(order < 20, types, "?")
    adata.obs["kind"] = np.where(types == "type_2", "other", "first")
    return adata


def fitted(adata: ad.AnnData, **arguments: Any) -> lc.SCANVI:
    given = {"labels_key": "known", "unlabeled_category": "?", "n_hidden": 16, "n_latent": 3}
    model = lc.SCANVI(adata, **(given | arguments))
    model.train(**TRAINING)
    return model


def test_a_tree_of_depth_one_is_the_flat_model(partly: ad.AnnData) -> None:
    """Whether its root is named or not."""
    flat = fitted(partly)
    for tree in ({f"type_{i}": None for i in range(3)}, {f"type_{i}": "cell" for i in range(3)}):
        model = fitted(partly, taxonomy=tree)
        assert model.taxonomy == flat.taxonomy
        assert_same_training(model, flat)


def test_columns_and_parents_give_the_same_model(partly: ad.AnnData) -> None:
    parents = {"type_0": "first", "type_1": "first", "type_2": "other"}
    partly.obs["finest"] = np.where(partly.obs["known"] == "?", partly.obs["kind"], partly.obs["known"])
    by_columns = fitted(partly, labels_key=["kind", "known"])
    by_parents = fitted(partly, labels_key="finest", unlabeled_category=None, taxonomy=parents)
    assert by_columns.taxonomy == by_parents.taxonomy
    assert_same_weights(weights(by_columns), weights(by_parents))


def test_probabilities_sum_to_one_and_predictions_agree_across_levels(partly: ad.AnnData) -> None:
    parents = {"type_0": "left", "type_1": "left", "left": "top", "type_2": "right", "right": None, "top": None}
    model = fitted(partly, taxonomy=parents, n_unobserved_types=2)
    assert model.taxonomy.n_levels == 3
    soft = [model.predict(soft=True, level=level) for level in range(3)]
    hard = [model.predict(level=level) for level in range(3)]
    assert list(soft[0]) == ["top", "right", "unobserved_1", "unobserved_2"]
    assert list(soft[2]) == ["type_0", "type_1", "type_2", "unobserved_1", "unobserved_2"]
    for table in soft:
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(soft[0]["top"], soft[2][["type_0", "type_1"]].sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(soft[1]["left"], soft[0]["top"], rtol=1e-12)
    above = {"type_0": "left", "type_1": "left", "left": "top", "type_2": "right"}
    for finer, coarser in zip(hard[:0:-1], hard[-2::-1], strict=True):
        assert all(above.get(name, name) == other or name == other for name, other in zip(finer, coarser, strict=True))
    assert (hard[2] == soft[2].idxmax(axis=1)).all()
    assert model.predict().equals(hard[2])


def test_levels_go_by_the_names_of_columns(partly: ad.AnnData) -> None:
    model = fitted(partly, labels_key=["kind", "known"])
    pd.testing.assert_frame_equal(model.predict(soft=True, level="kind"), model.predict(soft=True, level=0))
    pd.testing.assert_frame_equal(model.predict(soft=True, level="known"), model.predict(soft=True))
    for wrong in ("cell_type", 2, -1):
        with pytest.raises(SettingError, match="level is") as caught:
            model.predict(level=wrong)
        assert_sentence(caught.value)


def test_a_saved_taxonomy_is_the_same(partly: ad.AnnData, tmp_path: Any) -> None:
    model = fitted(partly, labels_key=["kind", "known"], n_unobserved_types=1)
    model.save(tmp_path / "run")
    loaded = lc.load(tmp_path / "run", partly)
    assert loaded.taxonomy == model.taxonomy
    assert loaded.schema == model.schema
    assert loaded.predict(level=0).equals(model.predict(level=0))
    np.testing.assert_array_equal(loaded.cells.label, model.cells.label)


# --- training -------------------------------------------------------------------------------------------------------


def test_in_alternate_training_the_bound_leaves_the_classifier_alone_and_reaches_z_through_it(
    partly: ad.AnnData,
) -> None:
    model = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3)
    module = model.module
    scanvi = module.phases()[-1]
    assert scanvi.turn is not None
    of_classifier = set(map(id, module.classifier.parameters()))
    assert {id(p) for p in scanvi.turn.parameters} == of_classifier
    assert {id(p) for p in scanvi.parameters} == {id(p) for p in module.parameters()} - of_classifier
    z = torch.randn(10, 3, requires_grad=True)
    before = torch.autograd.grad(module.label_terms(z, torch.zeros(10), torch.full((10,), -1)).c.sum(), z)[0]
    assert before.abs().max() > 0, "the divergence of c depends on z through the classifier alone"


def test_the_turn_sees_labelled_training_cells_only(partly: ad.AnnData) -> None:
    model, seen = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3), []
    cross_entropy = SCANVIModule.cross_entropy

    def watch(self: SCANVIModule, z: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return cross_entropy(self, z, label)

    no_calibration = patch.object(lc.SCANVI, "_after_training", lambda model: None)
    with patch.object(SCANVIModule, "cross_entropy", watch), no_calibration:
        model.train(**(TRAINING | {"max_epochs": 2, "batch_size": 500}))
    labels = model.cells.label[model.train_indices]
    assert len(seen) == model.config.classifier_steps, "one batch holds them all"
    for one in seen:
        np.testing.assert_array_equal(np.bincount(one), np.bincount(labels[labels >= 0]))


@pytest.mark.parametrize(
    ("n_labelled", "training", "kept"), [(60, "alternate", True), (100, "alternate", False), (60, "joint", False)]
)
def test_few_labelled_cells_all_train_where_others_can_be_held_out(
    partly: ad.AnnData, n_labelled: int, training: str, kept: bool
) -> None:
    """Of 120 cells 12 are held out; of the 20 that 100 labelled ones leave, that would be more than half."""
    partly.obs["known"] = np.where(np.arange(120) < n_labelled, partly.obs["cell_type"], "?")
    model = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3, training=training)
    model.train(**TRAINING | {"max_epochs": 1})
    assert len(model.validation_indices) == 12
    assert (not (model.cells.label[model.validation_indices] >= 0).any()) == kept


def test_few_finest_labels_all_train_where_the_others_name_their_group(partly: ad.AnnData) -> None:
    partly.obs["group"] = np.where(partly.obs["cell_type"] == partly.obs["cell_type"].iloc[0], "one", "other")
    partly.obs["known"] = np.where(np.arange(120) < 60, partly.obs["cell_type"], "?")
    model = lc.SCANVI(partly, labels_key=["group", "known"], unlabeled_category="?", n_hidden=16, n_latent=3)
    model.train(**TRAINING | {"max_epochs": 1})
    assert (partly.obs["known"].iloc[model.validation_indices] == "?").all()


@pytest.mark.parametrize("training", ["alternate", "both"])
def test_hidden_labels_permuted_behind_the_mask_change_nothing(partly: ad.AnnData, training: str) -> None:
    """The model's cells keep codes below -1 in place of -1; whatever they are, training is the same bit for bit."""
    wanted = fitted(partly, training=training)
    model = fitted(partly, training=training)
    hidden = np.flatnonzero(model.cells.label < 0)
    truth = partly.obs["cell_type"].cat.codes.to_numpy()[hidden]
    for codes in (truth, np.random.default_rng(0).permutation(truth)):
        model.cells.label[hidden] = -2 - codes
        model.train(**TRAINING)
        assert_same_training(model, wanted)


def test_other_labels_give_another_model(partly: ad.AnnData) -> None:
    """What the test above would miss if labels did nothing."""
    wanted = fitted(partly)
    known = partly.obs["known"] != "?"
    partly.obs.loc[known, "known"] = partly.obs.loc[known, "known"].to_numpy()[::-1]
    assert not torch.equal(wanted.vae.z_mean.weight, fitted(partly).vae.z_mean.weight)


@pytest.mark.parametrize("write", [2, 7, 11, 13])
def test_alternate_training_resumes_bit_for_bit(partly: ad.AnnData, tmp_path: Any, write: int) -> None:
    whole = fitted(partly)
    settings = TRAINING | {"checkpoint_dir": tmp_path}
    model = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3)
    with checkpoint_every_step():
        with patch.object(Checkpoint, "write", killing(Checkpoint.write, write, late=True)), pytest.raises(Killed):
            model.train(**settings)
        model.train(**settings, resume=True)
    assert_same_training(model, whole)


def test_a_kill_within_a_turn_is_repaired(partly: ad.AnnData, tmp_path: Any) -> None:
    whole = fitted(partly)
    model = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3)
    settings = TRAINING | {"checkpoint_dir": tmp_path}
    turn = SCANVIModule.cross_entropy
    with checkpoint_every_step():
        with patch.object(SCANVIModule, "cross_entropy", killing(turn, 13, late=False)), pytest.raises(Killed):
            model.train(**settings)
        model.train(**settings, resume=True)
    assert_same_training(model, whole)


@pytest.mark.parametrize("n_cells_seen", [0, 200])
def test_a_run_cut_off_before_the_classifier_learned_says_so(
    partly: ad.AnnData, caplog: pytest.LogCaptureFixture, n_cells_seen: int
) -> None:
    """In the first step, or in the second epoch of scVI."""
    model, take = lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_hidden=16, n_latent=3), Cells.take
    seen = []

    def pressing_ctrl_c(cells: Cells, rows: np.ndarray) -> Any:
        seen.extend(rows)
        if len(seen) > n_cells_seen:
            seen.clear()
            raise KeyboardInterrupt
        return take(cells, rows)

    with patch.object(Cells, "take", pressing_ctrl_c):
        model.train(**TRAINING | {"max_epochs": 10})
    assert model.record.stopped == "interrupted"
    assert "training ended before the classifier's first epoch" in caplog.text
    assert len(model.predict()) == 120


def test_planted_types_are_found_from_few_labels() -> None:
    adata = simulate_counts(600, 150, n_programs=4, n_types=4, n_batches=2, mean_library=2000, seed=3)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    order = pd.Series(truth).groupby(truth).cumcount().to_numpy()
    adata.obs["known"] = np.where(order < 8, truth, "?")
    model = lc.SCANVI(adata, batch_key="batch", labels_key="known", unlabeled_category="?", n_hidden=64, n_latent=6)
    model.train(40, num_threads=1, progress=False)
    hidden = (adata.obs["known"] == "?").to_numpy()
    programs = adata.obsm["programs"]  # types overlap: what the truth itself tells, all labels known
    best = LogisticRegression(max_iter=1000).fit(programs[hidden], truth[hidden]).score(programs[hidden], truth[hidden])
    assert (model.predict().to_numpy() == truth)[hidden].mean() > best - 0.1


# --- from a trained SCVI ----------------------------------------------------------------------------------------------


def test_from_scvi_starts_where_it_ended_and_leaves_it_alone(partly: ad.AnnData) -> None:
    scvi = lc.SCVI(partly, batch_key="batch", labels_key="known", n_hidden=16, n_latent=3)
    with pytest.raises(NotTrainedError):
        lc.SCANVI.from_scvi_model(scvi, "?")
    scvi.train(**TRAINING)
    before = weights(scvi)
    model = lc.SCANVI.from_scvi_model(scvi, "?")
    assert model.schema.label_categories == ("type_0", "type_1", "type_2")
    assert (model.cells.label < 0).sum() == (partly.obs["known"] == "?").sum()
    assert_same_weights(dict(model._new_module(model.cells, Settings()).vae.state_dict()), before)
    model.train(**TRAINING)
    assert set(model.history["phase"]) == {"scanvi"}
    assert_same_weights(weights(scvi), before)
    with_data = lc.SCANVI.from_scvi_model(scvi, "?", "known", partly)
    with_data.train(**TRAINING)
    assert_same_training(with_data, model)
    other = lc.SCANVI.from_scvi_model(scvi, "?", ["kind", "known"], partly)
    assert other.taxonomy.n_levels == 2


def test_a_loaded_model_that_started_from_scvi_says_how_to_train_it(partly: ad.AnnData, tmp_path: Any) -> None:
    scvi = lc.SCVI(partly, n_hidden=16, n_latent=3)
    scvi.train(**TRAINING)
    with pytest.raises(DataError, match="kept with the labels of no column.*pass adata") as caught:
        lc.SCANVI.from_scvi_model(scvi, "?", "known")
    assert_sentence(caught.value)
    model = lc.SCANVI.from_scvi_model(scvi, "?", "known", partly)
    model.train(**TRAINING)
    model.save(tmp_path / "run")
    with pytest.raises(DataError, match="make it anew with SCANVI.from_scvi_model") as caught:
        lc.load(tmp_path / "run", partly).train(**TRAINING)
    assert_sentence(caught.value)


# --- read-outs --------------------------------------------------------------------------------------------------------


def test_the_marginal_likelihood_lies_above_the_bound(partly: ad.AnnData) -> None:
    """Of U: log p(x) >= U, up to the noise of its draws; of L the label's log-probability is a part."""
    model = fitted(partly, elbo="marginal")
    bound = model.get_elbo(n_samples=200, return_mean=False)
    log_p = model.get_marginal_ll(n_mc_samples=300, return_mean=False)
    assert (log_p - bound).mean() > 0
    assert ((log_p - bound) > -0.5).all()


def test_log_prior_is_that_of_a_mixture(partly: ad.AnnData) -> None:
    """Against plain Monte Carlo over u and c."""
    module = toy()
    z = torch.randn(3, 2).double()
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([module.log_prior(z) for _ in range(4000)]).logsumexp(0) - math.log(4000)
        u, leaf = torch.randn(100_000, 2).double(), torch.arange(100_000) % 3
        mixture = Independent(Normal(*module.p_z(u, leaf)), 1)
        wanted = torch.stack([mixture.log_prob(point).logsumexp(0) - math.log(100_000) for point in z])
    np.testing.assert_allclose(found, wanted, atol=0.15)


def test_a_query_gets_types_and_its_own_labels_do_not_matter(partly: ad.AnnData) -> None:
    model = fitted(partly, batch_key="batch", encode_covariates=True)
    query = partly.copy()
    query.obs["batch"] = "new"
    mapped = model.map_query(query, max_epochs=2)
    query.obs["known"] = query.obs["known"].to_numpy()[::-1]
    again = model.map_query(query, max_epochs=2)
    del query.obs["known"]
    without = model.map_query(query, max_epochs=2)
    assert set(mapped.predict()) <= {"type_0", "type_1", "type_2"}
    for other in (again, without):
        assert_same_weights(weights(other), weights(mapped))
        assert_same_answers({"p": [other.predict(soft=True).to_numpy()]}, {"p": [mapped.predict(soft=True).to_numpy()]})


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"elbo": "both"}, "elbo is 'both'; it must be one of paper, marginal"),
        ({"training": "once"}, "training is 'once'; it must be one of alternate, joint, both"),
        ({"label_sum": "all"}, "label_sum is 'all'; it must be one of exact, sampled"),
        ({"n_unobserved_types": -1}, "n_unobserved_types is -1; it must be a whole number of at least 0"),
        ({"classifier_steps": 0}, "classifier_steps is 0"),
        ({"classifier_layers": 1.5}, "classifier_layers is 1.5"),
        ({"classifier_dropout": 1}, "classifier_dropout is 1; it must be at least 0 and below 1"),
        ({"classification_ratio": -2}, "classification_ratio is -2; it must be a number of at least 0"),
        ({"label_hidden": "64"}, "label_hidden is '64'"),
        ({"n_latent": 0}, "n_latent is 0"),
        ({"dispersion": "gene-label"}, "dispersion='gene-label' needs a label for every cell"),
        ({"labels_key": None, "unlabeled_category": None}, "pass labels_key"),
        ({"labels_key": "batch", "unlabeled_category": "batch_0"}, "at least 2 types to tell apart"),
        ({"taxonomy": {"type_0": "a"}}, "2 of 3 labels of obs['known'] are not in the taxonomy"),
        ({"labels_key": ["kind", "known"], "taxonomy": {"a": "b"}}, "labels_key names 2"),
    ],
)
def test_what_has_no_meaning_is_refused(partly: ad.AnnData, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises((SettingError, DataError)) as caught:
        lc.SCANVI(partly, **({"labels_key": "known", "unlabeled_category": "?"} | wrong))
    assert said in str(caught.value)
    assert_sentence(caught.value)


def test_data_without_any_label_are_refused(partly: ad.AnnData) -> None:
    partly.obs["known"] = pd.Categorical(["?"] * 120, categories=["?", "type_0", "type_1"])
    with pytest.raises(DataError, match="names 0") as caught:
        lc.SCANVI(partly, labels_key="known", unlabeled_category="?")
    assert_sentence(caught.value)
    with pytest.raises(DataError, match="none of the 120 cells has a label") as caught:
        lc.SCANVI(partly, labels_key="known", unlabeled_category="?", n_unobserved_types=3)
    assert_sentence(caught.value)
