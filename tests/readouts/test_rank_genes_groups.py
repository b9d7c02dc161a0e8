"""The layout of scanpy's rank_genes_groups: read and drawn by scanpy itself."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from battery import assert_sentence

import lucidcell as lc
from lucidcell.errors import DataError, SettingError

FEW = {"n_samples_overall": 60}


@pytest.fixture
def adata(trained, simulated):
    """Cells with a table of every type against the rest, as scanpy would leave it."""
    table = trained().differential_expression(simulated, groupby="cell_type", **FEW)
    simulated.uns["rank_genes_groups"] = lc.to_rank_genes_groups(table)
    simulated.uns["table"] = table
    sc.pp.normalize_total(simulated)
    sc.pp.log1p(simulated)
    return simulated


def test_scanpy_reads_what_the_table_says(adata):
    table = adata.uns.pop("table")
    for group in ("type_0", "type_1", "type_2"):
        found = sc.get.rank_genes_groups_df(adata, group).set_index("names")
        wanted = table[table["group1"] == group].loc[found.index]
        np.testing.assert_allclose(found["scores"], wanted["lfc_sure"], rtol=1e-5)
        np.testing.assert_allclose(found["logfoldchanges"], wanted["lfc_mean"], rtol=1e-5)
        np.testing.assert_allclose(found["pct_nz_group"], wanted["non_zeros_proportion1"])
        np.testing.assert_allclose(found["pct_nz_reference"], wanted["non_zeros_proportion2"])
        assert found["scores"].is_monotonic_decreasing
        assert found["pvals"].isna().all()
        np.testing.assert_array_equal(found["pvals_adj"] <= 0.05, wanted["is_de"])
    assert len(sc.get.rank_genes_groups_df(adata, None)) == 150


def test_the_layout_is_that_of_scanpy(adata):
    ours, table = adata.uns["rank_genes_groups"], adata.uns.pop("table")
    sc.tl.rank_genes_groups(adata, "cell_type", method="t-test", key_added="theirs", pts=True)
    theirs = adata.uns["theirs"]
    assert set(ours) == set(theirs)
    assert set(ours["params"]) == set(theirs["params"])
    for name in ("names", "scores", "pvals", "pvals_adj", "logfoldchanges"):
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == theirs[name].shape, name
    for name in ("pts", "pts_rest"):
        columns = ours[name].loc[theirs[name].index, theirs[name].columns]
        np.testing.assert_allclose(columns, theirs[name], rtol=1e-6)
    top = [ours["names"][group][:10] for group in ("type_0", "type_1", "type_2")]
    assert np.mean([np.isin(top[i], theirs["names"][f"type_{i}"][:20]).mean() for i in range(3)]) > 0.3
    assert len(table) == 150


@pytest.mark.filterwarnings("ignore:set_ticklabels:UserWarning")  # of scanpy's violins
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rank_genes_groups", {}),
        ("rank_genes_groups_dotplot", {"dendrogram": False, "values_to_plot": "logfoldchanges"}),
        ("rank_genes_groups_matrixplot", {"dendrogram": False}),
        ("rank_genes_groups_heatmap", {"dendrogram": False}),
        ("rank_genes_groups_stacked_violin", {"dendrogram": False}),
        ("rank_genes_groups_violin", {"groups": "type_0", "jitter": False}),
    ],
)
def test_scanpys_plots_draw_it(adata, name, arguments):
    del adata.uns["table"]
    getattr(sc.pl, name)(adata, n_genes=3, show=False, **arguments)
    assert plt.get_fignums()
    plt.close("all")


def test_it_can_be_written_to_a_file(adata, tmp_path):
    del adata.uns["table"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = lc.read_h5ad(tmp_path / "x.h5ad")
    assert list(back.uns["rank_genes_groups"]["names"]["type_0"]) == list(
        adata.uns["rank_genes_groups"]["names"]["type_0"]
    )


def test_vanilla_tables_are_ranked_by_bayes_factor(trained, simulated):
    table = trained().differential_expression(mode="vanilla", group1="type_1", **FEW)
    simulated.uns["rank_genes_groups"] = lc.to_rank_genes_groups(table)
    found = sc.get.rank_genes_groups_df(simulated, "type_1").set_index("names")
    np.testing.assert_allclose(found["scores"], table.loc[found.index, "bayes_factor"], rtol=1e-5)
    assert found["pvals_adj"].isna().all()


def test_tables_without_a_place_in_the_layout_are_refused(trained, simulated):
    model = trained()
    table = model.differential_expression(**FEW)
    other = model.differential_expression(group1="type_0", group2="type_1", **FEW)
    masks = model.differential_expression(idx1=np.arange(60), **FEW)
    cases = [
        (DataError, "lacks the columns group1", table.drop(columns="group1"), None),
        (DataError, "lacks the columns lfc_sure, bayes_factor", table.drop(columns=["lfc_sure", "bayes_factor"]), None),
        (SettingError, "compared with 2 different ones", pd.concat([table, other]), "cell_type"),
        (SettingError, "a gene occurs twice", pd.concat([table, table]), "cell_type"),
        (SettingError, "needs to know the column of obs", masks, None),
    ]
    for error, message, wrong, groupby in cases:
        with pytest.raises(error, match=message) as caught:
            lc.to_rank_genes_groups(wrong, groupby)
        assert_sentence(caught.value)
    assert lc.to_rank_genes_groups(masks, "half")["params"]["groupby"] == "half"
