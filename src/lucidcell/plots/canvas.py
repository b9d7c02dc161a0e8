"""Where a plot is drawn, and whether its table has what it needs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from lucidcell.errors import DataError, SettingError


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return `ax` itself, or the only Axes of a new pyplot figure of `size` inches."""
    return ax if ax is not None else panels_or_new(None, 1, size)[0]


def panels_or_new(axes: Sequence[Axes] | None, n: int, size: tuple[float, float]) -> list[Axes]:
    """Return the `n` Axes given, or a row of `n` in a new pyplot figure of `size` inches.

    Raises
    ------
    SettingError
        If the number of Axes given is not `n`.
    """
    if axes is None:
        import matplotlib.pyplot as plt  # here, because it looks for a display

        _, grid = plt.subplots(1, n, figsize=size, layout="constrained", squeeze=False)
        return list(grid[0])
    if len(axes) != n:
        msg = f"{len(axes)} Axes were given and this figure has {n} panels: pass {n}, or None for a new figure."
        raise SettingError(msg)
    return list(axes)


def require_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Raise `DataError` if `table` is empty or lacks one of `columns`."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        present = ", ".join(map(str, table.columns)) or "none"
        msg = f"the table of {what} lacks the columns {', '.join(missing)}; it has {present}: rename or add them."
        raise DataError(msg)
    if table.empty:
        msg = f"the table of {what} has no rows, so there is nothing to draw: pass a table with at least one."
        raise DataError(msg)
