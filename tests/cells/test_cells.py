from __future__ import annotations

import hashlib
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from same_cells import assert_same_cells

from lucidcell.cells import Cells
from lucidcell.errors import DataError


def fingerprint(adata: ad.AnnData) -> str:
    """Hash of everything in an AnnData, types included."""
    x = adata.X
    arrays = [x.data, x.indices, x.indptr] if sp.issparse(x) else [x]
    arrays += [layer.toarray() for layer in adata.layers.values()]
    parts = [array.tobytes() + str(array.dtype).encode() for array in arrays]
    tables = (adata.obs, adata.var, adata.obsm.get("E"), adata.uns, type(x), [str(d) for d in adata.obs.dtypes])
    return hashlib.sha256(b"".join(parts) + pickle.dumps(tables)).hexdigest()


def test_take_gives_the_cells_in_the_order_asked(adata: ad.AnnData, counts: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    adata.obsm["E"] = np.arange(37 * 4, dtype=np.float64).reshape(37, 4)
    cells = Cells.from_anndata(
        adata,
        batch_key="donor",
        labels_key="cell_type",
        unlabeled_category="Unknown",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["age"],
        external_key="E",
    )
    rows = np.array([5, 0, 36, 5])
    batch = cells.take(rows)
    np.testing.assert_array_equal(batch.counts.dense().numpy(), counts[rows])
    np.testing.assert_array_equal(batch.batch.numpy(), (adata.obs["donor"] == "d1").to_numpy()[rows].astype(int))
    labels = adata.obs["cell_type"].map({"B": 0, "T": 1, "Unknown": -1}).to_numpy()
    np.testing.assert_array_equal(batch.label.numpy(), labels[rows])
    np.testing.assert_array_equal(batch.library.numpy(), counts[rows].sum(1))
    np.testing.assert_array_equal(batch.rows.numpy(), rows)
    np.testing.assert_array_equal(batch.external.numpy(), adata.obsm["E"][rows])
    age = adata.obs["age"].to_numpy()
    expected = np.stack([~adata.obs["sex"], adata.obs["sex"], (age - age.mean()) / age.std()], axis=1)
    np.testing.assert_allclose(batch.covariates.numpy(), expected[rows].astype(np.float32), rtol=1e-6)
    assert [t.dtype for t in (batch.batch, batch.label, batch.rows)] == [torch.int64] * 3
    assert [t.dtype for t in (batch.counts.values, batch.covariates, batch.library)] == [torch.float32] * 3


def test_take_of_no_cells_and_of_all_cells(adata: ad.AnnData, counts: np.ndarray) -> None:
    pytest.importorskip("torch")
    cells = Cells.from_anndata(adata)
    assert cells.take(np.array([], dtype=int)).counts.dense().shape == (0, 23)
    np.testing.assert_array_equal(cells.take(np.arange(37)).counts.dense().numpy(), counts)


@pytest.mark.parametrize("rows", [[37], [-1], [[0, 1]], [0.5], [True, False]])
def test_rows_that_do_not_exist_are_refused(adata: ad.AnnData, rows: list) -> None:
    cells = Cells.from_anndata(adata)
    with pytest.raises(IndexError):
        cells.select(np.array(rows))


def test_select_is_the_same_as_selecting_first(adata: ad.AnnData) -> None:
    cells = Cells.from_anndata(adata, batch_key="donor", labels_key="cell_type")
    mask = np.arange(37) % 3 > 0
    for chosen in (cells.select(mask), cells.select(np.flatnonzero(mask))):
        again = Cells.from_anndata(adata[mask].copy(), batch_key="donor", labels_key="cell_type")
        assert len(chosen) == mask.sum()
        assert_same_cells(chosen, again)


def test_the_users_data_are_not_changed(adata: ad.AnnData) -> None:
    adata.obsm["E"] = np.ones((37, 2))
    adata.layers["scaled"] = sp.csr_matrix(adata.X * -0.5)
    adata.X = sp.csc_matrix(adata.X)
    before = fingerprint(adata)
    cells = Cells.from_anndata(
        adata,
        batch_key="donor",
        labels_key="cell_type",
        unlabeled_category="Unknown",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["age"],
        size_factor_key="size",
        external_key="E",
    )
    with pytest.raises(DataError):
        Cells.from_anndata(adata, layer="scaled")
    Cells.from_schema(adata[::-1], cells.schema)
    assert fingerprint(adata) == before
    cells.counts.values[:] = 7.0  # nothing is shared
    cells.library[:] = 7.0
    assert fingerprint(adata) == before


def test_the_global_random_state_is_not_touched(adata: ad.AnnData) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    Cells.from_anndata(adata, batch_key="donor")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_size_factors_take_the_place_of_library_sizes(adata: ad.AnnData) -> None:
    cells = Cells.from_anndata(adata, size_factor_key="size")
    np.testing.assert_array_equal(cells.library, adata.obs["size"].to_numpy(np.float32))


def test_a_layer_is_used_when_named(adata: ad.AnnData, counts: np.ndarray) -> None:
    adata.layers["counts"] = counts
    adata.X = np.log1p(counts).astype(np.float32)
    cells = Cells.from_anndata(adata, layer="counts")
    np.testing.assert_array_equal(cells.library, counts.sum(1))
    assert cells.schema.layer == "counts"


def test_other_values_than_counts_are_allowed_for_models_that_take_them(adata: ad.AnnData) -> None:
    adata.X = adata.X.toarray() - 0.5
    cells = Cells.from_anndata(adata, counts=False)
    np.testing.assert_allclose(cells.library, adata.X.sum(1), rtol=1e-5)


def test_several_data_sets_are_joined_over_their_common_genes(adata: ad.AnnData, counts: np.ndarray) -> None:
    first, second = adata[:20].copy(), adata[20:, [4, 1, 22, 7, 0]].copy()
    cells = Cells.from_anndata([first, second])
    assert cells.schema.gene_names == ("g0", "g1", "g4", "g7", "g22")  # in the order of the first
    assert cells.schema.batch_categories == ("0", "1")
    assert len(cells) == 37
    np.testing.assert_array_equal(cells.batch, [0] * 20 + [1] * 17)
    back = sp.csr_matrix((cells.counts.values, cells.counts.indices, cells.counts.indptr), shape=(37, 5)).toarray()
    np.testing.assert_array_equal(back, counts[:, [0, 1, 4, 7, 22]])
    assert any("share 5 of 5 to 23 genes" in warning for warning in cells.record.warnings)
    named = Cells.from_anndata({"old": first, "new": second})
    assert named.schema.batch_categories == ("old", "new")
    np.testing.assert_array_equal(named.batch, cells.batch)


def test_several_data_sets_equal_their_concatenation(adata: ad.AnnData) -> None:
    parts = [adata[:11].copy(), adata[11:30].copy(), adata[30:].copy()]
    parts[1].X = parts[1].X.toarray()
    joined = Cells.from_anndata(parts, batch_key="donor", labels_key="cell_type")
    whole = Cells.from_anndata(adata, batch_key="donor", labels_key="cell_type")
    assert joined.schema == whole.schema
    assert_same_cells(joined, whole)


def test_cells_empty_over_the_common_genes_are_refused(adata: ad.AnnData) -> None:
    first, second = adata[:20].copy(), adata[20:, 5:].copy()
    second.X = np.eye(17, 18)[::-1]
    first = first[:, :20].copy()
    with pytest.raises(DataError, match=r"2 of 37 cells have no counts over the 15 genes of X \('cell20', 'cell21'\)"):
        Cells.from_anndata([first, second])


def test_data_sets_without_a_common_gene_are_refused(adata: ad.AnnData) -> None:
    other = adata.copy()
    other.var_names = [f"ENSG{j:011d}" for j in range(23)]
    with pytest.raises(DataError, match=r"share no gene name.*'g0', 'ENSG00000000000'"):
        Cells.from_anndata([adata, other])


@pytest.mark.parametrize("wrong", ["data.h5ad", None, [], pd.DataFrame({"g": [1]}), np.ones((3, 3))])
def test_other_things_than_anndata_are_refused(wrong: object) -> None:
    with pytest.raises(DataError, match="SCVI needs an AnnData"):
        Cells.from_anndata(wrong)
