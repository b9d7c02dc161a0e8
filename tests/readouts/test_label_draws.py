"""z of a type: by the equations of scANVI's networks, and what differential expression makes of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from battery import assert_sentence, random_state_kept
from scipy.stats import norm

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import SettingError
from lucidcell.readouts.groups import Groups
from lucidcell.readouts.label_draws import DrawGivenLabel, law_of_z
from lucidcell.readouts.scale_samples import PosteriorOfCells

FEW = {"n_samples_overall": 60}


@pytest.fixture(scope="module")
def adata():
    """240 cells of 3 types; a third of them has no label in `known`; `kind` holds two coarser labels."""
    adata = simulate_counts(240, 60, n_programs=3, n_types=3, n_batches=2, mean_library=2000, seed=1)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    adata.obs["known"] = np.where(np.arange(240) % 3 == 0, "?", types)
    adata.obs["kind"] = np.where(types == "type_2", "other", "first")
    return adata


def fit(adata, **arguments):
    model = lc.SCANVI(adata, labels_key="known", unlabeled_category="?", n_hidden=32, n_latent=4, **arguments)
    model.train(20, batch_size=64, num_threads=1, progress=False)
    return model


@pytest.fixture(scope="module")
def model(adata):
    return fit(adata, batch_key="batch")


@pytest.fixture(scope="module")
def tree(adata):
    return fit(adata, taxonomy={"type_0": "first", "type_1": "first", "type_2": None})


def by_hand(network, x: np.ndarray, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of q(u | z, c) or p(z | u, c) in NumPy."""
    w = {name: value.detach().numpy().astype(float) for name, value in network.named_parameters()}
    hidden = np.maximum(x @ w["x.weight"].T + w["x.bias"] + w["label"][leaf], 0)
    log_variance = hidden @ w["log_variance.weight"].T + w["log_variance.bias"]
    return hidden @ w["mean.weight"].T + w["mean.bias"], np.sqrt(np.exp(log_variance) + 1e-4)


def test_the_prior_of_a_type_is_drawn_from_u_alone(model):
    n, leaf = 20_000, 1
    law = DrawGivenLabel(model, np.full(240, leaf), prior=True)
    z = law(model.cells, np.zeros(n, int), np.random.default_rng(0)).numpy()
    u = np.random.default_rng(1).standard_normal((n, 4))
    mean, sd = by_hand(model.module.p_z, u, leaf)
    drawn = mean + sd * np.random.default_rng(2).standard_normal((n, 4))
    np.testing.assert_allclose(z.mean(0), drawn.mean(0), atol=5 * drawn.std(0).max() / np.sqrt(n))
    np.testing.assert_allclose(z.std(0), drawn.std(0), rtol=0.05)
    other = law(model.cells, np.full(n, 7), np.random.default_rng(0)).numpy()
    np.testing.assert_array_equal(z, other)  # the cell plays no part


def test_the_aggregate_passes_the_posterior_of_each_cell_through_u(model):
    n, leaf, cell = 20_000, 2, 5
    z = DrawGivenLabel(model, np.full(240, leaf), prior=False)(
        model.cells, np.full(n, cell), np.random.default_rng(0)
    ).numpy()
    mu, variance = model.get_latent_representation(indices=[cell], return_dist=True)
    rng = np.random.default_rng(1)
    own = norm.rvs(mu, np.sqrt(variance), (n, 4), random_state=rng)
    mean_u, sd_u = by_hand(model.module.q_u, own, leaf)
    mean_z, sd_z = by_hand(model.module.p_z, mean_u + sd_u * rng.standard_normal((n, 4)), leaf)
    drawn = mean_z + sd_z * rng.standard_normal((n, 4))
    np.testing.assert_allclose(z.mean(0), drawn.mean(0), atol=5 * drawn.std(0).max() / np.sqrt(n))
    np.testing.assert_allclose(z.std(0), drawn.std(0), rtol=0.05)


