"""The same cells on two maps: as the counts have them, and as a model has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from lucidcell.plots.categories import group_colors, legend_beside
from lucidcell.plots.embedding import checked_map
from lucidcell.plots.map_points import map_frame, point_area, scatter
from lucidcell.plots.style import MISSING, style


def integration(
    before: np.ndarray,
    after: np.ndarray,
    batches: pd.Categorical,
    labels: pd.Categorical | None = None,
    *,
    seed: int = 0,
    figure: Figure | None = None,
) -> list[Axes]:
    """Draw cells before (left) and after (right) integration, by batch (top) and by label (bottom).

    Parameters
    ----------
    before, after
        Coordinates (n, 2) of the same cells.
    batches
        Batch of each cell (n).
    labels
        Label of each cell (n), missing where there is none; without it, one row of maps is drawn.
    seed
        Of the drawing order.
    figure
        An empty figure to fill; a new one by default (`integration_size` gives a good size).

    Raises
    ------
    DataError
        If a map is not (n, 2) and finite.
    """
    maps = [checked_map(xy, len(batches)) for xy in (before, after)]
    rows = [("batch", batches)] if labels is None else [("batch", batches), ("label", labels)]
    area = point_area(len(batches), panel_inches=3.2)
    with style():
        if figure is None:
            import matplotlib.pyplot as plt  # here, because it looks for a display

            figure = plt.figure(figsize=integration_size(labels is not None), layout="constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False)
        for (what, groups), panels in zip(rows, grid, strict=True):
            colors = group_colors(groups)
            shades = to_rgba_array([*colors, MISSING])[groups.codes]  # code -1, no category, is the last colour
            for ax, xy, when in zip(panels, maps, ("before", "after"), strict=True):
                scatter(ax, xy, shades, area, seed=seed, behind=groups.codes < 0)
                map_frame(ax, f"{when}, by {what}", boxed=True)
            legend_beside(panels[1], groups, colors)
    return list(grid.ravel())


def integration_size(with_labels: bool) -> tuple[float, float]:
    """Return the width and height in inches that suit the maps."""
    return 9.2, 6.6 if with_labels else 3.5
