"""Faults in the values and names of the data: each is a sentence with the numbers and a way out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lucidcell.cells import Cells
from lucidcell.cells import matrix as matrix_module
from lucidcell.cells.checks import find_count_layers
from lucidcell.errors import DataError

LAYOUTS = [sp.csr_matrix, sp.csc_matrix, np.asarray]


def with_value(adata: ad.AnnData, value: float) -> ad.AnnData:
    """The data with one value replaced: cell 31, gene g7."""
    values = adata.X.toarray().astype(np.float64)
    values[31, 7] = value
    adata.X = sp.csr_matrix(values)
    return adata


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, r"X holds 1 value that is NaN \(first in cell 'cell31', gene 'g7'\); SCVI needs raw counts"),
        (np.inf, r"X holds 1 infinite value \(first in cell 'cell31', gene 'g7'\)"),
        (-np.inf, r"X holds 1 infinite value"),
        (-1.25, r"X holds 1 negative value \(smallest -1\.25, first in cell 'cell31', gene 'g7'\)"),
        (2.5, r"X holds 1 non-integer value \(.*first in cell 'cell31', gene 'g7'\)"),
        (2.0**24 + 2, r"X holds 1 value above 2\^24 = 16,777,216 \(largest 1.678e\+07"),
        (1e9, r"X holds 1 value above 2\^24"),
    ],
)
def test_one_bad_value_is_found_wherever_it_is(adata: ad.AnnData, layout: type, value: float, said: str) -> None:
    adata = with_value(adata, value)
    adata.X = layout(adata.X.toarray())
    with pytest.raises(DataError, match=said):
        Cells.from_anndata(adata)


def test_a_bad_value_in_a_late_block_is_named_rightly(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_module, "BLOCK_ENTRIES", 40)
    with pytest.raises(DataError, match="cell 'cell31', gene 'g7'"):
        Cells.from_anndata(with_value(adata, -3))


def test_one_non_integer_among_a_million_values_is_found() -> None:
    values = np.ones((1000, 1000), dtype=np.float32)
    values[777, 333] = 1.5
    data = ad.AnnData(values)
    with pytest.raises(DataError, match=r"1 non-integer value .*cell '777', gene '333'"):
        Cells.from_anndata(data)


def test_the_largest_exact_count_is_kept(adata: ad.AnnData) -> None:
    cells = Cells.from_anndata(with_value(adata, 2.0**24))
    assert cells.counts.values.max() == 2**24


def test_large_whole_numbers_that_float32_would_round_are_refused(adata: ad.AnnData, counts: np.ndarray) -> None:
    values = counts.astype(np.int64)
    values[3, 3] = 2**24 + 1
    adata.X = values
    with pytest.raises(DataError, match=r"above 2\^24"):
        Cells.from_anndata(adata)


def test_the_layer_that_holds_counts_is_named(adata: ad.AnnData, counts: np.ndarray) -> None:
    adata.layers["counts"] = sp.csr_matrix(counts)
    adata.layers["scaled"] = counts - counts.mean(0)
    adata.X = np.log1p(counts)
    assert find_count_layers(adata) == ["layers['counts']"]
    message = r"layer 'scaled' holds \d+ negative values \(smallest -\d.*SCVI needs raw counts, and layers\['counts'\] "
    with pytest.raises(DataError, match=message + r"looks like counts: pass layer='counts'\."):
        Cells.from_anndata(adata, layer="scaled")
    with pytest.raises(DataError, match=r"non-integer values \(.*which looks log-transformed; LDVAE needs raw counts"):
        Cells.from_anndata(adata, model="LDVAE")


def test_x_and_raw_are_named_where_they_hold_counts(adata: ad.AnnData, counts: np.ndarray) -> None:
    adata.layers["log"] = np.log1p(counts)
    with pytest.raises(DataError, match=r"X looks like counts: pass layer=None\."):
        Cells.from_anndata(adata, layer="log")
    adata.raw = adata.copy()
    adata.X = np.log1p(counts)
    assert find_count_layers(adata) == ["raw.X"]
    with pytest.raises(DataError, match=r"adata\.raw\.X looks like counts: pass adata\.raw\.to_adata\(\)"):
        Cells.from_anndata(adata)


def test_nothing_that_looks_like_counts_is_said_too(adata: ad.AnnData, counts: np.ndarray) -> None:
    adata.X = np.log1p(counts)
    with pytest.raises(DataError, match="nothing else in this AnnData looks like counts: load the unnormalised data"):
        Cells.from_anndata(adata)


def test_models_of_any_values_still_refuse_nan(adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match="1 value that is NaN .*VAE needs finite values"):
        Cells.from_anndata(with_value(adata, np.nan), counts=False, model="VAE")


def test_empty_cells_are_counted_and_named_and_the_way_out_works(adata: ad.AnnData, counts: np.ndarray) -> None:
    scanpy = pytest.importorskip("scanpy")
    counts[[2, 9]] = 0
    adata.X = sp.csr_matrix(counts)
    with pytest.raises(
        DataError, match=r"2 of 37 cells have no counts .*'cell2', 'cell9'.*sc\.pp\.filter_cells"
    ) as caught:
        Cells.from_anndata(adata)
    exec(str(caught.value).split("with ")[1].rstrip("."), {"sc": scanpy, "adata": adata})
    assert len(Cells.from_anndata(adata)) == 35
    assert len(Cells.from_anndata(adata, counts=False)) == 35


def test_empty_cells_of_a_layer_have_a_way_out_that_works(adata: ad.AnnData, counts: np.ndarray) -> None:
    counts[5] = 0
    adata.layers["counts"] = sp.csr_matrix(counts)
    with pytest.raises(DataError, match="1 of 37 cells have no counts") as caught:
        Cells.from_anndata(adata, layer="counts")
    scope = {"np": np, "adata": adata}
    exec(str(caught.value).split("with ")[1].rstrip("."), scope)
    assert len(Cells.from_anndata(scope["adata"], layer="counts")) == 36


def test_silent_genes_are_a_warning(adata: ad.AnnData, counts: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    counts[:, [3, 4, 8]] = 0
    adata.X = counts
    with caplog.at_level(logging.WARNING, logger="lucidcell"):
        record = Cells.from_anndata(adata).record
    assert record.n_silent_genes == 3
    assert record.warnings == ["3 of 23 genes are zero in every cell"]
    assert "3 of 23 genes" in caplog.text


def test_the_record_says_what_was_seen(adata: ad.AnnData, counts: np.ndarray) -> None:
    record = Cells.from_anndata(adata).record
    assert (record.n_cells, record.n_genes, record.n_empty_cells) == (37, 23, 0)
    assert record.nonzero_fraction == pytest.approx((counts > 0).mean())
    assert record.median_library == np.median(counts.sum(1))
    assert record.warnings == []
    assert record.to_json()["n_cells"] == 37


def test_duplicated_gene_names_are_refused_and_the_way_out_works(adata: ad.AnnData) -> None:
    names = [f"g{j}" for j in range(23)]
    names[5] = names[6] = "g1"
    adata.var_names = names
    with pytest.raises(
        DataError, match=r"1 gene names occur more than once \('g1'\).*adata\.var_names_make_unique\(\)"
    ):
        Cells.from_anndata(adata)
    adata.var_names_make_unique()
    Cells.from_anndata(adata)


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_duplicated_cell_names_are_a_warning(adata: ad.AnnData) -> None:
    adata.obs_names = ["twin", "twin", *adata.obs_names[2:]]
    assert "1 of 37 cell names occur more than once" in Cells.from_anndata(adata).record.warnings


def test_names_that_are_not_text_are_refused(adata: ad.AnnData) -> None:
    adata.var.index = pd.RangeIndex(23)
    with pytest.raises(DataError, match=r"23 of 23 var_names are not strings \(first 0\)"):
        Cells.from_anndata(adata)


@pytest.mark.parametrize(("n", "g"), [(0, 5), (1, 5), (5, 0), (0, 0)])
def test_too_small_data_are_refused(n: int, g: int) -> None:
    with pytest.raises(DataError, match=rf"the data hold {n} cells and (no genes|at least 2 are needed)"):
        Cells.from_anndata(ad.AnnData(np.ones((n, g), dtype=np.float32)))


def test_one_gene_is_enough() -> None:
    cells = Cells.from_anndata(ad.AnnData(np.arange(1, 5, dtype=np.float32)[:, None]))
    np.testing.assert_array_equal(cells.library, [1, 2, 3, 4])


def test_a_missing_x_is_said_with_the_layer_to_use(adata: ad.AnnData, counts: np.ndarray) -> None:
    empty = ad.AnnData(obs=adata.obs, var=adata.var)
    with pytest.raises(DataError, match=r"the AnnData has no X: set adata\.X to the counts"):
        Cells.from_anndata(empty)
    empty.layers["counts"] = counts
    with pytest.raises(DataError, match=r"the AnnData has no X: pass layer='counts'\."):
        Cells.from_anndata(empty)
    Cells.from_anndata(empty, layer="counts")


def test_real_data_that_are_no_counts_are_refused(shared: Callable[[str], Path]) -> None:
    data = ad.read_h5ad(shared("melanoma_scfeatures.h5ad"))
    with pytest.raises(
        DataError, match=r"X holds [\d]+ non-integer values.*nothing else in this AnnData looks like counts"
    ):
        Cells.from_anndata(data)
