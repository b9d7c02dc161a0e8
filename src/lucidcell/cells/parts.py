"""One AnnData, or several seen as one: their names, columns and matrices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells import stored
from lucidcell.cells.checks import ValueScan, check_names, check_values, find_count_layers, matrix_name
from lucidcell.cells.covariates import some
from lucidcell.cells.matrix import Rows, read_rows, stack_rows
from lucidcell.cells.stored import StoredMatrix, StoredRows
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

    Data: TypeAlias = AnnData | list[AnnData] | dict[str, AnnData]

PART_KEY = "_dataset"  # stands for the position in the list, or the key in the dict, of several AnnData


@dataclass(frozen=True)
class Parts:
    """Data sets in order, with the names given to them."""

    data: tuple[AnnData, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, adata: Data, *, model: str, smallest: int) -> Parts:
        """Check the types, names and numbers of cells and genes.

        Parameters
        ----------
        adata
            One AnnData, a list, or a dict by name.
        model
            Name for messages.
        smallest
            Fewest cells that make sense.

        Raises
        ------
        DataError
            For anything else, or names or sizes that cannot be used.
        """
        import anndata

        if isinstance(adata, Mapping):
            names, data = tuple(map(str, adata)), tuple(adata.values())
        elif isinstance(adata, list | tuple):
            names, data = tuple(map(str, range(len(adata)))), tuple(adata)
        else:
            names, data = ("all",), (adata,)
        if not data:
            raise DataError(f"{model} needs an AnnData, got an empty {type(adata).__name__}: give at least one.")
        for one in data:
            if not isinstance(one, anndata.AnnData):
                hint = "read it with lucidcell.read_h5ad" if isinstance(one, str) else "build one with anndata.AnnData"
                raise DataError(
                    f"{model} needs an AnnData, or a list or dict of them, got {type(one).__name__}: {hint}."
                )
            check_names(one, smallest=smallest if len(data) == 1 else 1)
        return cls(data, names)

    @property
    def n_cells(self) -> int:
        return sum(one.n_obs for one in self.data)

    def cell_names(self) -> np.ndarray:
        """(n,) of str objects."""
        return np.concatenate([one.obs_names.to_numpy(object) for one in self.data])

    def shared_genes(self) -> tuple[str, ...]:
        """Names that every data set has, in the order of the first."""
        first, *others = [one.var_names for one in self.data]
        for other in others:
            first = first[first.isin(other)]
        return tuple(first)

    def has_column(self, key: str) -> bool:
        return all(key in one.obs.columns for one in self.data)

    def column(self, key: str, *, argument: str) -> pd.Series:
        """A column of obs, one data set after the other.

        Raises
        ------
        DataError
            If a data set has no such column; `argument` is what the user gave it as.
        """
        if key == PART_KEY and len(self.data) > 1:
            codes = np.repeat(np.arange(len(self.data)), [one.n_obs for one in self.data])
            return pd.Series(pd.Categorical.from_codes(codes, list(self.names)), name=key)
        columns = [_column(one, key, argument) for one in self.data]
        if len(columns) > 1 and all(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
            joined = pd.api.types.union_categoricals([column.array for column in columns], ignore_order=True)
            return pd.Series(joined, name=key)
        return pd.concat(columns, ignore_index=True)

    def has_embedding(self, key: str) -> bool:
        """Whether all data sets have `obsm[key]`."""
        return all(key in one.obsm for one in self.data)

    def embedding(self, key: str, *, argument: str = "external_key") -> np.ndarray:
        """`obsm[key]` of all cells, (n, E) float32; `argument` is what the user gave the key as.

        Raises
        ------
        DataError
            If it is missing, not numeric, not finite, or of different widths.
        """
        arrays = [_embedding(one, key, argument) for one in self.data]
        if len({array.shape[1] for array in arrays}) > 1:
            raise DataError(f"obsm[{key!r}] has {[array.shape[1] for array in arrays]} columns: they must be equal.")
        return np.concatenate(arrays)

    def rows(self, layer: str | None, genes: Sequence[str], *, model: str, counts: bool) -> Rows:
        """X or a layer of all cells in memory, its columns being `genes`; those that not all data sets have are zero.

        Raises
        ------
        DataError
            If a matrix is missing, malformed, or holds values that the model cannot use.
        """
        shared = set(self.shared_genes())
        position = {name: i for i, name in enumerate(genes) if name in shared}
        return stack_rows([_rows(one, layer, position, len(genes), model=model, counts=counts) for one in self.data])

    def rows_where_they_lie(
        self, layer: str | None, genes: Sequence[str], *, model: str, counts: bool
    ) -> Rows | StoredRows:
        """The same; data sets that are all in files, and together too large, stay there. All values are checked.

        Raises
        ------
        DataError
            As `rows`.
        """
        matrices = self._in_files(layer, genes)
        if matrices is None:
            return self.rows(layer, genes, model=model, counts=counts)
        scans = [ValueScan() for _ in self.data]
        found = stored.scan(matrices, [scan.look for scan in scans], len(genes))
        for scan, one in zip(scans, self.data, strict=True):
            check_values(scan, one, layer, model=model, counts=counts)
        return found if stored.large(matrices) else found.take(np.arange(found.n_rows))

    def stay_in_files(self, layer: str | None, genes: Sequence[str]) -> bool:
        """Whether all data sets are in files, and their counts together too large to be read."""
        matrices = self._in_files(layer, genes)
        return matrices is not None and stored.large(matrices)

    def _in_files(self, layer: str | None, genes: Sequence[str]) -> list[StoredMatrix] | None:
        """The matrices where they lie, if all are in files."""
        if any(layer is not None and layer not in one.layers for one in self.data):
            return None
        shared = set(self.shared_genes())
        position = {name: i for i, name in enumerate(genes) if name in shared}
        lying = (stored.stored_matrix(one, layer, position, len(genes), matrix_name(layer)) for one in self.data)
        found = [one for one in lying if one is not None]
        return found if len(found) == len(self.data) else None


def no_such_key(kind: str, key: str, existing: Iterable[Any], argument: str) -> DataError:
    """The error for a key that `kind` ("obs", "layers", "obsm") does not have, with close matches."""
    names = [str(name) for name in existing if name is not None]
    close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.6)
    close = close or [name for name in names if name.lower() == str(key).lower()]
    if not names:
        return DataError(f"{kind} has no {key!r}, given as {argument}; it is empty.")
    hint = f"did you mean {close[0]!r}? " if close else ""
    return DataError(f"{kind} has no {key!r}, given as {argument}; {hint}(it has {some(names)}).")


def _column(adata: AnnData, key: str, argument: str) -> pd.Series:
    if key not in adata.obs.columns:
        raise no_such_key("obs", key, adata.obs.columns, argument)
    table = adata.obs[[key]]
    if not isinstance(table, pd.DataFrame):  # the lazy table of anndata.experimental.read_lazy
        table = table.to_memory()
    if table.shape[1] != 1:
        raise DataError(f"obs has {table.shape[1]} columns named {key!r}: rename all but one.")
    return table.iloc[:, 0].reset_index(drop=True)


def _embedding(adata: AnnData, key: str, argument: str) -> np.ndarray:
    if key not in adata.obsm:
        raise no_such_key("obsm", key, adata.obsm, argument)
    stored = adata.obsm[key]
    if sp.issparse(stored):
        stored = stored.toarray()
    try:
        array = np.asarray(stored, dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError(f"obsm[{key!r}] holds values that are not numbers: an embedding must be numeric.") from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"obsm[{key!r}] has shape {array.shape}: an embedding has cells x dimensions.")
    if n_bad := int(np.count_nonzero(~np.isfinite(array))):
        raise DataError(f"obsm[{key!r}] holds {n_bad} NaN or infinite values: drop these cells or embed them again.")
    return array


def _rows(
    adata: AnnData, layer: str | None, position: dict[str, int], n_columns: int, *, model: str, counts: bool
) -> Rows:
    if layer is not None and layer not in adata.layers:
        raise no_such_key("layers", layer, adata.layers, "layer")
    matrix = stored.matrix_of(adata, layer)
    if matrix is None:
        found = [name for name in find_count_layers(adata) if name != "raw.X"]
        hint = f"pass layer={found[0][len('layers[') : -1]}" if found else "set adata.X to the counts"
        raise DataError(f"the AnnData has no X: {hint}.")
    scan = ValueScan()
    columns = np.array([position.get(name, -1) for name in adata.var_names], np.int64)
    unmoved = len(columns) == n_columns and np.array_equal(columns, np.arange(len(columns)))
    rows = read_rows(
        matrix,
        matrix_name(layer),
        columns=None if unmoved else columns,
        n_columns=n_columns,
        look=scan.look,
    )
    check_values(scan, adata, layer, model=model, counts=counts)
    return rows
