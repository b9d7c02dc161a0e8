"""Normalisation is scanpy's, components are those of a singular value decomposition, and bad counts are refused."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from lucidcell.comparators.expression import log_normalize, principal_components
from lucidcell.errors import DataError, SettingError


def test_normalisation_is_that_of_scanpy(counts):
    cells = ad.AnnData(counts.x.copy())
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    np.testing.assert_allclose(log_normalize(counts.x).toarray(), cells.X.toarray(), rtol=1e-5)


@pytest.mark.parametrize(
    "layout", [sp.csc_matrix, sp.csr_array, sp.csr_matrix.toarray, np.int64], ids=["csc", "csr array", "dense", "int64"]
)
def test_every_layout_gives_the_same(counts, layout):
    given = counts.x.astype(np.int64) if layout is np.int64 else layout(counts.x)
    np.testing.assert_array_equal(log_normalize(given).toarray(), log_normalize(counts.x).toarray())


def test_empty_cells_stay_zero():
    assert log_normalize(np.array([[0, 0], [1, 3]])).toarray()[0].tolist() == [0, 0]


@pytest.mark.parametrize("dense", [True, False])
def test_components_are_those_of_a_singular_value_decomposition(counts, dense):
    x = log_normalize(counts.x)
    centred = x.toarray() - x.toarray().mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    found = principal_components(x.toarray() if dense else x, 5, seed=0)
    np.testing.assert_allclose(np.abs(found), np.abs(left * values)[:, :5], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.array([[1.5, 0], [0, 1]]), "non-integer.*need raw counts"),
        (np.array([[-1, 0], [0, 1]]), "negative"),
        (np.array([[np.nan, 0], [0, 1]]), "NaN"),
        (np.zeros(3), "have 1 dimensions"),
    ],
)
def test_bad_counts(bad, message):
    with pytest.raises(DataError, match=message):
        log_normalize(bad)


def test_too_many_components(counts):
    with pytest.raises(SettingError, match="n_components=60 with 300 cells and 60 genes is not possible"):
        principal_components(log_normalize(counts.x), 60, 0)
