"""Mixing and conservation: hand values, ends, chance level, and the paper's own way of sampling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import (
    batch_mixing_per_cell,
    entropy_of_batch_mixing,
    kmeans_conservation,
    mixing_curve,
    nearest_neighbors,
)


def mixing_by_loops(x: np.ndarray, batch: np.ndarray, k: int, *, balance: bool) -> np.ndarray:
    """Entropy of each cell's neighbourhood with scipy, one cell at a time."""
    found = []
    names, sizes = np.unique(batch, return_counts=True)
    for row, distances in enumerate(cdist(x, x)):
        distances[row] = np.inf
        near = batch[distances.argsort()[:k]]
        counts = np.array([(near == name).sum() for name in names], float)
        found.append(entropy(counts / sizes if balance else counts))
    return np.array(found)


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_each_cell_has_the_entropy_that_scipy_finds(planted, k, balance):
    wanted = mixing_by_loops(planted.x, planted.batch, k, balance=balance)
    found = batch_mixing_per_cell(planted.x, planted.batch, k=k, balance=balance)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert entropy_of_batch_mixing(planted.x, planted.batch, k=k, balance=balance) == pytest.approx(wanted.mean())


def test_hand_value():
    """Four cells on a line, batches a a b b, two neighbours each: a: {a, b}, {a, b}; b: {a, b}, {a, b}."""
    x = np.array([[0.0], [1.0], [2.1], [3.2]])
    assert entropy_of_batch_mixing(x, ["a", "a", "b", "b"], k=2) == pytest.approx(np.log(2))
    assert entropy_of_batch_mixing(x, ["a", "a", "b", "b"], k=1) == 0.0


def test_separated_batches_do_not_mix_and_interleaved_ones_mix_fully():
    apart = np.r_[np.arange(60.0), 1000 + np.arange(60.0)][:, None]
    batch = np.repeat(["a", "b"], 60)
    assert entropy_of_batch_mixing(apart, batch, k=50) == 0.0
    # on a line, each cell has 24 to 26 neighbours of either batch
    line = np.arange(400.0)[:, None]
    mixed = entropy_of_batch_mixing(line, np.tile(["a", "b"], 200), k=50, normalize=True)
    assert entropy([24, 26]) / np.log(2) - 1e-12 <= mixed <= 1.0


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1], [0.6, 0.3, 0.1]])
def test_random_batches_reach_the_maximum_only_when_balanced(rng, shares):
    """At large k; unbalanced, the limit is the entropy of the batch sizes."""
    x, batch = rng.normal(size=(1500, 2)), rng.choice(len(shares), 1500, p=shares)
    balanced = entropy_of_batch_mixing(x, batch, k=400)
    plain = entropy_of_batch_mixing(x, batch, k=400, balance=False)
    assert balanced == pytest.approx(np.log(len(shares)), rel=0.02)
    assert plain == pytest.approx(entropy(np.bincount(batch)), rel=0.02)


def test_names_and_order_do_not_matter(planted, rng):
    order = rng.permutation(len(planted.x))
    renamed = np.array([{"one": "z", "two": "a", "three": "m"}[name] for name in planted.batch])
    whole = entropy_of_batch_mixing(planted.x, planted.batch, k=20)
    assert entropy_of_batch_mixing(planted.x[order], renamed[order], k=20) == pytest.approx(whole, abs=1e-12)


def test_pools_are_seeded_and_scatter_around_the_exact_mean(planted):
    exact = entropy_of_batch_mixing(planted.x, planted.batch)
    pooled = [entropy_of_batch_mixing(planted.x, planted.batch, n_pools=50, seed=seed) for seed in (0, 0, 1)]
    assert pooled[0] == pooled[1] != pooled[2]
    spread = batch_mixing_per_cell(planted.x, planted.batch).std() / np.sqrt(5000)
    assert abs(pooled[0] - exact) < 4 * spread
    with pytest.raises(SettingError, match="n_pools=0"):
        entropy_of_batch_mixing(planted.x, planted.batch, n_pools=0)


def test_the_curve_is_the_single_values_and_takes_one_search(planted, monkeypatch):
    ks = [3, 10, 50]
    single = [entropy_of_batch_mixing(planted.x, planted.batch, k=k, normalize=True) for k in ks]
    curve = mixing_curve(nearest_neighbors(planted.x, 60), planted.batch, ks, normalize=True)
    assert curve["k"].tolist() == ks
    np.testing.assert_allclose(curve["mixing"], single, atol=1e-12)
    assert mixing_curve(planted.x, planted.batch)["k"].iloc[-1] == 350  # the largest below 400 cells
    assert mixing_curve(nearest_neighbors(planted.x, 60), planted.batch)["k"].iloc[-1] == 60


def test_blocks_change_nothing(planted, monkeypatch):
    whole = batch_mixing_per_cell(planted.x, planted.batch)
    monkeypatch.setattr("lucidcell.metrics.harmonization._BLOCK_ENTRIES", 1000)
    np.testing.assert_array_equal(batch_mixing_per_cell(planted.x, planted.batch), whole)


def test_kmeans_conservation_by_hand(planted, rng):
    after = planted.x + rng.normal(size=planted.x.shape)
    found = []
    for name in np.unique(planted.batch):
        rows = planted.batch == name
        clusters = [KMeans(4, n_init=10, random_state=0).fit_predict(x[rows]) for x in (planted.x, after)]
        found.append(adjusted_rand_score(*clusters))
    value = kmeans_conservation(planted.x, after, planted.batch, planted.labels)
    assert value == pytest.approx(np.mean(found))
    assert 0 < value < 1


def test_kmeans_conservation_ends(planted, rng):
    same = kmeans_conservation(planted.x, 2 * planted.x, planted.batch, planted.labels)
    lost = kmeans_conservation(planted.x, rng.normal(size=planted.x.shape), planted.batch, planted.labels)
    assert same == pytest.approx(1)
    assert abs(lost) < 0.05


def test_errors(planted):
    with pytest.raises(DataError, match="batch holds only 'one', and this metric compares at least 2"):
        entropy_of_batch_mixing(planted.x, np.full(400, "one"))
    with pytest.raises(DataError, match="batch has 399 entries for 400 cells"):
        entropy_of_batch_mixing(planted.x, planted.batch[:-1])
    with pytest.raises(DataError, match=r"batch is missing \(NaN\) in 1 of 400 cells"):
        entropy_of_batch_mixing(planted.x, [None, *planted.batch[1:]])
    with pytest.raises(DataError, match="batch has 2 dimensions"):
        entropy_of_batch_mixing(planted.x, planted.batch[:, None])
    with pytest.raises(SettingError, match="k=400"):
        entropy_of_batch_mixing(planted.x, planted.batch, k=400)
    labels = np.where(planted.batch == "two", "a", planted.labels)
    with pytest.raises(DataError, match="batch 'two' holds one cell type only"):
        kmeans_conservation(planted.x, planted.x, planted.batch, labels)
