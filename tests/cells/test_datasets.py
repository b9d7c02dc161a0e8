from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np

from lucidcell.cells import Cells, hallmark, pbmc3k, select_genes


def test_the_bundled_cells_are_ready_for_a_model() -> None:
    adata = pbmc3k()
    assert adata.shape == (2638, 2000)
    assert adata.X.dtype == np.float32
    assert adata.obs["cell_type"].nunique() == 9
    assert adata.obs["cell_type_coarse"].nunique() == 4
    assert "CC BY 4.0" in adata.uns["source"]
    cells = Cells.from_anndata(adata, labels_key="cell_type")
    assert cells.schema.n_labels == 9
    assert cells.record.warnings == []


def test_the_bundled_cells_are_those_of_the_original(shared: Callable[[str], Path]) -> None:
    original = ad.read_h5ad(shared("pbmc3k.h5ad"))
    labelled = original[(original.obs["cell_type"] != "unlabelled").to_numpy()].copy()
    expected, bundled = select_genes(labelled, n_top_genes=2000), pbmc3k()
    assert list(expected.var_names) == list(bundled.var_names)
    assert list(expected.obs_names) == list(bundled.obs_names)
    assert (expected.X != bundled.X).nnz == 0
    assert (expected.obs["cell_type"].astype(str) == bundled.obs["cell_type"].astype(str)).all()


def test_the_bundled_gene_sets_meet_the_bundled_cells() -> None:
    sets, genes = hallmark(), set(pbmc3k().var_names)
    assert len(sets) == 50
    assert len(genes & set(sets["HALLMARK_INTERFERON_ALPHA_RESPONSE"])) > 15


def test_the_folder_imports_without_heavy_libraries() -> None:
    heavy = "torch scanpy anndata numba h5py sklearn matplotlib"
    code = f"import sys, lucidcell.cells; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
