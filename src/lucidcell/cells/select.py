"""Choose the genes worth modelling."""

from __future__ import annotations

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from lucidcell.cells.covariates import encode, require_complete
from lucidcell.cells.matrix import Rows
from lucidcell.cells.parts import Parts
from lucidcell.cells.stored import StoredRows, whole
from lucidcell.errors import DataError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

CELLS_AT_A_TIME = 8192  # of those in files

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
        A copy in memory with these genes in their old order, counts and everything else kept; of data that stay in
        their file (`read_h5ad(backed="r")`, above 256 MiB of counts) a view, which stays there, too.

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
        stays = parts.stay_in_files(layer, parts.shared_genes())
        return _with_genes(adata, np.ones(adata.n_vars, bool), stays=stays)
    counts = parts.rows_where_they_lie(layer, parts.shared_genes(), model="select_genes", counts=True)
    keep = _most_variable(parts, counts, n_top_genes, batch_key)
    return _with_genes(adata, keep, stays=isinstance(counts, StoredRows))


def _most_variable(parts: Parts, counts: Rows | StoredRows, n_top_genes: int, batch_key: str | None) -> np.ndarray:
    """Mask of the genes to keep, (genes,) bool."""
    import anndata
    import scanpy as sc

    matrix = _as_dask(counts) if isinstance(counts, StoredRows) else counts.to_scipy()
    logged = anndata.AnnData(matrix, var=pd.DataFrame(index=list(parts.shared_genes())))
    if batch_key is not None:
        codes, _ = encode(parts.column(batch_key, argument="batch_key"))
        require_complete(codes, batch_key, "batch")
        logged.obs["batch"] = pd.Categorical(codes)
    with warnings.catch_warnings(), _on_this_machine(matrix):
        warnings.simplefilter("ignore")  # scanpy warns of empty cells, which rank nothing
        sc.pp.normalize_total(logged, target_sum=1e4)
        sc.pp.log1p(logged)
        sc.pp.highly_variable_genes(
            logged, n_top_genes=n_top_genes, flavor="seurat", batch_key=None if batch_key is None else "batch"
        )
    return logged.var["highly_variable"].to_numpy(bool)


def _on_this_machine(matrix: Any) -> AbstractContextManager[Any]:
    """Blocks of files are read here, also where a Dask cluster is at hand, to which they would all be sent."""
    if isinstance(matrix, csr_matrix):
        return nullcontext()
    import dask

    return dask.config.set(scheduler="threads")


def _as_dask(counts: StoredRows) -> Any:
    """Counts in files as scanpy takes them: some thousand cells are in memory at a time."""
    try:
        import dask.array as da
        from dask.delayed import delayed
    except ImportError as error:
        raise DataError(
            f"to choose genes of {counts.n_rows} cells that stay in their file takes dask: install lucidcell[lazy], or "
            "read the file into memory."
        ) from error
    cuts = [*range(0, counts.n_rows, CELLS_AT_A_TIME), counts.n_rows]
    blocks = [
        da.from_delayed(
            delayed(counts.select(np.arange(start, stop)).to_scipy)(), (stop - start, counts.n_columns),
            meta=csr_matrix((0, 0), dtype=np.float32),
        )
        for start, stop in pairwise(cuts)
    ]  # fmt: skip
    return da.concatenate(blocks)


def _with_genes(adata: AnnData, keep: np.ndarray, *, stays: bool) -> AnnData:
    if stays and adata.is_view and adata.isbacked:  # of which AnnData makes no view
        parent = whole(adata)
        return parent[adata._oidx, np.arange(parent.n_vars)[adata._vidx][keep]]
    chosen = adata[:, keep]
    if stays:
        return chosen
    return chosen.to_memory() if adata.isbacked or not isinstance(adata.obs, pd.DataFrame) else chosen.copy()
