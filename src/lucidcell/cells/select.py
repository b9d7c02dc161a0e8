"""Choose the genes worth modelling."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import encode, require_complete
from lucidcell.cells.parts import Parts
from lucidcell.errors import SettingError

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("lucidcell")


def select_genes(
    adata: AnnData, *, n_top_genes: int = 2000, layer: str | None = None, batch_key: str | None = None
) -> AnnData:
    """The most variable genes, by scanpy's `highly_variable_genes(flavor="seurat")` on normalised logarithms.

    Parameters
    ----------
    adata
        Counts in X or `layer`; not changed.
    n_top_genes
        How many genes to keep.
    layer
        Layer with the counts; None for X.
    batch_key
        Column of obs; genes are ranked in each batch, and those variable in most batches are kept.

    Returns
    -------
    anndata.AnnData
        A copy in memory with these genes in their old order, counts and everything else kept.

    Raises
    ------
    DataError
        If the counts or the batch column cannot be used.
    SettingError
        If `n_top_genes` is not positive.
    """
    if n_top_genes < 1:
        raise SettingError(f"n_top_genes={n_top_genes} is not possible: keep at least one gene, usually 1000 to 4000.")
    parts = Parts.of(adata, model="select_genes", smallest=2)
    if n_top_genes >= adata.n_vars:
        logger.info("all %d genes are kept, since n_top_genes is %d.", adata.n_vars, n_top_genes)
        return _in_memory(adata, np.ones(adata.n_vars, bool))
    return _in_memory(adata, _most_variable(parts, n_top_genes, layer, batch_key))


def _most_variable(parts: Parts, n_top_genes: int, layer: str | None, batch_key: str | None) -> np.ndarray:
    """Mask of the genes to keep, (genes,) bool."""
    import anndata
    import scanpy as sc

    genes = parts.shared_genes()
    counts = parts.rows(layer, genes, model="select_genes", counts=True)
    logged = anndata.AnnData(counts.to_scipy(), var=pd.DataFrame(index=list(genes)))
    if batch_key is not None:
        codes, _ = encode(parts.column(batch_key, argument="batch_key"))
        require_complete(codes, batch_key, "batch")
        logged.obs["batch"] = pd.Categorical(codes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy warns of empty cells, which rank nothing
        sc.pp.normalize_total(logged, target_sum=1e4)
        sc.pp.log1p(logged)
        sc.pp.highly_variable_genes(
            logged, n_top_genes=n_top_genes, flavor="seurat", batch_key=None if batch_key is None else "batch"
        )
    return logged.var["highly_variable"].to_numpy(bool)


def _in_memory(adata: AnnData, keep: np.ndarray) -> AnnData:
    chosen = adata[:, keep]
    return chosen.to_memory() if adata.isbacked or not isinstance(adata.obs, pd.DataFrame) else chosen.copy()
