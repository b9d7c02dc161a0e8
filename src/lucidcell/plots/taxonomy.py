"""The levels of a hierarchy of cell types, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, MISSING, style


def taxonomy_levels(nodes: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw a hierarchy of cell types as nested boxes, from coarse (left) to fine (right), coloured by confidence.

    The number in a box is that of its cells; its height is that of the types that it divides into.

    Parameters
    ----------
    nodes
        One row per type of each level, parents first: node, parent (of a type of the first level: ""), level (its
        name), n_cells and confidence (mean over these cells, 0 to 1; may be missing).
    ax
        Where to draw; a new figure by default (`taxonomy_size` gives a good size).

    Raises
    ------
    DataError
        If the table is empty or lacks a column, or a parent is not in the level before.
    """
    require_columns(nodes, ["node", "parent", "level", "n_cells", "confidence"], "types")
    levels = list(dict.fromkeys(nodes["level"]))
    boxes = _boxes(nodes, levels)
    mappable = ScalarMappable(Normalize(0, 1), CONTINUOUS)
    with style():
        ax = axes_or_new(ax, taxonomy_size(nodes))
        for (column, node), (top, height) in boxes.items():
            row = nodes[(nodes["level"] == levels[column]) & (nodes["node"] == node)].iloc[0]
            confidence = float(row["confidence"])
            color = mappable.to_rgba(np.array(confidence)) if np.isfinite(confidence) else MISSING
            ax.add_patch(Rectangle((column + 0.02, top + 0.05), 0.96, height - 0.1, facecolor=color))
            ink = "white" if confidence < 0.55 else "black"
            text = f"{readable(node, 20)}  {int(row['n_cells']):,}"
            ax.text(column + 0.06, top + height / 2, text, va="center", fontsize=7.5, color=ink)
        ax.set(xlim=(0, len(levels)), ylim=(max(top + height for top, height in boxes.values()), 0))
        ax.set_xticks([index + 0.5 for index in range(len(levels))], [readable(level) for level in levels])
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.set_yticks([])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("level of the hierarchy")
        ax.set_ylabel("predicted label, and its cells")
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(mappable, ax=ax, label="mean confidence", shrink=0.6, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return ax


def taxonomy_size(nodes: pd.DataFrame) -> tuple[float, float]:
    """Return the width and height in inches that suit a hierarchy."""
    boxes = _boxes(nodes, list(dict.fromkeys(nodes["level"])))
    n_rows = max(top + height for top, height in boxes.values())
    return 1.4 + 2.0 * nodes["level"].nunique(), max(2.0, 0.9 + 0.24 * n_rows)


def _boxes(nodes: pd.DataFrame, levels: list[object]) -> dict[tuple[int, str], tuple[int, int]]:
    """Top and height of each type, by the number of its level and its name; a type without types below has height 1."""
    below: dict[tuple[int, str], list[str]] = {}
    for level, parent, node in zip(nodes["level"], nodes["parent"], nodes["node"], strict=True):
        below.setdefault((levels.index(level) - 1, str(parent)), []).append(str(node))
    boxes: dict[tuple[int, str], tuple[int, int]] = {}

    def place(column: int, name: str, top: int) -> int:
        bottom = top
        for child in below.get((column, name), []):
            bottom = place(column + 1, child, bottom)
        boxes[column, name] = (top, max(bottom - top, 1))
        return top + boxes[column, name][1]

    place(-1, "", 0)
    del boxes[-1, ""]
    if len(boxes) != len(nodes):
        lost = next(
            node
            for level, node in zip(nodes["level"], nodes["node"], strict=True)
            if (levels.index(level), str(node)) not in boxes
        )
        number = f"{len(nodes) - len(boxes)} of {len(nodes)} types, such as {str(lost)!r},"
        msg = f"{number} have no parent in the level before: pass one row per type, with its parent's name."
        raise DataError(msg)
    return boxes
