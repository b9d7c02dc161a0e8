"""Categories of cells on a map: their colours and their names."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lucidcell.plots.labels import place_labels
from lucidcell.plots.names import readable
from lucidcell.plots.style import MISSING, PALETTE

_LARGE = 0.02  # share of the cells from which on a group is not hidden by its own name


def group_colors(groups: pd.Categorical) -> list[str]:
    """Give each category a colour; when there are more than the palette holds, the smallest ones become grey."""
    colored = np.sort(by_size(groups)[: len(PALETTE)])
    colors = [MISSING] * len(groups.categories)
    for shade, code in zip(PALETTE, colored, strict=False):
        colors[code] = shade
    return colors


def by_size(groups: pd.Categorical) -> np.ndarray:
    """Return the codes of the categories that occur, the largest first."""
    counts = _counts(groups)
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0]


def legend_beside(ax: Axes, groups: pd.Categorical, colors: list[str]) -> None:
    """Write names at the right of the map; grey categories, and cells without a category, are summed up."""
    counts = _counts(groups)
    present = np.sort(by_size(groups))
    entries = [(colors[code], readable(groups.categories[code])) for code in present if colors[code] != MISSING]
    grey = [code for code in present if colors[code] == MISSING]
    if grey:
        entries.append((MISSING, f"{len(grey)} smaller ones ({int(counts[grey].sum()):,} cells)"))
    n_absent = int((groups.codes < 0).sum())
    if n_absent:
        entries.append((MISSING, f"none ({n_absent:,} cells)"))
    handles = [Line2D([], [], linestyle="", marker="o", markersize=6, color=color) for color, _ in entries]
    # matplotlib drops entries whose name begins with "_", so the names are written in afterwards
    placeholders = ["name"] * len(handles)
    legend = ax.legend(handles, placeholders, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)


def names_on_groups(ax: Axes, xy: np.ndarray, groups: pd.Categorical, colors: list[str]) -> None:
    """Write each coloured category at the middle of its group, or as near as the other names allow."""
    codes = [code for code in by_size(groups) if colors[code] != MISSING]
    if codes:
        places = np.array([_middle(xy[groups.codes == code]) for code in codes])
        place_labels(
            ax,
            places,
            [groups.categories[code] for code in codes],
            colors=[colors[code] for code in codes],
            covering=[bool(share > _LARGE) for share in _counts(groups)[codes] / len(groups)],
        )


def _middle(points: np.ndarray) -> np.ndarray:
    """Find the point nearest to the median of the group, so that a name never stands on empty ground."""
    distance = ((points - np.median(points, axis=0)) ** 2).sum(axis=1)
    nearest: np.ndarray = points[distance.argmin()]
    return nearest


def _counts(groups: pd.Categorical) -> np.ndarray:
    return np.bincount(groups.codes[groups.codes >= 0], minlength=len(groups.categories))
