"""Columns of obs: what is learnt from them, and what is refused."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lucidcell.cells import Cells
from lucidcell.cells.covariates import encode, mean_and_scale
from lucidcell.errors import DataError


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([10, 2, 10], ("2", "10"), [1, 0, 1]),
        ([1.0, 0.0, np.nan], ("0", "1"), [1, 0, -1]),
        ([1.5, 1.0, 1.5], ("1", "1.5"), [1, 0, 1]),
        ([1, "1", "a"], ("1", "a"), [0, 0, 1]),
        (["a", None, np.nan], ("a",), [0, -1, -1]),
        (pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"]), ("b", "a"), [0, 1, 0]),
        (pd.Categorical([3, 1, 3], categories=[3, 2, 1]), ("3", "1"), [0, 1, 0]),
        (pd.array(["x", None, "y"], dtype="string"), ("x", "y"), [0, -1, 1]),
        (pd.array([4, None, 2], dtype="Int64"), ("2", "4"), [1, -1, 0]),
        (pd.array([True, None, False], dtype="boolean"), ("False", "True"), [1, -1, 0]),
    ],
)
def test_columns_of_every_kind_become_text(values: object, names: tuple[str, ...], codes: list[int]) -> None:
    got_codes, got_names = encode(pd.Series(values, name="key"))
    assert got_names == names
    np.testing.assert_array_equal(got_codes, codes)
    assert got_codes.dtype == np.int64


def test_values_that_cannot_be_categories_are_refused() -> None:
    with pytest.raises(DataError, match=r"obs\['key'\] holds values that cannot be compared \(list\)"):
        encode(pd.Series([[1], [2]], name="key"))


def test_categories_keep_their_order_and_lose_the_unused(adata: ad.AnnData) -> None:
    schema = Cells.from_anndata(adata, batch_key="donor").schema
    assert schema.batch_categories == ("d2", "d1")
    assert (schema.n_batches, schema.n_labels, schema.n_covariates) == (2, 0, 0)


def test_without_keys_there_is_one_batch_and_no_label(adata: ad.AnnData) -> None:
    cells = Cells.from_anndata(adata)
    assert cells.schema.batch_categories == ("all",)
    assert set(cells.batch) == {0}
    assert set(cells.label) == {-1}
    assert cells.covariates.shape == (37, 0)


def test_covariates_equal_scikit_learn(adata: ad.AnnData) -> None:
    adata.obs["site"] = pd.Categorical([["x", "y", "z"][i % 3] for i in range(37)])
    cells = Cells.from_anndata(
        adata, categorical_covariate_keys=["site", "sex"], continuous_covariate_keys=["age", "size"]
    )
    one_hot = OneHotEncoder(sparse_output=False).fit_transform(adata.obs[["site", "sex"]])
    scaled = StandardScaler().fit_transform(adata.obs[["age", "size"]])
    np.testing.assert_allclose(cells.covariates, np.hstack([one_hot, scaled]), rtol=1e-5, atol=1e-6)
    assert cells.covariates.dtype == np.float32
    assert cells.schema.n_covariates == 7


def test_one_key_may_be_given_without_a_list(adata: ad.AnnData) -> None:
    schema = Cells.from_anndata(adata, categorical_covariate_keys="sex", continuous_covariate_keys="age").schema
    assert schema.categorical_covariates == {"sex": ("False", "True")}
    assert list(schema.continuous_covariates) == ["age"]


def test_a_constant_covariate_is_zero_and_a_warning(adata: ad.AnnData) -> None:
    adata.obs["same"] = 0.1
    cells = Cells.from_anndata(adata, continuous_covariate_keys=["same"])
    np.testing.assert_allclose(cells.covariates, 0, atol=1e-7)
    assert cells.schema.continuous_covariates["same"][1] == 1.0
    assert "the continuous covariate obs['same'] is constant" in cells.record.warnings


def test_a_small_spread_is_no_constant() -> None:
    mean, scale = mean_and_scale(np.array([1.0, 1.0 + 1e-6]))
    assert scale == pytest.approx(5e-7)
    assert mean == pytest.approx(1.0)


KEYS = {
    "batch_key": "dnoor",
    "labels_key": "cell_typ",
    "size_factor_key": "siz",
    "categorical_covariate_keys": ["sexx"],
    "continuous_covariate_keys": ["agee"],
}
MEANT = {"dnoor": "donor", "cell_typ": "cell_type", "siz": "size", "sexx": "sex", "agee": "age"}


@pytest.mark.parametrize("argument", KEYS)
def test_misspelt_keys_are_answered_with_the_close_one(adata: ad.AnnData, argument: str) -> None:
    key = KEYS[argument] if isinstance(KEYS[argument], str) else KEYS[argument][0]
    said = rf"obs has no '{key}', given as {argument}; did you mean '{MEANT[key]}'\? \(it has 'donor', 'cell_type'"
    with pytest.raises(DataError, match=said):
        Cells.from_anndata(adata, **{argument: KEYS[argument]})


def test_misspelt_layers_and_embeddings_too(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_scGPT"] = np.ones((37, 2))
    with pytest.raises(DataError, match=r"layers has no 'Counts', given as layer; did you mean 'counts'\?"):
        Cells.from_anndata(adata, layer="Counts")
    with pytest.raises(DataError, match=r"obsm has no 'X_scgpt', given as external_key; did you mean 'X_scGPT'\?"):
        Cells.from_anndata(adata, external_key="X_scgpt")


@pytest.mark.parametrize("argument", ["batch_key", "categorical_covariate_keys"])
def test_missing_values_are_refused_and_the_way_out_works(adata: ad.AnnData, argument: str) -> None:
    adata.obs.loc[adata.obs_names[[3, 7, 8]], "donor"] = None
    with pytest.raises(DataError, match=r"obs\['donor'\] has no value \(NaN\) in 3 of 37 cells") as caught:
        Cells.from_anndata(adata, **{argument: "donor"})
    scope = {"adata": adata}
    exec(str(caught.value).split("drop these cells with ")[1].split(", or")[0], scope)
    assert len(Cells.from_anndata(scope["adata"], **{argument: "donor"})) == 34


@pytest.mark.parametrize("argument", ["batch_key", "labels_key", "categorical_covariate_keys"])
def test_a_column_with_a_value_for_every_cell_is_no_category(adata: ad.AnnData, argument: str) -> None:
    adata.obs["barcode"] = adata.obs_names.to_numpy()
    with pytest.raises(
        DataError, match=r"obs\['barcode'\] has 37 different values in 37 cells, so it is probably not a"
    ):
        Cells.from_anndata(adata, **{argument: "barcode"})


@pytest.mark.parametrize(("bad", "n"), [(np.nan, 1), (np.inf, 1)])
def test_continuous_covariates_must_be_finite(adata: ad.AnnData, bad: float, n: int) -> None:
    adata.obs.loc["cell4", "age"] = bad
    with pytest.raises(DataError, match=rf"obs\['age'\] is NaN or infinite in {n} of 37 cells"):
        Cells.from_anndata(adata, continuous_covariate_keys=["age"])


def test_continuous_covariates_must_be_numbers(adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match=r"obs\['cell_type'\] holds object values that are not numbers"):
        Cells.from_anndata(adata, continuous_covariate_keys=["cell_type"])
    adata.obs["age"] = adata.obs["age"].round().astype(int).astype("category")
    cells = Cells.from_anndata(adata, continuous_covariate_keys=["age"])
    assert cells.covariates.std() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [0.0, -2.5])
def test_size_factors_must_be_positive(adata: ad.AnnData, bad: float) -> None:
    adata.obs.loc["cell4", "size"] = bad
    with pytest.raises(DataError, match=rf"obs\['size'\] is zero or negative in 1 of 37 cells \(smallest {bad:.4g}\)"):
        Cells.from_anndata(adata, size_factor_key="size")


def test_a_covariate_cannot_be_of_both_kinds(adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match=r"obs\['sex'\] is given twice as a covariate"):
        Cells.from_anndata(adata, categorical_covariate_keys=["sex"], continuous_covariate_keys=["sex"])


def test_two_columns_of_one_name_are_refused(adata: ad.AnnData) -> None:
    adata.obs = pd.concat([adata.obs, adata.obs[["donor"]]], axis=1)
    with pytest.raises(DataError, match="obs has 2 columns named 'donor'"):
        Cells.from_anndata(adata, batch_key="donor")


def test_a_batch_of_one_cell_is_a_warning(adata: ad.AnnData) -> None:
    adata.obs["run"] = ["alone"] + ["other"] * 36
    record = Cells.from_anndata(adata, batch_key="run").record
    assert "1 of 2 batches hold a single cell ('alone')" in record.warnings


def test_one_batch_only_is_a_warning(adata: ad.AnnData) -> None:
    adata.obs["run"] = "r1"
    assert "obs['run'] has one value only, 'r1'" in Cells.from_anndata(adata, batch_key="run").record.warnings


def test_confounded_batches_and_labels_are_a_warning(adata: ad.AnnData) -> None:
    adata.obs["copy"] = adata.obs["donor"].astype(str)
    record = Cells.from_anndata(adata, batch_key="donor", labels_key="copy").record
    assert any("labels occurs in one batch only" in warning for warning in record.warnings)
    other = Cells.from_anndata(adata, batch_key="donor", labels_key="cell_type").record
    assert other.warnings == []
    adata.obs["given"] = adata.obs["cell_type"].where(adata.obs["donor"] == "d1", "Unknown")
    given = Cells.from_anndata(adata, batch_key="donor", labels_key="given", unlabeled_category="Unknown").record
    assert given.warnings == []  # labels of one batch for the others


def test_the_unlabelled_category_is_no_label(adata: ad.AnnData) -> None:
    cells = Cells.from_anndata(adata, labels_key="cell_type", unlabeled_category="Unknown")
    assert cells.schema.label_categories == ("B", "T")
    np.testing.assert_array_equal(cells.label == -1, adata.obs["cell_type"] == "Unknown")
    every = Cells.from_anndata(adata, labels_key="cell_type")
    assert every.schema.label_categories == ("B", "T", "Unknown")
    assert every.label.min() == 0


def test_a_misspelt_unlabelled_category_is_refused(adata: ad.AnnData) -> None:
    said = (
        r"unlabeled_category='unknown' does not occur in obs\['cell_type'\], which holds 'B', 'T', 'Unknown': did you "
    )
    with pytest.raises(DataError, match=said + "mean 'Unknown'"):
        Cells.from_anndata(adata, labels_key="cell_type", unlabeled_category="unknown")


def test_a_declared_but_unused_unlabelled_category_is_accepted(adata: ad.AnnData) -> None:
    adata.obs["type"] = pd.Categorical(["B", "T"] * 18 + ["B"], categories=["B", "T", "Unknown"])
    cells = Cells.from_anndata(adata, labels_key="type", unlabeled_category="Unknown")
    assert cells.label.min() == 0


def test_an_unlabelled_category_needs_a_column(adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match="needs labels_key"):
        Cells.from_anndata(adata, unlabeled_category="Unknown")


def test_missing_labels_are_no_label_and_logged(adata: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata.obs.loc[adata.obs_names[:4], "cell_type"] = np.nan
    with caplog.at_level(logging.WARNING, logger="lucidcell"):
        cells = Cells.from_anndata(adata, labels_key="cell_type")
    np.testing.assert_array_equal(np.flatnonzero(cells.label == -1), [0, 1, 2, 3])
    assert "obs['cell_type'] is NaN in 4 of 37 cells, which count as unlabelled" in caplog.text


def test_no_label_at_all_is_a_warning(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = "Unknown"
    cells = Cells.from_anndata(adata, labels_key="cell_type", unlabeled_category="Unknown")
    assert cells.schema.n_labels == 0
    assert "no cell has a label in obs['cell_type']" in cells.record.warnings


@pytest.mark.parametrize("wrong", [np.full((37, 2), np.nan), np.full((37, 2), "a"), np.ones((37, 0))])
def test_embeddings_must_be_finite_numbers(adata: ad.AnnData, wrong: np.ndarray) -> None:
    adata.obsm["E"] = wrong
    with pytest.raises(DataError, match=r"obsm\['E'\] (holds|has)"):
        Cells.from_anndata(adata, external_key="E")


def test_embeddings_may_be_tables(adata: ad.AnnData) -> None:
    values = np.random.default_rng(0).normal(size=(37, 3))
    adata.obsm["E"] = pd.DataFrame(values, index=adata.obs_names, columns=["x", "y", "z"])
    np.testing.assert_array_equal(Cells.from_anndata(adata, external_key="E").external, values.astype(np.float32))
