"""What every metric asks of its arrays: shapes that fit, finite numbers, a name for every cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.cells.covariates import encode
from lucidcell.errors import DataError


class Groups(NamedTuple):
    """The batch, or the label, of each of n cells."""

    codes: np.ndarray  # (n,) int64, positions in `names`
    names: tuple[str, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Cells in each group, (groups,) int64."""
        return np.bincount(self.codes, minlength=len(self.names))

    def take(self, rows: np.ndarray) -> Groups:
        """The groups of some cells; groups that none of them belongs to are left out."""
        kept, codes = np.unique(self.codes[rows], return_inverse=True)
        return Groups(codes, tuple(self.names[code] for code in kept))


def points(values: ArrayLike, name: str, n_cells: int | None = None, *, at_least: int = 2) -> np.ndarray:
    """Cells as points, (n, D) float64.

    Parameters
    ----------
    values
        (n, D) numbers.
    name
        What to call them in messages.
    n_cells
        How many cells there must be; None for any number from `at_least` on.
    at_least
        Fewest cells that make sense.

    Raises
    ------
    DataError
        If the shape is another, or a value is NaN or infinite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} holds values that are not numbers: pass an array of cells x dimensions.") from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} has shape {array.shape}: it must be two-dimensional, cells x dimensions.")
    if n_cells is not None and len(array) != n_cells:
        raise DataError(f"{name} has {len(array)} rows for {n_cells} cells: pass one row for each cell.")
    if len(array) < at_least:
        raise DataError(f"{name} has {len(array)} cells, and at least {at_least} are needed: pass more.")
    if n_bad := int(np.count_nonzero(~np.isfinite(array))):
        raise DataError(f"{name} holds {n_bad} NaN or infinite values: drop these cells or embed them again.")
    return array


def groups(values: ArrayLike, name: str, n_cells: int | None = None, *, at_least: int = 1) -> Groups:
    """Names of groups as codes.

    Parameters
    ----------
    values
        (n,) names: text, numbers or categories.
    name
        What to call them in messages.
    n_cells
        How many cells there must be; None for any number.
    at_least
        Fewest different names that make sense.

    Raises
    ------
    DataError
        If the length is another, a cell has no name, or there are too few different names.
    """
    if np.ndim(values) != 1:
        raise DataError(f"{name} has {np.ndim(values)} dimensions: pass one name for each cell.")
    column = pd.Series(values, name=name).reset_index(drop=True)
    if n_cells is not None and len(column) != n_cells:
        raise DataError(f"{name} has {len(column)} entries for {n_cells} cells: pass one for each cell.")
    codes, names = encode(column)
    if n_missing := int(np.count_nonzero(codes < 0)):
        raise DataError(f"{name} is missing (NaN) in {n_missing} of {len(codes)} cells: drop them or give them a name.")
    if len(names) < at_least:
        only = f"only {names[0]!r}" if names else "nothing"
        raise DataError(f"{name} holds {only}, and this metric compares at least {at_least} groups of cells.")
    return Groups(codes, names)


def data_sets(batch: ArrayLike | None, n_cells: int) -> Groups:
    """The batches, or all cells as one where None is given.

    Raises
    ------
    DataError
        If the length is another or a cell has no batch.
    """
    return Groups(np.zeros(n_cells, np.int64), ("all",)) if batch is None else groups(batch, "batch", n_cells)
