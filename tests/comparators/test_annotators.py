"""Labels carried from one batch to another: scikit-learn, scipy and hand values as oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.stats import pearsonr, spearmanr
from sklearn.neighbors import KNeighborsClassifier

from lucidcell import comparators, metrics
from lucidcell.comparators.coral import power
from lucidcell.comparators.expression import log_normalize
from lucidcell.comparators.scmap import _cosine, _pearson, _spearman, dropout_genes
from lucidcell.errors import DataError, SettingError

ANNOTATORS = ["pca_knn", "coral", "scmap_cluster"]


@pytest.fixture
def halves(counts):
    train = counts.batch == "first"
    rows = np.flatnonzero(train), np.flatnonzero(~train)
    return counts.x[rows[0]], counts.labels[train], counts.x[rows[1]], counts.labels[~train]


@pytest.mark.parametrize("name", ANNOTATORS)
def test_planted_types_are_found_across_batches(halves, name):
    train, labels, test, truth = halves
    settings = {"n_components": 5} if name == "pca_knn" else {}
    found = getattr(comparators, name)(train, labels, test, **settings)
    assert metrics.weighted_accuracy(truth, found.labels) > 0.9
    if found.probabilities is not None:
        assert list(found.probabilities.columns) == ["a", "b", "c"]
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
        assert (found.probabilities.idxmax(axis=1).to_numpy() == found.labels).all()


@pytest.mark.parametrize("name", ANNOTATORS)
def test_other_genes_are_refused(halves, name):
    with pytest.raises(DataError, match="train_counts have 60 genes and test_counts 59"):
        getattr(comparators, name)(halves[0], halves[1], halves[2][:, :-1])
    settings = {"n_components": 5} if name == "pca_knn" else {}
    with pytest.raises(DataError, match="train_labels has 179 entries for 180 cells"):
        getattr(comparators, name)(halves[0], halves[1][:-1], halves[2], **settings)


def test_knn_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(200, 3)), rng.normal(size=(50, 3)), rng.choice(["u", "v", "w"], 200)
    found = comparators.knn(train, labels, test)
    theirs = KNeighborsClassifier(15).fit(train, labels)
    np.testing.assert_allclose(found.probabilities, theirs.predict_proba(test))
    assert (found.labels == theirs.predict(test)).all()
    assert comparators.knn(train, labels, test[:1]).labels.tolist() == found.labels[:1].tolist()
    with pytest.raises(SettingError, match="k=201"):
        comparators.knn(train, labels, test, k=201)
    with pytest.raises(DataError, match="train_x has 3 columns and test_x 2"):
        comparators.knn(train, labels, test[:, :2])


@pytest.mark.parametrize("exponent", [-0.5, 0.5])
def test_powers_are_those_of_scipy(exponent):
    x = np.random.default_rng(0).normal(size=(30, 6))
    covariance = np.cov(x, rowvar=False)
    wanted = fractional_matrix_power(covariance + np.eye(6), exponent)
    np.testing.assert_allclose(power(covariance, exponent), wanted, rtol=1e-8, atol=1e-10)


def test_coral_gives_training_cells_the_covariance_of_the_others():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4))
    regular = [np.cov(values, rowvar=False) + np.eye(4) for values in (x, y)]
    change = power(np.cov(x, rowvar=False), -0.5) @ power(np.cov(y, rowvar=False), 0.5)
    np.testing.assert_allclose(change.T @ regular[0] @ change, regular[1], rtol=1e-8, atol=1e-8)


def test_similarities_are_those_of_scipy(halves):
    y, profiles = (log_normalize(half).toarray() for half in (halves[2][:6], halves[0][:4]))
    for i, cell in enumerate(y):
        for j, profile in enumerate(profiles):
            cosine = cell @ profile / np.linalg.norm(cell) / np.linalg.norm(profile)
            assert _cosine(y, profiles)[i, j] == pytest.approx(cosine)
            assert _pearson(y, profiles)[i, j] == pytest.approx(pearsonr(cell, profile)[0])
            assert _spearman(y, profiles)[i, j] == pytest.approx(spearmanr(cell, profile)[0])


def test_genes_are_those_with_more_zeros_than_their_mean_explains():
    """Zeros in half the cells at a high mean stand out from a line through the others."""
    rng = np.random.default_rng(0)
    x = rng.poisson(np.linspace(0.2, 4, 20), (2000, 20)).astype(float)
    x[:, 7] = 30 * (rng.random(2000) < 0.5)
    x[:, 3] = 0  # never seen
    x[:, 4] = 9  # in every cell
    assert dropout_genes(np.log2(x + 1), 1).tolist() == [7]
    assert not {3, 4} & set(dropout_genes(np.log2(x + 1), 20).tolist())
    with pytest.raises(DataError, match="0 of 3 genes have both zeros and counts"):
        dropout_genes(np.ones((5, 3)), 2)


def test_scmap_declines_what_is_like_nothing(halves):
    train, labels, test, _ = halves
    assert metrics.unassigned_rate(comparators.scmap_cluster(train, labels, test, threshold=0).labels) < 0.05
    everything = comparators.scmap_cluster(train, labels, test, threshold=1.0)
    assert metrics.unassigned_rate(everything.labels) == 1.0
    with pytest.raises(SettingError, match="n_genes=0"):
        comparators.scmap_cluster(train, labels, test, n_genes=0)
