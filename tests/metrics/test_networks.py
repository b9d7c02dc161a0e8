"""True centrality and neighbourhood prediction against loops by definition and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler

from lucidcell.cells.simulate_network import simulate_hubs
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.gene_predictors import neighborhood_prediction, true_centrality_mlp
from lucidcell.metrics.networks import folds, neighborhood_correlation, neighborhood_overlap, true_centrality


@pytest.fixture(scope="module")
def values() -> pd.DataFrame:
    """150 cells of 9 genes that depend on 2 hidden factors; the last is the same in all cells, g7 mostly 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 9)) + 0.5 * rng.normal(size=(150, 9))
    x[:, 7] = np.where(rng.random(150) < 0.7, 0, x[:, 7])
    x[:, 8] = 3.0
    return pd.DataFrame(x, columns=[f"g{g}" for g in range(9)])


def neighbors_of(lists: dict[str, list[str]]) -> pd.DataFrame:
    return pd.DataFrame([(gene, near) for gene, found in lists.items() for near in found], columns=["gene", "neighbor"])


def centrality_by_hand(values: pd.DataFrame, query: str, n_bins: int, fold: np.ndarray) -> float:
    """Binned regression by loops over folds and bins."""
    column = values[query].to_numpy()
    bins = np.array([int(sum(column < value)) * n_bins // len(column) for value in column])
    explained = []
    for gene in values.columns.drop([query, "g8"]):
        x = values[gene].to_numpy()
        predicted = np.empty(len(x))
        for cell in range(len(x)):
            others = (bins == bins[cell]) & (fold != fold[cell])
            predicted[cell] = x[others].mean() if others.any() else x.mean()
        explained.append(1 - (x - predicted).var() / x.var())
    return float(np.mean(explained))


@pytest.mark.parametrize(
    ("n_bins", "n_folds"), [(20, 5), (5, 3), (100, 2)]
)  # 100 bins of 1 or 2 cells leave some empty
def test_true_centrality_is_binned_regression(values: pd.DataFrame, n_bins: int, n_folds: int) -> None:
    found = true_centrality(values, n_bins, n_folds, seed=1)
    fold = folds(len(values), n_folds, 1)
    for gene in values.columns.drop("g8"):
        assert found[gene] == pytest.approx(centrality_by_hand(values, gene, n_bins, fold), abs=1e-9)
    assert found["g8"] <= 0


def test_true_centrality_does_not_depend_on_how_it_is_computed(values: pd.DataFrame) -> None:
    found = true_centrality(values)
    pd.testing.assert_series_equal(true_centrality(values, n_jobs=2), found)
    pd.testing.assert_series_equal(true_centrality(values, genes=["g5", "g2"]), found[["g5", "g2"]])
    np.testing.assert_allclose(true_centrality(sp.csr_matrix(values)), found, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(true_centrality(7 * values - 2), found, rtol=1e-6, atol=1e-9)


def test_true_centrality_finds_hubs_and_ranks_as_the_networks_of_the_paper_do() -> None:
    adata = simulate_hubs(1500, 2, 8, 4, rho=0.8, seed=0)
    found = true_centrality(pd.DataFrame(adata.X, columns=adata.var_names))
    assert set(found.nlargest(2).index) == set(adata.var_names[adata.var["is_hub"]])
    assert set(found.nsmallest(4).index) == set(adata.var_names[adata.var["community"] == "isolated"])
    genes = ["gene_0", "gene_3", "gene_8", "gene_11", "gene_16", "gene_19"]
    of_networks = true_centrality_mlp(pd.DataFrame(adata.X, columns=adata.var_names), genes, (32, 32), 3, max_epochs=8)
    assert list(of_networks.index) == genes
    assert spearmanr(of_networks, found[genes])[0] > 0.9
    assert np.abs(of_networks - found[genes]).max() < 0.05


def test_ridge_prediction_is_that_of_scikit_learn(values: pd.DataFrame) -> None:
    near = {"g0": ["g1", "g2", "g3"], "g4": ["g7"], "g5": ["g6", "g8"]}
    found = neighborhood_prediction(values, neighbors_of(near), model="ridge", seed=3)
    z = pd.DataFrame(StandardScaler().fit_transform(values), columns=values.columns)
    split = PredefinedSplit(folds(len(values), 5, 3))
    assert list(found.index) == list(near)
    for gene, inputs in near.items():
        predicted = cross_val_predict(Ridge(alpha=1.0), z[inputs], z[gene], cv=split)
        assert found[gene] == pytest.approx(1 - (z[gene] - predicted).var(ddof=0), abs=1e-9)


def test_the_network_predicts_what_ridge_cannot() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 3))
    values = pd.DataFrame(np.c_[x, np.abs(x[:, 0]) + 0.1 * rng.normal(size=800)], columns=list("abcd"))
    near = neighbors_of({"d": ["a", "b"], "c": ["a", "b"]})
    of_network = neighborhood_prediction(values, near, max_epochs=40)
    assert of_network["d"] > 0.8
    assert of_network["c"] < 0.05
    assert neighborhood_prediction(values, near, model="ridge")["d"] < 0.1
    pd.testing.assert_series_equal(neighborhood_prediction(values, near, max_epochs=40), of_network)


def test_a_query_without_neighbors_is_not_explained(values: pd.DataFrame) -> None:
    near = neighbors_of({"g0": ["g1"]})
    found = neighborhood_prediction(values, near, ["g0", "g3"], model="ridge")
    assert found["g3"] == pytest.approx(0, abs=0.05)


def test_overlap_and_correlation_of_neighborhoods_by_hand(values: pd.DataFrame) -> None:
    a = neighbors_of({"g0": ["g1", "g2"], "g3": ["g4", "g5"], "g6": ["g0"]})
    b = neighbors_of({"g0": ["g2", "g4"], "g3": ["g6", "g8"], "g7": ["g0"]})
    assert neighborhood_overlap(a, b) == pytest.approx((1 / 3 + 0) / 2)
    assert neighborhood_overlap(a, a) == 1
    r = values.drop(columns="g8").corr()
    of_g0 = np.mean([r.loc[i, j] for i in ("g1", "g2") for j in ("g2", "g4")])
    of_g3 = np.mean([r.loc["g4", "g6"], 0, r.loc["g5", "g6"], 0])
    assert neighborhood_correlation(values, a, b) == pytest.approx((of_g0 + of_g3) / 2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda v: true_centrality(v, 1), SettingError, "n_bins is 1"),
        (lambda v: true_centrality(v, 20, 151), SettingError, "2 to 150"),
        (lambda v: true_centrality(v, 20_000, 5), SettingError, "too many parts"),
        (lambda v: true_centrality(v, n_jobs=0), SettingError, "n_jobs is 0"),
        (lambda v: true_centrality(v, genes=["g99"]), DataError, "g99"),
        (lambda v: true_centrality(v[["g0", "g8"]]), DataError, "1 of 2 genes vary"),
        (lambda v: true_centrality(v.mask(v == v.iloc[0, 0])), DataError, "1 "),
        (lambda v: true_centrality(v.iloc[:, [0, 1, 1]]), DataError, "g1"),
        (lambda v: true_centrality_mlp(v, ["g0"], (0,)), SettingError, "hidden is 0"),
        (lambda v: neighborhood_prediction(v, neighbors_of({"g0": ["g0"]})), DataError, "its own neighbor"),
        (lambda v: neighborhood_prediction(v, neighbors_of({"g8": ["g0"]})), DataError, "same in all cells"),
        (lambda v: neighborhood_prediction(v, neighbors_of({"g0": ["g9"]})), DataError, "g9"),
        (lambda v: neighborhood_prediction(v, v), DataError, "columns gene and neighbor"),
        (lambda v: neighborhood_prediction(v, neighbors_of({"g0": ["g1"]}), model="svm"), SettingError, "mlp, ridge"),
        (lambda v: neighborhood_overlap(neighbors_of({"a": ["b"]}), neighbors_of({"c": ["b"]})), DataError, "common"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(values: pd.DataFrame, call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(values)
