"""Clusters against labels: scikit-learn and brute force as oracles, ends, chance level; Leiden on planted groups."""

from __future__ import annotations

import random
from itertools import permutations

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.spatial.distance import cdist

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import (
    adjusted_mutual_information,
    adjusted_rand_index,
    clustering_accuracy,
    kmeans_clusters,
    label_purity,
    leiden_clusters,
    leiden_sweep,
    normalized_mutual_information,
)

AGREEMENT = [
    (adjusted_rand_index, sk.adjusted_rand_score),
    (normalized_mutual_information, sk.normalized_mutual_info_score),
    (adjusted_mutual_information, sk.adjusted_mutual_info_score),
]


@pytest.fixture
def partitions(rng):
    labels = rng.choice(["x", "y", "z"], 300)
    return labels, np.where(rng.random(300) < 0.7, labels, rng.choice(["p", "q"], 300))


@pytest.mark.parametrize(("ours", "theirs"), AGREEMENT)
def test_agreement_is_that_of_scikit_learn_and_has_its_ends(partitions, rng, ours, theirs):
    labels, clusters = partitions
    assert ours(labels, clusters) == pytest.approx(theirs(labels, clusters))
    assert ours(labels, clusters) == pytest.approx(ours(clusters, labels))
    assert ours(labels, np.char.add("n", labels)) == pytest.approx(1)
    order = rng.permutation(300)
    assert ours(labels[order], clusters[order]) == pytest.approx(ours(labels, clusters))
    assert abs(ours(labels, rng.integers(3, size=300))) < 0.03


@pytest.mark.parametrize("n_clusters", [2, 4, 5])
def test_clustering_accuracy_is_the_best_of_all_matchings(rng, n_clusters):
    labels, clusters = rng.choice(["10", "20", "70", "75"], 60), rng.integers(n_clusters, size=60) * 3
    names, found = np.unique(labels), np.unique(clusters)
    table = np.array([[np.sum((labels == a) & (clusters == b)) for b in found] for a in names])
    wide = table if table.shape[0] <= table.shape[1] else table.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(wide.shape[1]), len(wide))
    )
    assert clustering_accuracy(labels, clusters) == pytest.approx(best / 60)


def test_clustering_accuracy_ends():
    assert clustering_accuracy(["a", "b", "b"], [7, 3, 3]) == 1.0
    assert clustering_accuracy(["a", "a", "a", "a"], [0, 1, 2, 3]) == 0.25


def test_label_purity_by_loops(planted, rng):
    distances = cdist(planted.x, planted.x)
    np.fill_diagonal(distances, np.inf)
    near = planted.labels[distances.argsort(1)[:, :30]]
    assert label_purity(planted.x, planted.labels) == pytest.approx((near == planted.labels[:, None]).mean())
    shuffled = rng.permutation(planted.labels)
    shares = np.unique(shuffled, return_counts=True)[1] / 400
    assert label_purity(planted.x, shuffled) == pytest.approx((shares**2).sum(), abs=0.03)
    with pytest.raises(DataError, match="labels holds only 'a'"):
        label_purity(planted.x, np.full(400, "a"))


def test_kmeans_finds_planted_groups_and_repeats_itself(rng):
    truth = np.repeat([0, 1, 2], 40)
    x = rng.normal(size=(120, 2)) + 30 * truth[:, None]
    assert clustering_accuracy(truth, kmeans_clusters(x, 3)) == 1.0
    noise = rng.normal(size=(200, 5))
    np.testing.assert_array_equal(kmeans_clusters(noise, 6, seed=3), kmeans_clusters(noise, 6, seed=3))
    with pytest.raises(SettingError, match="n_clusters=201 is not possible with 200 cells"):
        kmeans_clusters(noise, 201)


def test_leiden_finds_planted_groups_and_leaves_the_global_generators_alone(rng):
    pytest.importorskip("igraph")
    truth = np.repeat(["a", "b", "c"], 40)
    x = rng.normal(size=(120, 2)) + 30 * (truth == "b")[:, None] + 60 * (truth == "c")[:, None]
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    table = leiden_sweep(x, truth, [0.1, 3.0])
    assert table["n_clusters"].iloc[0] == 3 < table["n_clusters"].iloc[1]
    assert table.loc[0, ["ari", "nmi", "ami"]].to_numpy(float) == pytest.approx(1)
    assert table["ari"].iloc[1] < 1
    again = leiden_clusters(x, [0.1, 3.0])
    assert again.equals(leiden_clusters(x, [0.1, 3.0]))
    assert again.shape == (120, 2)
    assert random.getstate() == python_state
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_leiden_errors(monkeypatch):
    x = np.zeros((20, 2))
    with pytest.raises(SettingError, match="all positive"):
        leiden_clusters(x, [0.0])
    with pytest.raises(SettingError, match="k=20"):
        leiden_clusters(x, k=20)
    monkeypatch.setattr("lucidcell.metrics.clustering.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'lucidcell\[leiden\]'"):
        leiden_clusters(x)


def test_partitions_must_fit():
    with pytest.raises(DataError, match="clusters has 2 entries for 3 cells"):
        adjusted_rand_index(["a", "b", "c"], [0, 1])
