"""Counts that stay in their files: the same numbers as in memory, whatever the layout, the view and the order."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from anndata._core.sparse_dataset import BaseCompressedSparseDataset

from lucidcell.cells import cells as cells_module
from lucidcell.cells import select as select_module
from lucidcell.cells import stored
from lucidcell.cells.cells import Cells
from lucidcell.cells.matrix import Rows
from lucidcell.cells.read import read_h5ad, read_zarr
from lucidcell.cells.select import select_genes
from lucidcell.errors import DataError, FileError

N, G = 700, 40


@pytest.fixture(autouse=True)
def _no_file_is_small() -> Iterator[None]:
    with patch.object(stored, "IN_MEMORY", 0):
        yield


@pytest.fixture
def data() -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (N, G)).astype(np.float32)
    counts[:, 0] += 1
    adata = ad.AnnData(sp.csr_matrix(counts))
    adata.obs_names = [f"cell{i}" for i in range(N)]
    adata.var_names = [f"g{j}" for j in range(G)]
    adata.obs["donor"] = rng.choice(["a", "b"], N)
    adata.layers["twice"] = sp.csr_matrix(2 * counts)
    adata.obsm["E"] = rng.normal(size=(N, 3)).astype(np.float32)
    return adata


def as_h5ad(adata: ad.AnnData, folder: Path, **options: object) -> ad.AnnData:
    adata.write_h5ad(folder / "a.h5ad", **options)
    return read_h5ad(folder / "a.h5ad", backed="r")


def as_zarr(adata: ad.AnnData, folder: Path) -> ad.AnnData:
    adata.write_zarr(folder / "a.zarr")
    return read_zarr(folder / "a.zarr", backed="r")


def as_sharded_zarr(adata: ad.AnnData, folder: Path) -> ad.AnnData:
    with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=True):
        adata.write_zarr(folder / "a.zarr")
    return read_zarr(folder / "a.zarr", backed="r")


WAYS: dict[str, Callable[[ad.AnnData, Path], ad.AnnData]] = {
    "h5ad": as_h5ad,
    "h5ad, gzip": lambda adata, folder: as_h5ad(adata, folder, compression="gzip"),
    "zarr": as_zarr,
    "sharded zarr": as_sharded_zarr,
}


def in_memory(adata: ad.AnnData | list[ad.AnnData], **options: object) -> Cells:
    with patch.object(stored, "IN_MEMORY", 2**60):
        return Cells.from_anndata(adata, **options)


def assert_same(one: Rows, other: Rows) -> None:
    for a, b in zip(one[:3], other[:3], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def assert_same_cells(of_file: Cells, cells: Cells) -> None:
    """Whatever is asked of them."""
    assert not of_file.in_memory
    assert cells.in_memory
    assert len(of_file) == len(cells)
    rng = np.random.default_rng(1)
    n = len(cells)
    for rows in (
        np.arange(n),
        rng.permutation(n)[: n // 2],
        rng.integers(0, n, n),
        np.array([n - 1]),
        np.zeros(0, int),
    ):
        assert_same(of_file.counts.take(rows), cells.counts.take(rows))
        assert_same(of_file.select(rows).counts.take(np.arange(len(rows))), cells.select(rows).counts)
        np.testing.assert_array_equal(of_file.select(rows).counts.sums(), cells.select(rows).counts.sums())
    np.testing.assert_array_equal(of_file.counts.lengths(), cells.counts.lengths())
    np.testing.assert_array_equal(of_file.library, cells.library)
    np.testing.assert_array_equal(of_file.mean_counts(), cells.mean_counts())
    assert of_file.record == cells.record


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", [None, "twice"])
def test_rows_are_those_of_the_matrix(data: ad.AnnData, tmp_path: Path, way: str, layer: str | None) -> None:
    found = Cells.from_anndata(WAYS[way](data, tmp_path), layer=layer, batch_key="donor")
    assert_same_cells(found, in_memory(data, layer=layer, batch_key="donor"))


@pytest.mark.parametrize("layout", [sp.csr_matrix, np.asarray])
@pytest.mark.parametrize("dtype", ["int64", "uint16", "float64"])
def test_every_type_and_layout_in_the_file(data: ad.AnnData, tmp_path: Path, layout: Callable, dtype: str) -> None:
    data.X = layout(data.X.toarray().astype(dtype))
    assert_same_cells(Cells.from_anndata(as_h5ad(data, tmp_path)), in_memory(data))


def test_columns_out_of_order_zeros_and_repeated_entries(data: ad.AnnData, tmp_path: Path) -> None:
    messy = data.X.copy()
    for i in range(N):  # reversed columns, a zero, and the first entry in two halves
        first, last = messy.indptr[i], messy.indptr[i + 1]
        messy.indices[first:last] = messy.indices[first:last][::-1].copy()
        messy.data[first:last] = messy.data[first:last][::-1].copy()
    extra = sp.csr_matrix((np.r_[messy.data, 0.0], np.r_[messy.indices, 39], np.r_[messy.indptr[:-1], messy.nnz + 1]))
    data.X = sp.csr_matrix((extra.data, extra.indices, extra.indptr), shape=(N, G))
    clean = data.copy()
    clean.X = sp.csr_matrix(data.X.toarray())
    assert_same_cells(Cells.from_anndata(as_h5ad(data, tmp_path)), in_memory(clean))


@pytest.mark.parametrize("way", WAYS)
def test_views_stay_in_the_file(data: ad.AnnData, tmp_path: Path, way: str) -> None:
    rng = np.random.default_rng(2)
    backed = WAYS[way](data, tmp_path)
    genes = np.r_[0, rng.permutation(np.arange(1, G))[:20]]
    for rows in (np.arange(N) % 3 > 0, slice(100, 300), rng.permutation(N)[:200]):
        assert_same_cells(Cells.from_anndata(backed[rows, genes]), in_memory(data[rows][:, genes].copy()))


def test_several_files_with_other_orders_of_genes_are_one(data: ad.AnnData, tmp_path: Path) -> None:
    first, second = data[:300].copy(), data[300:, ::-1].copy()
    (tmp_path / "b").mkdir()
    backed = [as_h5ad(first, tmp_path), as_zarr(second, tmp_path / "b")]
    found = Cells.from_anndata(backed)
    assert found.schema.batch_categories == ("0", "1")
    assert_same_cells(found, in_memory([first, second]))


def test_small_files_are_simply_read(data: ad.AnnData, tmp_path: Path) -> None:
    backed = as_h5ad(data, tmp_path)
    assert in_memory(backed).in_memory
    with patch.object(stored, "IN_MEMORY", 8 * data.X.nnz - 1):
        assert not Cells.from_anndata(backed).in_memory
    with patch.object(stored, "IN_MEMORY", 8 * data.X.nnz):
        assert Cells.from_anndata(backed).in_memory


def test_a_file_with_one_part_in_memory_is_read(data: ad.AnnData, tmp_path: Path) -> None:
    assert Cells.from_anndata([as_h5ad(data[:300].copy(), tmp_path), data[300:].copy()]).in_memory


def test_a_window_gives_the_same_batches(data: ad.AnnData, tmp_path: Path) -> None:
    found, wanted = Cells.from_anndata(as_h5ad(data, tmp_path)), in_memory(data)
    rows = np.random.default_rng(3).permutation(N)[:200]
    window = found.window(rows)
    with patch.object(stored.StoredMatrix, "read", side_effect=AssertionError("the file was read")):
        batch = window.take(rows[50:90])
    expected = wanted.take(rows[50:90])
    np.testing.assert_array_equal(batch.counts.dense(), expected.counts.dense())
    np.testing.assert_array_equal(batch.rows, expected.rows)
    assert wanted.window(rows) is wanted


@pytest.mark.parametrize("at_once", [1, 2000, 2**30])
def test_cells_in_order_are_the_same_batches(data: ad.AnnData, tmp_path: Path, at_once: int) -> None:
    found, wanted = Cells.from_anndata(as_h5ad(data, tmp_path)), in_memory(data)
    with patch.object(cells_module, "READ_AT_ONCE", at_once):
        batches = list(found.in_order(64))
    assert [batch.n_cells for batch in batches] == [64] * 10 + [60]
    for one, other in zip(batches, wanted.in_order(64), strict=True):
        np.testing.assert_array_equal(one.counts.dense(), other.counts.dense())
        np.testing.assert_array_equal(one.rows, other.rows)


def test_pieces_are_no_larger_than_is_said(data: ad.AnnData, tmp_path: Path) -> None:
    found = Cells.from_anndata(as_h5ad(data, tmp_path))
    sizes = []
    read = stored.StoredMatrix.read

    def noting(self: stored.StoredMatrix, start: int, stop: int) -> stored.Piece:
        piece = read(self, start, stop)
        sizes.append(len(piece.values))
        return piece

    with patch.object(stored.StoredMatrix, "read", noting), patch.object(stored, "PIECE", 500):
        assert_same(found.counts.take(np.arange(N)), in_memory(data).counts)
    assert max(sizes) <= 2 * found.counts.matrices[0].chunk < data.X.nnz  # two chunks of this file are more than 500


def test_few_rows_do_not_read_all(data: ad.AnnData, tmp_path: Path) -> None:
    found = Cells.from_anndata(as_h5ad(data, tmp_path))
    n_read = 0
    read = stored.StoredMatrix.read

    def counting(self: stored.StoredMatrix, start: int, stop: int) -> stored.Piece:
        nonlocal n_read
        n_read += stop - start
        return read(self, start, stop)

    with patch.object(stored.StoredMatrix, "read", counting):
        found.counts.take(np.array([3, 4, 690]))
    assert n_read == 3


def test_they_can_be_sent_to_another_process(data: ad.AnnData, tmp_path: Path) -> None:
    for way in (as_h5ad, as_zarr):
        found = Cells.from_anndata(way(data, tmp_path))
        sent = pickle.dumps(found)
        assert len(sent) < 100_000
        assert_same(pickle.loads(sent).counts.take(np.arange(N)), in_memory(data).counts)


def test_faulty_values_are_found_where_they_lie(data: ad.AnnData, tmp_path: Path) -> None:
    counts = data.X.toarray()
    counts[650, 7] = -3
    data.X = sp.csr_matrix(counts)
    backed = as_h5ad(data, tmp_path)
    with pytest.raises(DataError, match=r"1 negative value \(smallest -3, first in cell 'cell650', gene 'g7'\)"):
        Cells.from_anndata(backed)
    assert not Cells.from_anndata(backed, layer="twice").in_memory
    view = backed[np.arange(N) % 2 == 0, [3, 7, 0]]
    with pytest.raises(DataError, match=r"first in cell 'cell650', gene 'g7'"):
        Cells.from_anndata(view)
    Cells.from_anndata(backed[:, [3, 0]])  # the faulty gene is not among them


def change(path: Path, element: str, at: int, value: float) -> None:
    """Put a file in its place that differs in one entry."""
    copy = path.with_name("copy.h5ad")
    shutil.copy(path, copy)
    with h5py.File(copy, "r+") as file:
        file[element][at] = value
    copy.replace(path)


def test_a_file_that_changes_or_goes_is_an_error(data: ad.AnnData, tmp_path: Path) -> None:
    found = Cells.from_anndata(as_h5ad(data, tmp_path))
    change(tmp_path / "a.h5ad", "X/data", 11, 0)
    again = pickle.loads(pickle.dumps(found))  # opens the file anew
    with pytest.raises(DataError, match="is not what it was when it was checked"):
        again.counts.take(np.arange(N))
    (tmp_path / "a.h5ad").unlink()
    with pytest.raises(FileError, match="cannot be read any more"):
        pickle.loads(pickle.dumps(found)).counts.take(np.arange(N))


@pytest.mark.parametrize("value", [2_000_000_000, -3])
def test_an_index_outside_is_an_error(data: ad.AnnData, tmp_path: Path, value: int) -> None:
    found = Cells.from_anndata(as_h5ad(data, tmp_path))
    change(tmp_path / "a.h5ad", "X/indices", 100, value)
    with pytest.raises(DataError, match=r"malformed sparse matrix \(its indices reach"):
        pickle.loads(pickle.dumps(found)).counts.take(np.arange(N))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch_key", [None, "donor"])
def test_genes_are_chosen_in_the_file_as_in_memory(
    data: ad.AnnData, tmp_path: Path, way: str, batch_key: str | None
) -> None:
    pytest.importorskip("dask")
    backed = WAYS[way](data, tmp_path)
    rows = np.flatnonzero(np.arange(N) % 5 > 0)
    for of_file, of_memory in ((backed, data), (backed[rows], data[rows].copy())):
        with patch.object(select_module, "CELLS_AT_A_TIME", 100):
            found = select_genes(of_file, n_top_genes=12, batch_key=batch_key)
        with patch.object(stored, "IN_MEMORY", 2**60):
            wanted = select_genes(of_memory, n_top_genes=12, batch_key=batch_key)
        assert list(found.var_names) == list(wanted.var_names)
        assert not Cells.from_anndata(found, layer="twice").in_memory
        np.testing.assert_array_equal(found.to_memory().X.toarray(), wanted.X.toarray())


@pytest.mark.parametrize("way", WAYS)
def test_a_view_that_leaves_out_doubled_genes_reads_the_ones_it_has(data: ad.AnnData, tmp_path: Path, way: str) -> None:
    data.var_names = [*data.var_names[:-1], "g1"]  # the last gene has the name of the second
    backed = WAYS[way](data, tmp_path)
    kept = ~data.var_names.duplicated()
    assert_same_cells(Cells.from_anndata(backed[:, kept]), in_memory(data[:, kept].copy()))


def test_a_zarr_store_with_raw_is_read_without_it(data: ad.AnnData, tmp_path: Path) -> None:
    data.raw = data.copy()
    backed = as_zarr(data, tmp_path)
    assert backed.raw is None
    assert_same_cells(Cells.from_anndata(backed), in_memory(data))


def test_the_cell_with_a_fault_is_named_in_a_view_of_any_order(data: ad.AnnData, tmp_path: Path) -> None:
    counts = data.X.toarray()
    counts[650, 7] = -3
    data.X = sp.csr_matrix(counts)
    order = np.r_[650, 10, 699, 0:600]
    with pytest.raises(DataError, match="first in cell 'cell650', gene 'g7'"):
        Cells.from_anndata(as_h5ad(data, tmp_path)[order])


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">i4"])
@pytest.mark.parametrize("layout", [sp.csr_matrix, np.asarray])
def test_types_that_numba_does_not_know(data: ad.AnnData, tmp_path: Path, dtype: str, layout: Callable) -> None:
    wanted, dense = in_memory(data), data.X.toarray()
    data.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        if layout is np.asarray:
            del file["X"]
            file["X"] = dense.astype(dtype)
            file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        else:
            values = file["X/data"][...].astype(dtype)
            del file["X/data"]
            file["X/data"] = values
    assert_same_cells(Cells.from_anndata(read_h5ad(tmp_path / "a.h5ad", backed="r")), wanted)


def test_values_that_are_no_numbers_are_refused(data: ad.AnnData, tmp_path: Path) -> None:
    data.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        values = file["X/data"][...].astype(complex)
        del file["X/data"]
        file["X/data"] = values
    with pytest.raises(DataError, match="has type complex128, not numbers"):
        Cells.from_anndata(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))


@pytest.mark.parametrize("way", WAYS)
def test_a_small_view_of_a_large_file_reads_what_it_needs(data: ad.AnnData, tmp_path: Path, way: str) -> None:
    view = WAYS[way](data, tmp_path)[np.arange(N) % 2 == 0, [0, 5, 7]]
    whole = AssertionError("the file was read as a whole")
    with (
        patch.object(stored, "IN_MEMORY", 2**60),
        patch.object(BaseCompressedSparseDataset, "to_memory", side_effect=whole),
    ):
        found = Cells.from_anndata(view)
    assert found.in_memory
    assert_same(found.counts, in_memory(data[::2, [0, 5, 7]].copy()).counts)


@pytest.mark.parametrize("way", WAYS)
def test_the_layer_with_counts_is_found_without_reading_files_as_a_whole(
    data: ad.AnnData, tmp_path: Path, way: str
) -> None:
    data.layers["counts"], data.X = data.X.copy(), data.X.copy()
    data.X.data = np.log1p(data.X.data)
    view = WAYS[way](data, tmp_path)[:, data.var_names[:30]]
    whole = AssertionError("the file was read as a whole")
    with patch.object(BaseCompressedSparseDataset, "to_memory", side_effect=whole):
        with pytest.raises(DataError, match=r"layers\['counts'\] looks like counts: pass layer='counts'"):
            Cells.from_anndata(view)
