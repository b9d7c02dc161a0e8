"""A table of scores as scIB users know it: a dot for each score, a bar for each aggregate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, FAINT, HAIRLINE, INK, PALETTE, style

LOWER_IS_BETTER = ("calibration_error", "unassigned_rate")
_BARS = "aggregate"  # the heading whose columns are drawn as bars
_DOT_AREA = 520  # square points
_WRITTEN = {"ilisi": "iLISI", "clisi": "cLISI", "nmi": "NMI", "ari": "ARI", "ami": "AMI", "kmeans": "k-means"}
_WRITTEN |= {"f1": "F1", "leiden": "Leiden"}


def evaluation(
    table: pd.DataFrame,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    sort_by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw scores between 0 and 1 as coloured dots with their numbers, and aggregates as bars; the best are bold.

    The colour scale is the same in every column, so that dots can be compared across the table: brighter is better.

    Parameters
    ----------
    table
        (embeddings, scores), as `lucidcell.evaluate` returns it.
    groups
        Columns under their headings; by default `table.attrs["groups"]`, or all columns without a heading. The columns
        under "aggregate" become bars.
    sort_by
        Column to sort the rows by, the best on top; by default "total" where there is one, else the given order.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    found: Mapping[str, Sequence[str]] = table.attrs.get("groups", {"": list(table.columns)})
    headings = found if groups is None else groups
    columns = [column for names in headings.values() for column in names]
    if not columns:
        raise DataError("the table of scores has no columns, so there is nothing to draw: pass one with scores.")
    sort_by = sort_by or ("total" if "total" in columns else None)
    require_columns(table, [*columns, *([] if sort_by is None else [sort_by])], "scores")
    if sort_by is not None:
        table = table.sort_values(sort_by, ascending=sort_by in LOWER_IS_BETTER, kind="stable")
    with style():
        ax = axes_or_new(ax, (2.0 + 0.66 * len(columns), 1.8 + 0.4 * len(table)))
        edges = _place(headings)
        for column, centre in edges.items():
            _draw_column(ax, table[column], centre, as_bars=column in headings.get(_BARS, ()))
        _headings(ax, headings, edges)
        for row in range(len(table) + 1):
            ax.axhline(row - 0.5, color=HAIRLINE, linewidth=0.8, zorder=0)
        ax.set_xlim(-0.6, max(edges.values()) + 0.6)
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xticks(list(edges.values()), [_title(column) for column in columns], rotation=40, ha="left")
        ax.xaxis.tick_top()
        ax.set_yticks(range(len(table)), [readable(name) for name in table.index])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_ylabel("embedding")
        ax.set_xlabel("score from 0 to 1; brighter is better, bold is the best of a column", labelpad=24)
    return ax


def _place(headings: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Centre of each column, with a gap before each heading."""
    centres: dict[str, float] = {}
    at = 0.0
    for names in headings.values():
        for name in names:
            centres[name] = at
            at += 1
        at += 0.35
    return centres


def _draw_column(ax: Axes, values: pd.Series, centre: float, *, as_bars: bool) -> None:
    numbers = values.to_numpy(float).round(2)  # as written, so that equal numbers are equally bold
    lower = values.name in LOWER_IS_BETTER
    best = pd.Series(numbers).min() if lower else pd.Series(numbers).max()
    for row, value in enumerate(numbers):
        if not np.isfinite(value):
            ax.text(centre, row, "\N{EN DASH}", ha="center", va="center", color=FAINT)
            continue
        goodness = float(np.clip(1 - value if lower else value, 0, 1))
        if as_bars:
            for width, color in ((1.0, HAIRLINE), (goodness, PALETTE[5])):
                ax.add_patch(Rectangle((centre - 0.45, row - 0.28), 0.9 * width, 0.56, color=color, linewidth=0))
        else:
            ax.scatter([centre], [row], s=_DOT_AREA, color=[mpl.colormaps[CONTINUOUS](goodness)], linewidths=0)
        ax.text(
            centre - 0.4 if as_bars else centre,
            row,
            f"{value:z.2f}".replace("-", "\N{MINUS SIGN}"),
            ha="left" if as_bars else "center",
            va="center",
            fontsize=7.5,
            color="white" if not as_bars and goodness < 0.55 else INK,
            fontweight="bold" if value == best else "normal",
        )


def _headings(ax: Axes, headings: Mapping[str, Sequence[str]], centres: Mapping[str, float]) -> None:
    for heading, names in headings.items():
        if not heading or not names:
            continue
        left, right = centres[names[0]] - 0.45, centres[names[-1]] + 0.45
        transform = ax.get_xaxis_transform()
        ax.plot([left, right], [0, 0], color=FAINT, linewidth=1, transform=transform, clip_on=False)
        ax.text((left + right) / 2, -0.02, heading, ha="center", va="top", color=INK, transform=transform, fontsize=8)


def _title(column: str) -> str:
    arrow = " \N{DOWNWARDS ARROW}" if column in LOWER_IS_BETTER else ""
    return readable(" ".join(_WRITTEN.get(word, word) for word in column.split("_"))) + arrow
