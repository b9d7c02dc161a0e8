from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from lucidcell.cells import select_genes
from lucidcell.errors import DataError, SettingError

sc = pytest.importorskip("scanpy")


@pytest.fixture
def data() -> ad.AnnData:
    """200 cells x 400 genes in three batches; the first 4 genes mark one of two kinds of cells."""
    rng = np.random.default_rng(0)
    means = np.tile(rng.uniform(1, 8, 400), (200, 1))
    means[:, :4] = [4, 6, 8, 10]
    means[:100, :2] = means[100:, 2:4] = 0.1
    obs = pd.DataFrame({"run": rng.choice(["a", "b", "c"], 200)}, index=[f"c{i}" for i in range(200)])
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(means).astype(np.float32)), obs=obs)
    adata.var_names = [f"g{j}" for j in rng.permutation(400)]
    adata.var["planted"] = np.arange(400) < 4
    adata.obsm["E"] = np.ones((200, 2))
    return adata


def by_scanpy(adata: ad.AnnData, n: int, batch_key: str | None) -> list[str]:
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=n, flavor="seurat", batch_key=batch_key)
    return list(logged.var_names[logged.var["highly_variable"]])


@pytest.mark.parametrize("batch_key", [None, "run"])
def test_the_choice_is_scanpys(data: ad.AnnData, batch_key: str | None) -> None:
    chosen = select_genes(data, n_top_genes=15, batch_key=batch_key)
    assert list(chosen.var_names) == by_scanpy(data, 15, batch_key)
    assert chosen.n_vars == 15


def test_planted_genes_are_found_and_counts_kept(data: ad.AnnData) -> None:
    chosen = select_genes(data, n_top_genes=4)
    assert chosen.var["planted"].all()
    np.testing.assert_array_equal(chosen.X.toarray(), data[:, chosen.var_names].X.toarray())
    assert list(chosen.obs_names) == list(data.obs_names)
    assert "E" in chosen.obsm
    assert not chosen.is_view


def test_a_layer_decides_when_named(data: ad.AnnData) -> None:
    expected = list(select_genes(data, n_top_genes=12).var_names)
    data.layers["counts"] = data.X.copy()
    data.X = data.X.log1p()
    with pytest.raises(DataError, match="layers\\['counts'\\] looks like counts: pass layer='counts'"):
        select_genes(data, n_top_genes=12)
    assert list(select_genes(data, n_top_genes=12, layer="counts").var_names) == expected


def test_the_data_are_not_changed(data: ad.AnnData) -> None:
    before = data.X.copy()
    select_genes(data, n_top_genes=12, batch_key="run")
    assert (data.X != before).nnz == 0
    assert list(data.var.columns) == ["planted"]
    assert dict(data.uns) == {}


def test_more_genes_than_there_are_keeps_all(data: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lucidcell"):
        chosen = select_genes(data, n_top_genes=500)
    assert chosen.n_vars == 400
    assert chosen is not data
    assert "all 400 genes are kept" in caplog.text


def test_backed_data_come_back_in_memory(data: ad.AnnData, tmp_path: Path) -> None:
    data.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    chosen = select_genes(backed, n_top_genes=12)
    assert not chosen.isbacked
    assert list(chosen.var_names) == list(select_genes(data, n_top_genes=12).var_names)
    backed.file.close()


def test_small_batches_and_empty_cells_do_no_harm(data: ad.AnnData) -> None:
    data.obs["run"] = ["alone"] + ["two"] * 2 + ["rest"] * 197
    values = data.X.toarray()
    values[50] = 0
    data.X = values
    assert select_genes(data, n_top_genes=12, batch_key="run").n_vars == 12


def test_mistakes_are_sentences(data: ad.AnnData) -> None:
    with pytest.raises(SettingError, match="n_top_genes=0 is not possible"):
        select_genes(data, n_top_genes=0)
    with pytest.raises(DataError, match="did you mean 'run'"):
        select_genes(data, n_top_genes=10, batch_key="rum")
    data.obs.loc["c3", "run"] = None
    with pytest.raises(DataError, match=r"obs\['run'\] has no value \(NaN\) in 1 of 200 cells"):
        select_genes(data, n_top_genes=10, batch_key="run")


def test_real_data(shared: Callable[[str], Path]) -> None:
    data = ad.read_h5ad(shared("klein_subset.h5ad"))
    assert list(select_genes(data, n_top_genes=200).var_names) == by_scanpy(data, 200, None)
