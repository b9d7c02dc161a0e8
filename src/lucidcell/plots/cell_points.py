"""Cells as coloured points between two axes that mean the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array

from lucidcell.errors import DataError
from lucidcell.plots.categories import group_colors, legend_beside, names_on_groups
from lucidcell.plots.map_points import point_area, scatter
from lucidcell.plots.names import readable
from lucidcell.plots.style import HAIRLINE, MISSING, PALETTE

Groups: TypeAlias = Sequence[object] | pd.Series | pd.Categorical
MOST_NAMED = len(PALETTE) // 2  # groups that get their names on the cells


def draw_cells(
    ax: Axes, xy: np.ndarray, groups: Groups | None, *, seed: int, plain: str, names_on_cells: bool = False
) -> None:
    """Draw cells at xy (n, 2) in the colours of their groups, with a legend; all in the colour `plain` without groups.

    With `names_on_cells` a few groups are named where their cells are, instead of in a legend.
    """
    if groups is None:
        shades = np.repeat(to_rgba_array(plain), len(xy), axis=0)
        scatter(ax, xy, shades, point_area(len(xy)), seed=seed, behind=np.zeros(len(xy), bool))
        return
    categories = pd.Categorical(groups)
    if len(categories) != len(xy):
        msg = f"there are {len(categories)} groups for {len(xy)} cells: pass one for each cell, in the same order."
        raise DataError(msg)
    colors = group_colors(categories)
    shades = to_rgba_array([*colors, MISSING])[categories.codes]
    scatter(ax, xy, shades, point_area(len(xy)), seed=seed, behind=categories.codes < 0)
    if names_on_cells and len(categories.categories) <= MOST_NAMED:
        names_on_groups(ax, xy, categories, colors)
    else:
        legend_beside(ax, categories, colors)


def zero_lines(ax: Axes, x: str, y: str, unit: str = "latent units") -> None:
    """Draw lines through zero, and name the axes."""
    ax.axhline(0, color=HAIRLINE, linewidth=0.8, zorder=0)
    ax.axvline(0, color=HAIRLINE, linewidth=0.8, zorder=0)
    ax.set_xlabel(f"{readable(x)} ({unit})")
    ax.set_ylabel(f"{readable(y)} ({unit})")
