"""Data for a trained model: genes and categories are found by name."""

from __future__ import annotations

import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from same_cells import assert_same_cells

from lucidcell.cells import Cells, Schema
from lucidcell.errors import DataError


@pytest.fixture
def trained(adata: ad.AnnData) -> Cells:
    return Cells.from_anndata(
        adata,
        batch_key="donor",
        labels_key="cell_type",
        unlabeled_category="Unknown",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["age"],
        size_factor_key="size",
    )


def dense(cells: Cells) -> np.ndarray:
    return sp.csr_matrix(
        (cells.counts.values, cells.counts.indices, cells.counts.indptr), shape=(len(cells), cells.n_genes)
    ).toarray()


def test_a_schema_survives_json(trained: Cells) -> None:
    stored = json.loads(json.dumps(trained.schema.to_json()))
    assert Schema.from_json(stored) == trained.schema
    assert Schema.from_json(json.loads(json.dumps(Schema(("a",)).to_json()))) == Schema(("a",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gene_names": "g1"}, "holds str under 'gene_names' instead of a list of strings"),
        ({"gene_names": [1, 2]}, "holds list under 'gene_names'"),
        ({"layer": 3}, "holds int under 'layer'"),
        ({"categorical_covariates": []}, "holds list under 'categorical_covariates'"),
        ({"categorical_covariates": {"sex": "F"}}, "holds str under 'sex'"),
        ({"continuous_covariates": {"age": [1]}}, "holds list under 'age'"),
        ({"extra": 1}, r"lacks or adds the fields \['extra'\]"),
    ],
)
def test_a_changed_schema_is_refused(trained: Cells, change: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Schema.from_json(trained.schema.to_json() | change)


def test_a_schema_without_a_field_is_refused(trained: Cells) -> None:
    stored = trained.schema.to_json()
    del stored["layer"]
    with pytest.raises(DataError, match=r"lacks or adds the fields \['layer'\]"):
        Schema.from_json(stored)


def test_the_training_data_are_read_back_the_same(adata: ad.AnnData, trained: Cells) -> None:
    again = Cells.from_schema(adata, trained.schema)
    assert_same_cells(again, trained)
    assert again.schema == trained.schema
    assert again.present.all()


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_genes_are_put_in_order_and_further_ones_ignored(
    adata: ad.AnnData, trained: Cells, counts: np.ndarray, layout: type
) -> None:
    order = np.random.default_rng(0).permutation(25)
    wide = np.hstack([counts, np.full((37, 2), 9)])[:, order]
    names = np.array([*adata.var_names, "extra1", "extra2"])[order]
    query = ad.AnnData(layout(wide.astype(np.float32)), obs=adata.obs, var=pd.DataFrame(index=names))
    got = Cells.from_schema(query, trained.schema)
    np.testing.assert_array_equal(dense(got), counts)
    assert got.schema == trained.schema


def test_missing_genes_are_refused_or_filled_with_zeros(adata: ad.AnnData, trained: Cells, counts: np.ndarray) -> None:
    lost = [2, 22, 7]
    query = adata[:, np.setdiff1d(np.arange(23), lost)[::-1]].copy()
    with pytest.raises(
        DataError, match=r"3 of the model's 23 genes \(13%\) are missing \('g2', 'g7', 'g22'\).*map_query"
    ):
        Cells.from_schema(query, trained.schema)
    got = Cells.from_schema(query, trained.schema, missing_genes=True)
    expected = counts.copy()
    expected[:, lost] = 0
    np.testing.assert_array_equal(dense(got), expected)
    np.testing.assert_array_equal(np.flatnonzero(~got.present), sorted(lost))
    assert "3 of 23 genes (13%) are missing" in got.record.warnings
    assert got.record.n_silent_genes == 0


def test_genes_that_one_of_several_data_sets_lacks_are_missing(adata: ad.AnnData, trained: Cells) -> None:
    query = [adata[:20].copy(), adata[20:, :-1].copy()]
    got = Cells.from_schema(query, trained.schema, missing_genes=True)
    np.testing.assert_array_equal(np.flatnonzero(~got.present), [22])
    assert dense(got)[:, 22].sum() == 0


def rename(adata: ad.AnnData, names: list[str]) -> ad.AnnData:
    renamed = adata.copy()
    renamed.var_names = names
    return renamed


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(
    ("model_names", "data_names", "said"),
    [
        ("g{}", "ENSG{:011d}", "the model's names look like gene symbols and the data's like Ensembl ids"),
        ("ENSMUSG{:011d}", "g{}", "the model's names look like Ensembl ids and the data's like gene symbols"),
        ("ENSG{:011d}.3", "ENSG{:011d}.7", "they agree without the version after the dot"),
        ("GENE{}", "Gene{}", "they agree when case is ignored"),
        ("g{}", "h{}", "should be of the same kind and species"),
    ],
)
def test_other_kinds_of_names_are_recognised(
    adata: ad.AnnData, model_names: str, data_names: str, said: str, pad: bool
) -> None:
    schema = Cells.from_anndata(rename(adata, [model_names.format(j) for j in range(23)])).schema
    query = rename(adata, [data_names.format(j) for j in range(23)])
    with pytest.raises(DataError, match=r"23 of the model's 23 genes \(100%\) are missing.*" + re.escape(said)):
        Cells.from_schema(query, schema, missing_genes=pad)


def test_an_unknown_batch_is_refused_or_appended(adata: ad.AnnData, trained: Cells) -> None:
    query = adata[:10].copy()
    query.obs["donor"] = ["d1"] * 4 + ["new"] * 6
    said = (
        r"obs\['donor'\] holds 'new' in 6 of 10 cells, unknown to the model as batch \(it knows 'd2', 'd1'\).*map_query"
    )
    with pytest.raises(DataError, match=said):
        Cells.from_schema(query, trained.schema)
    got = Cells.from_schema(query, trained.schema, new_batches=True)
    assert got.schema.batch_categories == ("d2", "d1", "new")
    np.testing.assert_array_equal(got.batch, [1] * 4 + [2] * 6)
    assert trained.schema.batch_categories == ("d2", "d1")


def test_categories_are_matched_by_name_in_any_order(adata: ad.AnnData, trained: Cells) -> None:
    query = adata.copy()
    query.obs["donor"] = pd.Categorical(query.obs["donor"].astype(str), categories=["zz", "d1", "d2"])
    np.testing.assert_array_equal(Cells.from_schema(query, trained.schema).batch, trained.batch)


def test_an_unknown_covariate_category_is_refused(adata: ad.AnnData, trained: Cells) -> None:
    query = adata.copy()
    query.obs["sex"] = ["other"] + ["True"] * 36
    with pytest.raises(
        DataError, match=r"obs\['sex'\] holds 'other' in 1 of 37 cells, unknown to the model as categorical"
    ):
        Cells.from_schema(query, trained.schema, new_batches=True)


def test_labels_of_a_query_are_optional(adata: ad.AnnData, trained: Cells) -> None:
    query = adata.copy()
    query.obs["cell_type"] = ["B", "NK", "Unknown"] + ["T"] * 34
    got = Cells.from_schema(query, trained.schema)
    np.testing.assert_array_equal(got.label, [0, -1, -1] + [1] * 34)
    assert "labels unknown to the model ('NK') count as none" in got.record.warnings
    del query.obs["cell_type"]
    assert set(Cells.from_schema(query, trained.schema).label) == {-1}


@pytest.mark.parametrize("column", ["donor", "sex", "age", "size"])
def test_other_columns_of_a_query_are_not_optional(adata: ad.AnnData, trained: Cells, column: str) -> None:
    query = adata.copy()
    del query.obs[column]
    with pytest.raises(DataError, match=f"obs has no '{column}'"):
        Cells.from_schema(query, trained.schema)


def test_covariates_are_standardised_as_in_training(adata: ad.AnnData, trained: Cells) -> None:
    query = adata[:5].copy()
    got = Cells.from_schema(query, trained.schema)
    np.testing.assert_array_equal(got.covariates, trained.covariates[:5])


def test_one_cell_is_enough_for_a_query(adata: ad.AnnData, trained: Cells) -> None:
    got = Cells.from_schema(adata[3:4], trained.schema)
    np.testing.assert_array_equal(dense(got), dense(trained)[3:4])


def test_no_cell_is_refused(adata: ad.AnnData, trained: Cells) -> None:
    with pytest.raises(DataError, match="the data hold 0 cells"):
        Cells.from_schema(adata[:0], trained.schema)


def test_the_layer_is_that_of_the_training_unless_given(adata: ad.AnnData, counts: np.ndarray) -> None:
    adata.layers["counts"] = counts
    adata.X = np.log1p(counts)
    schema = Cells.from_anndata(adata, layer="counts").schema
    np.testing.assert_array_equal(dense(Cells.from_schema(adata, schema)), counts)
    query = ad.AnnData(counts, obs=adata.obs, var=adata.var)
    with pytest.raises(DataError, match="layers has no 'counts'"):
        Cells.from_schema(query, schema)
    np.testing.assert_array_equal(dense(Cells.from_schema(query, schema, layer=None)), counts)


def test_a_cell_empty_over_the_genes_of_the_model_is_refused(
    adata: ad.AnnData, trained: Cells, counts: np.ndarray
) -> None:
    values = np.hstack([counts, np.ones((37, 1), int)])
    values[6, :23] = 0
    names = [*adata.var_names, "extra"]
    query = ad.AnnData(values, obs=adata.obs, var=pd.DataFrame(index=names))
    with pytest.raises(DataError, match=r"1 of 37 cells have no counts over the 23 genes of X \('cell6'\)"):
        Cells.from_schema(query, trained.schema)


def test_a_list_trained_on_is_read_back_with_its_batches(adata: ad.AnnData) -> None:
    parts = {"old": adata[:20].copy(), "new": adata[20:].copy()}
    trained = Cells.from_anndata(parts)
    again = Cells.from_schema(parts, trained.schema)
    np.testing.assert_array_equal(again.batch, [0] * 20 + [1] * 17)
    with pytest.raises(DataError, match="unknown to the model as batch"):
        Cells.from_schema({"old": parts["old"], "other": parts["new"]}, trained.schema)
