"""Cells on a two-dimensional map, coloured by a category or a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from lucidcell.errors import DataError, SettingError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.categories import group_colors, legend_beside, names_on_groups
from lucidcell.plots.map_points import ColorScale, color_bar, color_scale, map_frame, point_area, scatter
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, MISSING, style

Kind = Literal["categorical", "continuous"]
Names = Literal["on", "beside"]
PANEL_INCHES = 1.9


def embedding(
    xy: np.ndarray,
    values: Sequence[object] | np.ndarray | pd.Series | pd.Categorical,
    kind: Kind,
    *,
    names: Names = "beside",
    label: str = "",
    title: str = "",
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells on a map, in random order so that no group hides another.

    Categories take the palette's colours; when there are more categories than colours, the largest get them and the
    rest are grey, as are cells without a value. Numbers get a perceptually uniform scale; if some are negative, one
    that is centred at 0. The scale ends at the 99th percentile.

    Parameters
    ----------
    xy
        Coordinates (n, 2).
    values
        Category or number of each cell (n); None or NaN where there is none.
    kind
        "categorical" or "continuous".
    names
        Where the names of categories go: "on" the map, at the middle of each group, or "beside" it as a legend.
    label
        What a continuous value is, with its unit.
    title
        Title of the panel.
    seed
        Of the drawing order.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If `xy` is not (n, 2) and finite, or `values` has another length.
    SettingError
        If `kind` or `names` is unknown.
    """
    for what, value, known in (("kind", kind, get_args(Kind)), ("names", names, get_args(Names))):
        if value not in known:
            msg = f"{what} is {value!r}; it must be {' or '.join(map(repr, known))}."
            raise SettingError(msg)
    xy = checked_map(xy, len(values))
    area = point_area(len(xy))
    with style():
        ax = axes_or_new(ax, (5.4, 4.6))
        if kind == "continuous":
            numbers = np.asarray(values, dtype=float)
            scale = color_scale(numbers)
            scatter(ax, xy, scale.colors(numbers), area, seed=seed, behind=~np.isfinite(numbers))
            map_frame(ax, title)
            color_bar([ax], scale, label)
            return ax
        groups = pd.Categorical(values)
        colors = group_colors(groups)
        shades = to_rgba_array([*colors, MISSING])[groups.codes]  # code -1, no category, is the last colour
        scatter(ax, xy, shades, area, seed=seed, behind=groups.codes < 0)
        map_frame(ax, title)
        if names == "on":
            names_on_groups(ax, xy, groups, colors)
        else:
            legend_beside(ax, groups, colors)
    return ax


def factor_panel(
    xy: np.ndarray,
    latent: pd.DataFrame,
    *,
    columns: int = 5,
    label: str = "factor value (latent units)",
    limits: tuple[float, float] | None = None,
    seed: int = 0,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw the same map once per factor, all on one colour scale, so that an unused factor looks flat.

    Parameters
    ----------
    xy
        Coordinates (n, 2).
    latent
        Values (n, D), one column per factor.
    columns
        Panels in a row.
    label
        What a value is, with its unit.
    limits
        Ends of the colour scale, such as (0, 1) for probabilities; from the values by default.
    seed
        Of the drawing order.
    figure
        An empty figure to fill; a new one by default (`factor_panel_size` gives a good size).

    Raises
    ------
    DataError
        If `xy` is not (n, 2) and finite, or `latent` has another number of rows or no column.
    """
    require_columns(latent, [], "latent values")
    xy = checked_map(xy, len(latent))
    columns = min(columns, latent.shape[1])
    scale = color_scale(latent.to_numpy(float)) if limits is None else ColorScale(CONTINUOUS, *limits, "neither")
    area = point_area(len(xy), panel_inches=PANEL_INCHES)
    with style():
        if figure is None:
            import matplotlib.pyplot as plt  # here, because it looks for a display

            figure = plt.figure(figsize=factor_panel_size(latent.shape[1], columns), layout="constrained")
        grid = figure.subplots(-(-latent.shape[1] // columns), columns, squeeze=False).ravel()
        panels = list(grid[: latent.shape[1]])
        for index, (ax, name) in enumerate(zip(panels, latent.columns, strict=True)):
            numbers = latent[name].to_numpy(float)
            scatter(ax, xy, scale.colors(numbers), area, seed=seed, behind=~np.isfinite(numbers))
            map_frame(ax, readable(name), boxed=True)
            ax.xaxis.label.set_visible(index + columns >= len(panels))
            ax.yaxis.label.set_visible(index % columns == 0)
        for ax in grid[latent.shape[1] :]:
            ax.remove()
        color_bar(panels, scale, label, shrink=min(0.9, 1.4 * columns / len(panels)))
    return panels


def factor_panel_size(n_factors: int, columns: int = 5) -> tuple[float, float]:
    """Return the width and height in inches at which the panels of `factor_panel` are about square."""
    n_rows = -(-n_factors // columns)
    return PANEL_INCHES * min(columns, n_factors) + 1.0, (PANEL_INCHES + 0.15) * n_rows + 0.3


def checked_map(xy: np.ndarray, n: int) -> np.ndarray:
    """Return coordinates (n, 2) as float; raise `DataError` if they are not finite, or not of `n` cells."""
    xy = np.asarray(xy, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2:
        msg = f"the map has shape {xy.shape}; pass coordinates of shape (number of cells, 2)."
        raise DataError(msg)
    if len(xy) != n:
        msg = f"the map has {len(xy):,} cells and there are {n:,} values: pass one value per cell, in the same order."
        raise DataError(msg)
    n_lost = int((~np.isfinite(xy).all(axis=1)).sum())
    if n_lost:
        msg = f"{n_lost:,} of {n:,} cells have no finite place on the map: leave them out, values and all."
        raise DataError(msg)
    return xy
