"""Batches that come from elsewhere, such as annbatch's loader, made into those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
        try:
            n = 0 if isinstance(batches, Mapping) or not isinstance(batches, Iterable) else len(batches)  # type: ignore[arg-type]
        except TypeError:
            n = 0
        if not n:
            raise SettingError(
                f"loader is a {type(batches).__name__}; it must be an iterable with a length, of dicts with X and obs."
            )
        self.batches, self.n, self.schema, self.model = batches, n, schema, model
        self.left: Iterator[Mapping[str, Any]] = iter(())

    def __len__(self) -> int:
        return self.n

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
        x, obs, var, genes = _matrix(item["X"]), item.get("obs"), item.get("var"), list(self.schema.gene_names)
        if x.ndim != 2 or x.shape[1] != len(genes) or x.shape[0] < 2:
            raise DataError(
                f"loader gave X of shape {x.shape}; a batch has at least 2 cells (leave a smaller last one out), "
                f"and the model {len(genes)} genes."
            )
        if isinstance(var, pd.DataFrame) and list(var.index) != genes:
            raise DataError("loader gives genes in another order than the model's: let it give those of the model.")
        table = pd.DataFrame(index=range(x.shape[0])) if obs is None else obs
        if not isinstance(table, pd.DataFrame) or len(table) != x.shape[0]:
            raise DataError(f"loader gave a {type(obs).__name__} as obs; it must be a DataFrame of {x.shape[0]} cells.")
        if lacking := [key for key in self.schema.labels_keys if key not in table]:
            raise DataError(f"loader gave obs without {lacking[0]!r}, the labels of the model.")
        table = table.set_axis(np.arange(len(table)).astype(str), axis=0)
        adata = anndata.AnnData(x, obs=table, var=pd.DataFrame(index=genes))
        return Cells.from_schema(adata, self.schema, layer=None, model=self.model, quiet=True)


def _matrix(x: Any) -> Any:
    """As CSR of scipy, or NumPy."""
    try:
        if sp.issparse(x):
            return x.tocsr()
        if not hasattr(x, "detach"):  # no tensor of torch
            return np.asarray(x)
        x = x.detach().cpu()
        if not (x.is_sparse or x.is_sparse_csr):
            return x.numpy()
        x = x.to_sparse_csr()
        parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
        return sp.csr_matrix(parts, shape=tuple(x.shape))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"loader gave X as a {type(x).__name__} that cannot be read ({error}): give scipy CSR."
        ) from error
