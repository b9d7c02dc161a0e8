"""Mutual information and gene networks against loops by definition, scikit-learn and planted parents."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr, spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import mutual_info_score

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.mutual_information import LARGEST_R2, Estimator, mutual_information
from lucidcell.readouts.network_inference import Method, infer_network

INFORMATION_METHODS = ["clr", "mrnet", "aracne"]


@pytest.fixture(scope="module")
def values() -> pd.DataFrame:
    """300 cells of 10 genes that depend on 3 hidden factors, without ties."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 10)) + rng.normal(size=(300, 10))
    return pd.DataFrame(x, columns=[f"g{g}" for g in range(10)])


@pytest.fixture(scope="module")
def zero_inflated() -> np.ndarray:
    """200 cells of 6 genes with many equal values."""
    rng = np.random.default_rng(1)
    return np.log1p(rng.poisson(np.exp(rng.normal(size=(200, 1))) * np.array([0.2, 0.5, 1, 2, 4, 8])))


def bins_by_hand(column: np.ndarray, n_bins: int) -> list[int]:
    """The bin of each value: equally many cells each, equal values together."""
    return [int(sum(other < value for other in column) * n_bins // len(column)) for value in column]


def information_by_hand(one: list[int], other: list[int]) -> float:
    """scikit-learn's estimate and the correction of Miller and Madow."""
    in_use = len(set(one)) + len(set(other)) - len(set(zip(one, other, strict=True))) - 1
    return max(0.0, mutual_info_score(one, other) + in_use / (2 * len(one)))


@pytest.mark.parametrize("n_bins", [2, 5, 16, None])
@pytest.mark.parametrize("kind", ["values", "zero_inflated"])
def test_binned_information_is_that_of_scikit_learn_with_its_bias_corrected(
    kind: str, n_bins: int | None, request: pytest.FixtureRequest
) -> None:
    x = np.asarray(request.getfixturevalue(kind))
    found = mutual_information(x, estimator="binned", n_bins=n_bins).to_numpy()
    used = int((len(x) / 5) ** 0.5) if n_bins is None else n_bins
    bins = [bins_by_hand(column, used) for column in x.T]
    for i, j in combinations(range(x.shape[1]), 2):
        assert found[i, j] == found[j, i] == pytest.approx(information_by_hand(bins[i], bins[j]), rel=1e-9, abs=1e-12)
    assert (found > 0).any()


def test_information_of_as_many_bins_as_a_byte_holds_is_right() -> None:
    x = np.random.default_rng(2).normal(size=(512, 2))  # two cells a bin, so that bins from above are those from below
    x[:, 1] = -x[:, 0]
    bins = [bins_by_hand(column, 256) for column in x.T]
    found = mutual_information(x, estimator="binned", n_bins=256).to_numpy()
    assert found[0, 1] == pytest.approx(information_by_hand(*bins), rel=1e-9)
    assert found[0, 1] == pytest.approx(np.log(256) + 255 / (2 * 512), rel=1e-9)


@pytest.mark.parametrize(("estimator", "correlation"), [("gaussian", pearsonr), ("spearman", spearmanr)])
@pytest.mark.parametrize("kind", ["values", "zero_inflated"])
def test_information_by_correlation_equals_its_formula(
    kind: str, estimator: Estimator, correlation: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    x = np.asarray(request.getfixturevalue(kind))
    found = mutual_information(x, estimator=estimator).to_numpy()
    for i, j in combinations(range(x.shape[1]), 2):
        wanted = -0.5 * np.log(1 - correlation(x[:, i], x[:, j])[0] ** 2)
        assert found[i, j] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert found[j, i] == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_information_of_copies_is_finite_and_the_largest_there_is() -> None:
    x = np.random.default_rng(3).normal(size=(50, 3))
    x[:, 1] = 3 - 2 * x[:, 0]
    found = mutual_information(x).to_numpy()
    assert found[0, 1] == pytest.approx(-0.5 * np.log(1 - LARGEST_R2), rel=1e-9)
    assert np.isfinite(found).all()


def test_only_bins_see_a_relation_that_is_not_monotone() -> None:
    z = np.random.default_rng(4).normal(size=(2000, 1))
    x = np.hstack([z, np.abs(z)])
    assert mutual_information(x, estimator="binned").iloc[0, 1] > 1
    assert mutual_information(x, estimator="gaussian").iloc[0, 1] < 0.01
    assert mutual_information(x, estimator="spearman").iloc[0, 1] < 0.01


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_information_of_normal_genes_is_near_the_truth(estimator: Estimator) -> None:
    rng = np.random.default_rng(5)
    rho = 0.7
    x = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 20000)
    found = mutual_information(x, estimator=estimator, n_bins=20 if estimator == "binned" else None).iloc[0, 1]
    assert found == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.1)


def clr_by_hand(information: np.ndarray) -> np.ndarray:
    n = len(information)
    weights = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        squares = []
        for own, other in ((i, j), (j, i)):
            background = [information[own, k] for k in range(n) if k != own]
            z = (information[own, other] - np.mean(background)) / np.std(background, ddof=1)
            squares.append(max(0.0, z) ** 2)
        weights[i, j] = weights[j, i] = np.sqrt(sum(squares))
    return weights


def mrnet_by_hand(information: np.ndarray) -> np.ndarray:
    n = len(information)
    scores = np.zeros((n, n))
    for target in range(n):
        taken: list[int] = []
        while len(taken) < n - 1:
            candidates = {}
            for j in range(n):
                if j != target and j not in taken:
                    redundancy = np.mean([information[j, k] for k in taken]) if taken else 0.0
                    candidates[j] = information[target, j] - redundancy
            best = max(candidates, key=lambda gene: candidates[gene])
            if candidates[best] <= 0:
                break
            scores[target, best] = candidates[best]
            taken.append(best)
    return np.maximum(scores, scores.T)


def aracne_by_hand(information: np.ndarray) -> np.ndarray:
    weights = information.copy()
    for triangle in combinations(range(len(information)), 3):
        i, j = min(combinations(triangle, 2), key=lambda edge: information[edge])
        weights[i, j] = weights[j, i] = 0
    return weights


BY_HAND = {"clr": clr_by_hand, "mrnet": mrnet_by_hand, "aracne": aracne_by_hand}


@pytest.mark.parametrize("method", INFORMATION_METHODS)
@pytest.mark.parametrize("estimator", ["gaussian", "spearman"])  # bins can have ties
def test_a_network_equals_loops_over_its_definition(values: pd.DataFrame, method: Method, estimator: Estimator) -> None:
    information = mutual_information(values, estimator=estimator).to_numpy()
    information = (information + information.T) / 2
    found = infer_network(values, method, estimator=estimator).to_numpy()
    np.testing.assert_allclose(found, BY_HAND[method](information), rtol=1e-9, atol=1e-10)
    n_edges = int((found > 0).sum()) // 2
    assert 0 < n_edges < 45  # each method leaves some pairs out, and not all


def test_binned_information_reaches_the_network(values: pd.DataFrame) -> None:
    information = mutual_information(values, estimator="binned", n_bins=4).to_numpy()
    found = infer_network(values, "clr", estimator="binned", n_bins=4).to_numpy()
    np.testing.assert_allclose(found, clr_by_hand(information), rtol=1e-9, atol=1e-10)


def test_aracne_keeps_the_chain_and_drops_the_indirect_edge() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(size=2000)
    b = a + 0.5 * rng.normal(size=2000)
    c = b + 0.5 * rng.normal(size=2000)
    found = infer_network(pd.DataFrame({"a": a, "c": c, "b": b}), "aracne")
    assert found.loc["a", "b"] > 0
    assert found.loc["b", "c"] > 0
    assert found.loc["a", "c"] == 0


def planted_parents(seed: int = 7) -> tuple[pd.DataFrame, dict[str, str]]:
    """4 independent parents and 2 children of each, one of them no monotone function of its parent."""
    rng = np.random.default_rng(seed)
    x = {f"p{p}": rng.normal(size=600) for p in range(4)}
    parent = {}
    for p in range(4):
        x[f"line{p}"] = x[f"p{p}"] + 0.4 * rng.normal(size=600)
        x[f"curve{p}"] = np.abs(x[f"p{p}"]) + 0.3 * rng.normal(size=600)
        parent |= {f"line{p}": f"p{p}", f"curve{p}": f"p{p}"}
    return pd.DataFrame(x), parent


def test_trees_find_the_planted_parent_of_every_child() -> None:
    x, parent = planted_parents()
    found = infer_network(x, "trees")
    assert {child: found[child].idxmax() for child in parent} == parent


@pytest.mark.parametrize("method", INFORMATION_METHODS)
def test_the_planted_parent_is_the_heaviest_edge_of_a_monotone_child(method: Method) -> None:
    x, parent = planted_parents()
    lines = [name for name in x if not name.startswith("curve")]
    found = infer_network(x[lines], method)
    for child in (name for name in lines if name in parent):
        assert found[child].idxmax() == parent[child]


def test_trees_are_those_of_scikit_learn_and_importances_of_a_target_sum_to_one(
    monkeypatch: pytest.MonkeyPatch, values: pd.DataFrame
) -> None:
    from lucidcell.readouts import network_inference

    drawn, original = {}, network_inference._importances

    def record(z: np.ndarray, target: int, n_trees: int, seed: int) -> np.ndarray:
        drawn[target] = seed
        return original(z, target, n_trees, seed)

    monkeypatch.setattr(network_inference, "_importances", record)
    found = infer_network(values, "trees", n_trees=8, seed=3).to_numpy()
    z = ((values - values.mean()) / values.std(ddof=0)).to_numpy().astype(np.float32)
    shares = np.zeros((10, 10))
    for target in range(10):
        forest = ExtraTreesRegressor(8, max_features="sqrt", min_samples_leaf=5, random_state=drawn[target])
        others = [gene for gene in range(10) if gene != target]
        forest.fit(z[:, others], z[:, target])
        shares[target, others] = forest.feature_importances_
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose(found, np.maximum(shares, shares.T), atol=1e-6)
    assert len(set(drawn.values())) == 10


@pytest.mark.parametrize("method", get_args(Method))
def test_weights_are_symmetric_and_a_constant_gene_has_no_edges(values: pd.DataFrame, method: Method) -> None:
    constant = values.assign(flat=0.1, zero=0.0)
    found = infer_network(constant, method, n_trees=10)
    assert list(found.index) == list(found.columns) == list(constant)
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    assert (found.to_numpy() >= 0).all()
    assert (found[["flat", "zero"]] == 0).all(axis=None)
    assert (found.drop(columns=["flat", "zero"]).max() > 0).any()


@pytest.mark.parametrize("method", get_args(Method))
def test_constant_genes_alone_have_no_network(method: Method) -> None:
    x = np.tile([0.1, 0.2, 0.3], (20, 1))
    x[:, 2] += np.arange(20)
    assert (infer_network(x, method) == 0).all(axis=None)


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_information_of_a_constant_gene_is_zero(values: pd.DataFrame, estimator: Estimator) -> None:
    found = mutual_information(values.assign(flat=0.1), estimator=estimator)
    assert (found["flat"] == 0).all()
    assert (found.loc["flat"] == 0).all()
    assert (np.diag(found) == 0).all()
    assert (found.loc["g0", "g1":"g9"] >= 0).all()  # type: ignore[misc]


@pytest.mark.parametrize("n_jobs", [2, 3, 50, -1])
@pytest.mark.parametrize("method", get_args(Method))
def test_the_number_of_jobs_changes_nothing(values: pd.DataFrame, method: Method, n_jobs: int) -> None:
    settings: dict[str, Any] = {} if method == "trees" else {"estimator": "binned"}
    one = infer_network(values, method, n_trees=3, n_jobs=1, **settings)
    many = infer_network(values, method, n_trees=3, n_jobs=n_jobs, **settings)
    pd.testing.assert_frame_equal(one, many, check_exact=True)


def test_the_seed_determines_the_trees_and_no_global_state_is_touched(values: pd.DataFrame) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (infer_network(values, "trees", n_trees=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("method", get_args(Method))
def test_sparse_values_arrays_and_frames_give_the_same_network(zero_inflated: np.ndarray, method: Method) -> None:
    dense = infer_network(zero_inflated, method, n_trees=3)
    np.testing.assert_array_equal(dense, infer_network(sp.csr_matrix(zero_inflated), method, n_trees=3))
    np.testing.assert_array_equal(dense, infer_network(pd.DataFrame(zero_inflated), method, n_trees=3))
    assert list(dense.index) == list(range(6))


@pytest.mark.parametrize("method", get_args(Method))
def test_a_network_does_not_depend_on_the_order_scale_or_sign_of_genes(values: pd.DataFrame, method: Method) -> None:
    if method == "trees":
        first, other = (infer_network(x, method, n_trees=5) for x in (values, 2 + 3 * values))
        np.testing.assert_allclose(first, other, atol=1e-3)
        return
    order = np.random.default_rng(8).permutation(10)
    changed = (5 - values * np.arange(1, 11)).iloc[:, order]
    first, other = infer_network(values, method), infer_network(changed, method)
    pd.testing.assert_frame_equal(first, other.loc[first.index, first.columns], rtol=1e-7, atol=1e-8)


def test_the_values_passed_in_are_left_as_they_are(values: pd.DataFrame) -> None:
    before = values.copy()
    x = values.to_numpy(copy=True)
    for method in get_args(Method):
        infer_network(x, method, n_trees=2)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "genie3"},
        {"method": None},
        {"estimator": "kraskov"},
        {"n_bins": 5},
        {"estimator": "binned", "n_bins": 1},
        {"estimator": "binned", "n_bins": 257},
        {"estimator": "binned", "n_bins": 4.0},
        {"n_jobs": 0},
        {"n_jobs": True},
        {"n_jobs": 1.5},
        {"method": "trees", "n_trees": 0},
        {"method": "trees", "n_trees": True},
        {"method": "trees", "seed": -1},
    ],
)
def test_a_setting_without_meaning_is_refused(values: pd.DataFrame, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=repr(list(settings.values())[-1])):
        infer_network(values, **settings)


@pytest.mark.parametrize("settings", [{"estimator": "kraskov"}, {"n_bins": 5}, {"n_jobs": 0}])
def test_information_refuses_a_setting_without_meaning(values: pd.DataFrame, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        mutual_information(values, **settings)


@pytest.mark.parametrize("function", [infer_network, mutual_information])
def test_values_that_are_no_matrix_of_finite_numbers_are_refused(
    values: pd.DataFrame, function: Callable[..., Any]
) -> None:
    with pytest.raises(DataError, match="1 NaN"):
        function(values.mask((np.arange(300)[:, None] == 4) & (np.arange(10) == 2)))
    with pytest.raises(DataError, match="'g0'"):
        function(pd.concat([values, values[["g0"]]], axis=1))
    with pytest.raises(DataError, match="not numbers"):
        function(values.astype(str) + "x")
    with pytest.raises(DataError, match="shape"):
        function(np.zeros(5))
    with pytest.raises(DataError, match="2 cells"):
        function(values.iloc[:2])


def test_a_network_of_two_genes_is_refused(values: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="2 genes"):
        infer_network(values[["g0", "g1"]])
