"""Canonical vectors against a dense singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from lucidcell import comparators
from lucidcell.comparators.expression import log_normalize
from lucidcell.errors import DataError


def test_vectors_are_those_of_the_cells_by_cells_matrix(counts):
    standardised = []
    for name in ("first", "second"):
        x = log_normalize(counts.x).toarray()[counts.batch == name]
        genes = np.clip((x - x.mean(0)) / x.std(0), -10, 10)
        standardised.append((genes - genes.mean(1, keepdims=True)) / genes.std(1, keepdims=True))
    left, values, right = np.linalg.svd(standardised[0] @ standardised[1].T)
    found = comparators.cca(counts.x, counts.batch, n_components=3)
    for name, vectors in (("first", left), ("second", right.T)):
        wanted = vectors[:, :3] - vectors[:, :3].mean(0)
        wanted *= np.sqrt(values[:3] / values[0]) / wanted.std(0)
        np.testing.assert_allclose(np.abs(found[counts.batch == name]), np.abs(wanted), rtol=1e-4, atol=1e-4)
    spread = [found[counts.batch == name].std(0) for name in ("first", "second")]
    np.testing.assert_allclose(spread[0], spread[1])
    assert spread[0][0] == pytest.approx(1)


def test_both_data_sets_have_the_same_sign(counts):
    found = comparators.cca(counts.x, counts.batch, n_components=2)
    means = [
        np.stack([found[(counts.batch == name) & (counts.labels == label)].mean(0) for label in "abc"])
        for name in ("first", "second")
    ]
    assert np.corrcoef(means[0].ravel(), means[1].ravel())[0, 1] > 0.9


def test_three_batches_are_refused(counts):
    with pytest.raises(DataError, match="batch holds 3 names, and CCA aligns two data sets"):
        comparators.cca(counts.x, ["third", *counts.batch[1:]])
