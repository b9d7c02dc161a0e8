"""kNN purity: graphs of scikit-learn as oracle, hand values, ends, chance level."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import kneighbors_graph

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import knn_purity, purity_curve, purity_per_cell
from lucidcell.metrics.purity import shared_neighbors


def purity_by_graphs(before: np.ndarray, after: np.ndarray, k: int) -> np.ndarray:
    first, second = (kneighbors_graph(x, k, include_self=False).toarray() for x in (before, after))
    return np.minimum(first, second).sum(1) / np.maximum(first, second).sum(1)


@pytest.mark.parametrize("k", [1, 10, 30])
def test_it_is_the_jaccard_index_of_the_graphs_of_each_batch(planted, rng, k):
    after = planted.x[:, :3] + 0.5 * rng.normal(size=(400, 3))
    means = []
    cells = purity_per_cell(planted.x, after, planted.batch, k=k)
    for name in np.unique(planted.batch):
        rows = planted.batch == name
        wanted = purity_by_graphs(planted.x[rows], after[rows], k)
        np.testing.assert_allclose(cells[rows], wanted)
        means.append(wanted.mean())
    assert knn_purity(planted.x, after, planted.batch, k=k) == pytest.approx(np.mean(means))
    assert knn_purity(planted.x, after, k=k) == pytest.approx(purity_by_graphs(planted.x, after, k).mean())


def test_shared_neighbours_by_hand():
    first = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    second = np.array([[2, 1, 9, 3], [8, 7, 6, 5]])
    assert shared_neighbors(first, second, [1, 2, 3, 4]).tolist() == [[0, 2, 2, 3], [0, 0, 2, 4]]


def test_ends_and_chance_level(planted, rng):
    assert knn_purity(planted.x, 3 * planted.x - 1, planted.batch) == 1.0
    assert knn_purity(planted.x, planted.x[:, ::-1], planted.batch) == 1.0
    unrelated = knn_purity(planted.x, rng.normal(size=(400, 5)), k=40)
    expected = 40 / 399  # share of common neighbours by chance: p; Jaccard p / (2 - p)
    assert unrelated == pytest.approx(expected / (2 - expected), rel=0.1)


def test_batches_may_lie_in_different_spaces(planted):
    """Each batch turned and moved on its own keeps its own neighbours."""
    turned = planted.x.copy()
    for i, name in enumerate(np.unique(planted.batch)):
        turned[planted.batch == name] = np.roll(planted.x[planted.batch == name], i, axis=1) * (1 + i) + 100 * i
    assert knn_purity(turned, planted.x, planted.batch) == 1.0


def test_names_and_order_do_not_matter(planted, rng):
    after = planted.x + 0.3 * rng.normal(size=planted.x.shape)
    order = rng.permutation(400)
    renamed = np.char.add("x", planted.batch)
    moved = knn_purity(planted.x[order], after[order], renamed[order])
    assert moved == pytest.approx(knn_purity(planted.x, after, planted.batch), abs=1e-12)


def test_the_curve_is_the_single_values(planted, rng, monkeypatch):
    after = planted.x + 0.3 * rng.normal(size=planted.x.shape)
    ks = [1, 5, 17, 40]
    single = [knn_purity(planted.x, after, planted.batch, k=k) for k in ks]
    monkeypatch.setattr("lucidcell.metrics.purity._BLOCK_ENTRIES", 500)
    curve = purity_curve(planted.x, after, planted.batch, ks)
    assert curve["k"].tolist() == ks
    np.testing.assert_allclose(curve["purity"], single, atol=1e-12)
    smallest = np.unique(planted.batch, return_counts=True)[1].min()
    assert purity_curve(planted.x, after, planted.batch)["k"].iloc[-1] == (smallest - 1) // 10 * 10


def test_errors(planted):
    with pytest.raises(DataError, match="after has 399 rows for 400 cells"):
        knn_purity(planted.x, planted.x[:-1])
    with pytest.raises(DataError, match="before holds 1 NaN"):
        knn_purity(np.r_[[[np.nan, 0.0]], np.zeros((399, 2))], planted.x)
    with pytest.raises(SettingError, match="k can be 1 to"):
        knn_purity(planted.x, planted.x, planted.batch, k=300)
    with pytest.raises(SettingError, match="k=300 neighbours are not possible with .* cells of batch 'one'"):
        purity_per_cell(planted.x, planted.x, planted.batch, k=300)
