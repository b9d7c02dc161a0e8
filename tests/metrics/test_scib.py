"""LISI, silhouettes and connectivity: sums written out, networkx, ends; scib-metrics itself among the oracle tests."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn.neighbors import kneighbors_graph

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import (
    clisi,
    graph_connectivity,
    ilisi,
    lisi,
    nearest_neighbors,
    silhouette_batch,
    silhouette_label,
)


def lisi_of_one_cell(distances: np.ndarray, names: np.ndarray, perplexity: float) -> float:
    """Solve for beta with scipy, and add the squared shares up."""

    def weights(log_beta: float) -> np.ndarray:
        raw = np.exp(-np.exp(log_beta) * (distances - distances.min()))
        return raw / raw.sum()

    solution = brentq(lambda log_beta: np.exp(entropy(weights(log_beta))) - perplexity, -20, 20, xtol=1e-12)
    shares = [weights(solution)[names == name].sum() for name in np.unique(names)]
    return 1 / sum(share**2 for share in shares)


def test_lisi_is_that_of_a_root_finder(planted):
    near = nearest_neighbors(planted.x, 40)
    wanted = [
        lisi_of_one_cell(distances, planted.labels[indices], 12)
        for distances, indices in zip(near.distances, near.indices, strict=True)
    ]
    np.testing.assert_allclose(lisi(near, planted.labels, k=40, perplexity=12), wanted, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_lisi_does_not_depend_on_the_unit(planted, scale):
    whole = lisi(planted.x, planted.labels)
    np.testing.assert_allclose(lisi(scale * planted.x, planted.labels), whole, rtol=1e-6)


def test_lisi_counts_groups(rng):
    x = rng.normal(size=(2000, 2))
    three = rng.choice(["a", "b", "c"], 2000)
    # with w the weights, the expected Simpson index is sum p^2 + (1 - sum p^2) sum w^2, and sum w^2 is near 1 / 30
    expected = 1 / (1 / 3 + 2 / 3 / 30)
    assert np.median(lisi(x, three)) == pytest.approx(expected, rel=0.03)
    assert ilisi(x, three) == pytest.approx((expected - 1) / 2, abs=0.04)
    assert clisi(x, three) == pytest.approx((3 - expected) / 2, abs=0.04)
    apart = x + 100 * (three == "a")[:, None] + 300 * (three == "b")[:, None]
    assert (ilisi(apart, three), clisi(apart, three)) == pytest.approx((0, 1), abs=1e-9)
    assert (ilisi(apart, three, scale=False), clisi(apart, three, scale=False)) == pytest.approx((1, 1))


def test_lisi_of_coinciding_cells_is_finite():
    values = lisi(np.zeros((100, 2)), np.tile(["a", "b"], 50))
    np.testing.assert_allclose(values, 2, rtol=2e-3)  # 45 neighbours of each, or 44 and 46


def test_lisi_errors(planted):
    with pytest.raises(SettingError, match="perplexity=50 is not possible with k=40"):
        lisi(planted.x, planted.labels, k=40, perplexity=50)
    with pytest.raises(DataError, match="batch holds only 'a'"):
        ilisi(planted.x, np.full(400, "a"))


def silhouettes_by_loops(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    distances, names = cdist(x, x), np.unique(groups)
    found = []
    for i, own in enumerate(groups):
        mean = {name: distances[i, (groups == name) & (np.arange(len(x)) != i)] for name in names}
        if not len(mean[own]):
            found.append(0.0)
            continue
        inside = mean[own].mean()
        outside = min(values.mean() for name, values in mean.items() if name != own)
        found.append((outside - inside) / max(inside, outside))
    return np.array(found)


def test_silhouettes_are_sums_over_all_distances(planted):
    wanted = silhouettes_by_loops(planted.x, planted.labels)
    assert silhouette_label(planted.x, planted.labels) == pytest.approx((wanted.mean() + 1) / 2)
    by_type = []
    for name in np.unique(planted.labels):
        rows = planted.labels == name
        by_type.append(1 - np.abs(silhouettes_by_loops(planted.x[rows], planted.batch[rows])).mean())
    assert silhouette_batch(planted.x, planted.labels, planted.batch) == pytest.approx(np.mean(by_type))


def test_silhouette_ends(rng):
    labels = np.repeat(["a", "b"], 50)
    x = rng.normal(size=(100, 2)) + 1e4 * (labels == "a")[:, None]
    assert silhouette_label(x, labels) == pytest.approx(1, abs=1e-3)
    assert silhouette_batch(x, np.full(100, "all"), labels) == pytest.approx(0, abs=1e-3)
    x, labels = rng.normal(size=(2000, 2)), rng.choice(["a", "b"], 2000)
    assert silhouette_label(x, labels) == pytest.approx(0.5, abs=0.01)
    assert silhouette_batch(x, np.full(2000, "all"), labels) > 0.95


def test_types_of_one_batch_are_left_out_of_the_batch_silhouette(planted):
    labels = np.where(planted.batch == "one", "only here", planted.labels)
    rest = planted.batch != "one"
    value = silhouette_batch(planted.x, labels, planted.batch)
    assert value == pytest.approx(silhouette_batch(planted.x[rest], labels[rest], planted.batch[rest]))
    with pytest.raises(DataError, match="none of 3 cell types has cells of two batches"):
        silhouette_batch(planted.x, planted.batch, planted.batch)


def test_silhouette_label_needs_types_of_several_cells(planted):
    with pytest.raises(DataError, match="holds only 'a'"):
        silhouette_label(planted.x, np.full(400, "a"))
    with pytest.raises(DataError, match="each of the 400 cells has a label of its own"):
        silhouette_label(planted.x, np.arange(400))


def test_connectivity_is_that_of_networkx(planted):
    shuffled = np.random.default_rng(1).permutation(planted.labels)
    graph = nx.from_scipy_sparse_array(kneighbors_graph(planted.x, 3, include_self=False))  # undirected
    shares = []
    for name in np.unique(shuffled):
        part = graph.subgraph(np.flatnonzero(shuffled == name))
        shares.append(max(map(len, nx.connected_components(part))) / len(part))
    value = graph_connectivity(planted.x, shuffled, k=3)
    assert value == pytest.approx(np.mean(shares))
    assert value < 0.9


def test_connectivity_by_hand():
    """Type a lies in two places with two cells each, type b in one place."""
    x = np.array([0.0, 1, 100, 101, 50, 51])[:, None]
    assert graph_connectivity(x, ["a", "a", "a", "a", "b", "b"], k=1) == pytest.approx((0.5 + 1) / 2)


def test_names_and_order_do_not_matter(planted, rng):
    order = rng.permutation(400)
    labels, batch = np.char.add("x", planted.labels), np.char.add("x", planted.batch)
    for metric, groups in ((clisi, labels), (ilisi, batch), (graph_connectivity, labels), (silhouette_label, labels)):
        moved = metric(planted.x[order], groups[order])
        assert moved == pytest.approx(metric(planted.x, groups), abs=1e-9)
    moved = silhouette_batch(planted.x[order], labels[order], batch[order])
    assert moved == pytest.approx(silhouette_batch(planted.x, planted.labels, planted.batch), abs=1e-9)