def test_a_cell_labelled_above_the_leaves_takes_one_of_the_leaves_under_it(tree):
    first = tree.taxonomy.names.index("first")
    cell = int(np.flatnonzero(tree.cells.label >= 0)[0])
    z = DrawGivenLabel(tree, np.full(240, first), prior=True)(
        tree.cells, np.full(5000, cell), np.random.default_rng(0)
    ).numpy()
    means = [
        by_hand(tree.module.p_z, np.random.default_rng(1).standard_normal((20_000, 4)), leaf)[0].mean(0)
        for leaf in range(3)
    ]
    under = [tree.taxonomy.leaf_names.index(name) for name in ("type_0", "type_1")]
    span = np.stack([means[leaf] for leaf in under])
    inside = np.linalg.lstsq(np.vstack([span.T, np.ones(2)]), np.r_[z.mean(0), 1.0], rcond=None)
    weights = inside[0]
    assert (weights > -0.1).all()
    assert weights.sum() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(weights @ span, z.mean(0), atol=0.1)


def test_groups_that_are_types_have_their_own_law_and_others_that_of_their_cells(model):
    types = Groups(("type_0", "type_2"), np.repeat([0, 1, -1], 80), "known")
    law = law_of_z(model, None, types)
    assert isinstance(law, DrawGivenLabel)
    assert not law.prior
    assert set(law.nodes[:80]) == {model.taxonomy.names.index("type_0")}
    assert set(law.nodes[160:]) == {-1}
    assert law_of_z(model, "prior", types).prior
    strangers = Groups(("batch_0", "type_0"), np.repeat([0, 1], 120), "batch")
    for latent, groups in ((None, None), (None, strangers), ("cells", types), ("cells", None)):
        assert isinstance(law_of_z(model, latent, groups), PosteriorOfCells)
    for groups, said in ((None, "masks of cells are none"), (strangers, "groups such as 'batch_0' are none")):
        with pytest.raises(SettingError, match=said) as caught:
            law_of_z(model, "aggregate", groups)
        assert_sentence(caught.value)


def test_without_a_column_the_predicted_types_are_compared(model, adata):
    predicted = model.predict().to_numpy()
    table = model.differential_expression(group1="type_0", group2="type_2", **FEW)
    first = adata[predicted == "type_0"]
    np.testing.assert_allclose(table.loc[adata.var_names, "raw_mean1"], first.X.toarray().mean(0), rtol=1e-5)
    named = adata.copy()
    model.write(named)
    same = model.differential_expression(named, groupby="scanvi_prediction", group1="type_0", group2="type_2", **FEW)
    pd.testing.assert_frame_equal(table, same, check_exact=True)
    assert table.attrs["groupby"] == "scanvi_prediction"
    labelled = model.differential_expression(groupby="known", group1="type_0", group2="type_2", **FEW)
    assert not labelled["lfc_mean"].equals(table["lfc_mean"])


def test_the_three_laws_differ_and_agree_on_what_is_plain(model):
    with random_state_kept():
        tables = {
            latent: model.differential_expression(
                group1="type_0", group2="type_1", scanvi_latent=latent, n_samples_overall=300
            )["lfc_mean"]
            for latent in ("aggregate", "prior", "cells")
        }
    found = pd.DataFrame(tables)
    assert not found["aggregate"].equals(found["cells"])
    assert not found["aggregate"].equals(found["prior"])
    assert found.corr().to_numpy().min() > 0.9
    for latent in tables:
        vanilla = model.differential_expression(
            group1="type_0", group2="type_1", scanvi_latent=latent, mode="vanilla", **FEW
        )
        assert np.isfinite(vanilla["bayes_factor"]).all()


def test_coarse_groups_of_a_tree_can_be_compared(tree, adata):
    table = tree.differential_expression(adata, groupby="kind", group1="first", **FEW)
    assert isinstance(tree.law_of_z(None, None), PosteriorOfCells)
    assert np.isfinite(table["lfc_mean"]).all()
    assert set(tree.differential_expression(**FEW)["group1"]) <= {"type_0", "type_1", "type_2"}
