"""Batches that come from elsewhere, such as annbatch's loader, made into those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError, SettingError

if TYPE_CHECKING:
    from lucidcell.cells.batch import Batch


class Loader:
    """An iterable of mappings with "X" and "obs", gone through once an epoch; every batch is checked as all data are.

    Parameters
    ----------
    batches
        Cells x genes in the model's genes, in order: scipy sparse, NumPy or torch, dense or CSR; "obs" is a DataFrame
        with the columns that the model reads, and may be missing where it reads none. It needs a length.
    schema
        What the model remembers of its own cells.
    model
        Name of the model, for messages.

    Raises
    ------
    SettingError
        If it is no such iterable.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], schema: Schema, model: str) -> None:
        if not isinstance(batches, Iterable) or not isinstance(batches, Sized) or isinstance(batches, Mapping):
            raise SettingError(
                f"loader is a {type(batches).__name__}; it must be an iterable with a length, of dicts with X and obs."
            )
        if not len(batches):
            raise SettingError("loader has no batch.")
        self.batches, self.schema, self.model = batches, schema, model
        self.left: Iterator[Mapping[str, Any]] = iter(())

    def __len__(self) -> int:
        return len(self.batches)

    def start(self, step: int) -> None:
        """Begin an epoch at a step; the batches before it are passed over."""
        self.left = iter(self.batches)
        for _ in range(step):
            next(self.left, None)

    def take(self, rows: np.ndarray) -> Batch:
        """The next batch, whatever the rows."""
        item = next(self.left, None)
        if item is None:
            raise DataError(f"loader has a length of {len(self)} batches and ended before them.")
        cells = self.cells(item)
        return cells.take(np.arange(len(cells)))

    def cells(self, item: Mapping[str, Any]) -> Cells:
        """One batch, checked."""
        import anndata

        if not isinstance(item, Mapping) or "X" not in item:
            raise DataError(f"loader gave a {type(item).__name__} without X; batches are dicts with X and obs.")
        x, obs = _matrix(item["X"]), item.get("obs")
        n_genes = self.schema.n_genes
        if x.ndim != 2 or x.shape[1] != n_genes or x.shape[0] < 2:
            raise DataError(
                f"loader gave X of shape {x.shape}; a batch has at least 2 cells, and the model {n_genes} genes."
            )
        table = pd.DataFrame(index=range(x.shape[0])) if obs is None else obs
        table = table.set_axis(np.arange(len(table)).astype(str), axis=0)
        adata = anndata.AnnData(x, obs=table, var=pd.DataFrame(index=list(self.schema.gene_names)))
        return Cells.from_schema(adata, self.schema, layer=None, model=self.model, quiet=True)


def _matrix(x: Any) -> Any:
    """As scipy or NumPy."""
    if not hasattr(x, "detach"):  # no tensor of torch
        return x if sp.issparse(x) else np.asarray(x)
    x = x.detach().cpu()
    if not (x.is_sparse or x.is_sparse_csr):
        return x.numpy()
    x = x.to_sparse_csr()
    parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
    return sp.csr_matrix(parts, shape=tuple(x.shape))
