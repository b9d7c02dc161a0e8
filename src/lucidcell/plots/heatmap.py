"""A table as coloured cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import NullLocator

from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, DIVERGING, MISSING, diverging_limit, style

_WRITTEN_UP_TO = 150  # entries; larger tables show colours only
_UPRIGHT_UP_TO = 15  # columns; in wider tables their names are turned


def heatmap(
    table: pd.DataFrame, *, color_label: str, row_label: str = "", column_label: str = "", ax: Axes | None = None
) -> Axes:
    """Draw each entry of a table as a colour; tables with negative values get a diverging scale centred at 0.

    Parameters
    ----------
    table
        Numbers (rows, columns); missing entries are grey.
    color_label
        What the numbers are, with their unit.
    row_label, column_label
        What rows and columns are.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table has no rows.
    """
    require_columns(table, [], "numbers")
    values = table.to_numpy(float)
    signed = bool((values[np.isfinite(values)] < 0).any())
    limit = diverging_limit(values, 1.0)
    norm = Normalize(-limit if signed else 0, limit)
    with style():
        ax = axes_or_new(ax, heatmap_size(*table.shape))
        image = ax.imshow(
            values,
            cmap=DIVERGING if signed else CONTINUOUS,
            norm=norm,
            aspect="auto",
            interpolation="nearest",
        )
        ax.set_facecolor(MISSING)
        ax.set_xticks(range(table.shape[1]), [readable(name) for name in table.columns])
        ax.set_yticks(range(table.shape[0]), [readable(name) for name in table.index])
        if table.shape[1] > _UPRIGHT_UP_TO or max((len(str(name)) for name in table.columns), default=0) > 4:
            ax.tick_params(axis="x", labelrotation=90)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(column_label)
        ax.set_ylabel(row_label)
        if values.size <= _WRITTEN_UP_TO:
            _write_values(ax, values, norm, signed)
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(image, ax=ax, label=color_label, shrink=0.9, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return ax


def heatmap_size(n_rows: int, n_columns: int) -> tuple[float, float]:
    """Return the width and height in inches that suit a table."""
    column, row = 0.42 if n_columns <= _UPRIGHT_UP_TO else 0.2, 0.23 if n_rows <= 30 else 0.16
    return 3.2 + column * n_columns, max(2.0, 0.9 + row * n_rows)


def _write_values(ax: Axes, values: np.ndarray, norm: Normalize, signed: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        shade = float(norm(value))
        dark = abs(shade - 0.5) > 0.36 if signed else shade < 0.55
        ax.text(
            column, row, f"{value:z.1f}".replace("-", "\N{MINUS SIGN}"), ha="center", va="center", fontsize=7,
            color="white" if dark else "black",
        )  # fmt: skip
