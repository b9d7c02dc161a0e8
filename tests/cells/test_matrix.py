from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from same_cells import assert_same_cells

from lucidcell.cells import matrix as matrix_module
from lucidcell.cells.cells import Cells
from lucidcell.cells.matrix import read_rows, sparse_fault
from lucidcell.errors import DataError

LAYOUTS = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "dense C": np.ascontiguousarray,
    "dense F": np.asfortranarray,
}


def assert_same(first: Cells, second: Cells) -> None:
    assert_same_cells(first, second)
    assert first.schema == second.schema
    assert first.record == second.record


@pytest.fixture
def expected(adata: ad.AnnData) -> Cells:
    return Cells.from_anndata(adata, batch_key="donor", labels_key="cell_type", continuous_covariate_keys=["age"])


def read(adata: ad.AnnData) -> Cells:
    return Cells.from_anndata(adata, batch_key="donor", labels_key="cell_type", continuous_covariate_keys=["age"])


def test_the_standard_layout_holds_the_counts(expected: Cells, counts: np.ndarray) -> None:
    back = sp.csr_matrix((expected.counts.values, expected.counts.indices, expected.counts.indptr), shape=counts.shape)
    np.testing.assert_array_equal(back.toarray(), counts)
    assert tuple(array.dtype for array in expected.counts[:3]) == (np.int64, np.int32, np.float32)
    assert back.has_canonical_format
    assert expected.counts.values.all()
    np.testing.assert_array_equal(expected.library, counts.sum(1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_type_gives_the_same_bits(
    adata: ad.AnnData, counts: np.ndarray, expected: Cells, layout: str, dtype: type
) -> None:
    values = counts.astype(dtype)
    # scipy has no half-precision sparse product, but anndata holds such matrices
    stored = LAYOUTS[layout](values if dtype != np.float16 else values.astype(np.float32))
    if dtype == np.float16:
        stored = stored.astype(np.float16) if isinstance(stored, np.ndarray) else _half(stored)
    adata.X = stored
    assert_same(read(adata), expected)


def _half(stored: sp.csr_matrix) -> sp.csr_matrix:
    stored.data = stored.data.astype(np.float16)
    return stored


@pytest.mark.parametrize("layout", LAYOUTS)
def test_booleans_are_counts_of_one(adata: ad.AnnData, counts: np.ndarray, layout: str) -> None:
    adata.X = LAYOUTS[layout](counts > 0)
    got = read(adata)
    np.testing.assert_array_equal(got.library, (counts > 0).sum(1))
    assert set(got.counts.values) == {1.0}


def test_small_blocks_give_the_same_bits(
    adata: ad.AnnData, counts: np.ndarray, expected: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "BLOCK_ENTRIES", 50)
    assert_same(read(adata), expected)
    adata.X = counts.astype(np.int32)
    assert_same(read(adata), expected)


def test_a_view_is_read_like_its_copy(adata: ad.AnnData) -> None:
    view = adata[5:31, ::2]
    assert view.is_view
    assert_same(read(view), read(view.copy()))
    assert view.is_view


def test_unsorted_columns_duplicates_and_zeros_are_put_in_order(adata: ad.AnnData, expected: Cells) -> None:
    given = adata.X
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(given.shape[0]), np.diff(given.indptr))
    halves = np.floor(given.data / 2)
    order = rng.permutation(2 * given.nnz)
    order = order[np.argsort(np.tile(rows, 2)[order], kind="stable")]
    data = np.concatenate([halves, given.data - halves])[order].astype(np.float32)
    messy = sp.csr_matrix((data, np.tile(given.indices, 2)[order], 2 * given.indptr), shape=given.shape)
    assert (messy.data == 0).any()
    assert not messy.has_sorted_indices
    adata.X = messy
    assert_same(read(adata), expected)
    np.testing.assert_array_equal(adata.X.data, data)  # the user's matrix stays as messy as it was


@pytest.mark.parametrize("layout", ["csr", "csc", "dense C"])
def test_backed_files_are_read_in_place(adata: ad.AnnData, expected: Cells, layout: str, tmp_path: Path) -> None:
    adata.X = LAYOUTS[layout](adata.X.toarray())
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    got = Cells.from_anndata(backed, batch_key="donor", labels_key="cell_type", continuous_covariate_keys=["age"])
    assert_same(got, expected)
    assert backed.isbacked
    assert_same(read(backed[3:20]), read(adata[3:20]))
    backed.file.close()


@pytest.mark.parametrize("sparse", [True, False])
def test_dask_arrays_are_read_block_by_block(
    adata: ad.AnnData, counts: np.ndarray, expected: Cells, sparse: bool
) -> None:
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    for chunks in ((10, 23), (37, 7), (10, 7)):
        blocks = da.from_array(counts.astype(np.float32), chunks=chunks)
        adata.X = blocks.map_blocks(sp.csr_matrix) if sparse else blocks
        assert_same(read(adata), expected)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense C"])
def test_lazy_data_are_read_like_those_in_memory(
    adata: ad.AnnData, expected: Cells, layout: str, tmp_path: Path
) -> None:
    pytest.importorskip("dask.array", reason="dask is not installed")
    pytest.importorskip("xarray", reason="xarray is not installed")
    adata.X = LAYOUTS[layout](adata.X.toarray())
    adata.write_h5ad(tmp_path / "a.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "a.h5ad")
    assert_same(read(lazy), expected)
    lazy.file.close()


def test_columns_are_moved_and_left_out_as_told(counts: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    target = np.full(23, -1)
    kept = rng.permutation(23)[:9]
    places = rng.permutation(12)[:9]
    target[kept] = places
    expected = np.zeros((37, 12))
    expected[:, places] = counts[:, kept]
    got = read_rows(sp.csr_matrix(counts), "X", columns=target, n_columns=12).to_scipy()
    assert got.has_sorted_indices
    np.testing.assert_array_equal(got.toarray(), expected)


def malformed(fault: str) -> sp.csr_matrix:
    good = sp.csr_matrix(np.eye(6, 5, dtype=np.float32) + np.eye(6, 5, 1, dtype=np.float32))
    if fault == "index too large":
        good.indices[3] = 5
    elif fault == "index huge":
        good.indices[3] = 2_000_000_000
    elif fault == "index negative":
        good.indices[3] = -7
    elif fault == "pointers fall":
        good.indptr[2] = 8
    elif fault == "pointers too long":
        good.indptr[-1] += 40
    elif fault == "pointers short":
        good.indptr[-1] -= 1
    elif fault == "too few pointers":
        good.indptr = good.indptr[:-1]
    elif fault == "too few values":
        good.data = good.data[:-2]
    elif fault == "float indices":
        good.indices = good.indices.astype(np.float64)
    return good


FAULTS = [
    "index too large",
    "index huge",
    "index negative",
    "pointers fall",
    "pointers too long",
    "pointers short",
    "too few pointers",
    "too few values",
    "float indices",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_matrices_are_refused_before_anything_is_computed(fault: str) -> None:
    matrix = malformed(fault)
    assert sparse_fault(matrix)
    transposed = sp.csc_matrix((5, 6))  # the same arrays as columns
    transposed.data, transposed.indices, transposed.indptr = matrix.data, matrix.indices, matrix.indptr
    assert sparse_fault(transposed)
    with pytest.raises(DataError, match="malformed sparse matrix"):
        read_rows(matrix, "X")


def test_wellformed_matrices_are_accepted() -> None:
    assert sparse_fault(malformed("none")) is None
    assert sparse_fault(malformed("none").tocsc()) is None
    assert sparse_fault(sp.csr_matrix((0, 3))) is None


def test_matrices_that_are_not_numbers_are_refused(adata: ad.AnnData) -> None:
    adata.layers["words"] = np.full(adata.shape, "a", dtype=object)
    with pytest.raises(DataError, match=r"layer 'words' has type object, not numbers"):
        Cells.from_anndata(adata, layer="words")


def test_row_sums_equal_numpy(counts: np.ndarray) -> None:
    counts[[0, 4, 5, 36]] = 0
    rows = read_rows(sp.csr_matrix(counts * 0.1), "X")
    np.testing.assert_allclose(rows.sums(), (counts * 0.1).sum(1), rtol=1e-6)
    np.testing.assert_array_equal(read_rows(sp.csr_matrix((3, 2)), "X").sums(), [0, 0, 0])
