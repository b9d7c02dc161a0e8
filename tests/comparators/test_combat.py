"""ComBat takes batch means and variances away, and leaves genes alone that a batch does not vary in."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from lucidcell import comparators
from lucidcell.comparators.expression import log_normalize
from lucidcell.errors import DataError


def test_batch_means_nearly_vanish(counts):
    def gap(x: np.ndarray) -> float:
        means = [x[counts.batch == name].mean(0) for name in ("first", "second")]
        return float(np.linalg.norm(means[0] - means[1]) / x.std())

    before, after = (f(counts) for f in (lambda c: comparators.pca(c.x, n_components=5), adjusted))
    assert gap(after) < 0.1 * gap(before)


def adjusted(counts) -> np.ndarray:
    return comparators.combat(counts.x, counts.batch, n_components=5)


def test_genes_without_variance_in_a_batch_do_no_harm(counts):
    silent = counts.x.toarray()
    silent[counts.batch == "first", 3] = 0
    silent[:, 4] = 0
    assert np.isfinite(comparators.combat(silent, counts.batch, n_components=5)).all()
    x = log_normalize(silent).toarray()
    assert x[:, 4].std() == 0 < x[counts.batch == "second", 3].std()


def test_errors(counts):
    with pytest.raises(DataError, match="batch 'alone' holds a single cell"):
        comparators.combat(counts.x, ["alone", *counts.batch[1:]])
    with pytest.raises(DataError, match="none of the 2 genes varies in every batch"):
        comparators.combat(sp.csr_matrix(np.ones((4, 2))), ["a", "a", "b", "b"])
