"""Cells and genes in linked spaces, and what switching genes off does to a factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lucidcell.errors import DataError
from lucidcell.plots.canvas import require_columns
from lucidcell.plots.cell_points import Groups, draw_cells, zero_lines
from lucidcell.plots.labels import place_labels
from lucidcell.plots.map_points import point_area
from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, INK, MISSING, UP, style

PANEL_INCHES = 4.2


def cells_and_genes(
    scores: pd.DataFrame,
    loadings: pd.DataFrame,
    x: str,
    y: str,
    *,
    groups: Groups | None = None,
    genes: Sequence[str] | None = None,
    n_genes: int = 20,
    seed: int = 0,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw cells by their scores and, beside them, genes by their loadings on the same two factors.

    A gene that lies far out in some direction is high in the cells that lie far out in the same direction.

    Parameters
    ----------
    scores
        Cells x factors.
    loadings
        Genes x factors, the same factors.
    x, y
        Factors on the axes of both panels.
    groups
        Category of each cell, for its colour.
    genes
        Genes to name and colour; by default the `n_genes` farthest from the origin.
    n_genes
        How many those are.
    seed
        Of the drawing order.
    axes
        The two panels; a new figure by default.

    Raises
    ------
    DataError
        If a table is empty or lacks a factor, there are not as many groups as cells, or a gene has no loadings.
    """
    require_columns(scores, [x, y], "scores")
    require_columns(loadings, [x, y], "loadings")
    places = loadings[[x, y]].to_numpy(float)
    if genes is None:
        named = np.argsort(-np.linalg.norm(places, axis=1), kind="stable")[:n_genes]
    else:
        named = loadings.index.get_indexer(list(genes))
        if missing := [gene for gene, at in zip(genes, named, strict=True) if at < 0]:
            raise DataError(f"{len(missing)} of {len(named)} genes have no loadings, such as {missing[0]!r}.")
    with style():
        left, right = _two_panels(axes)
        draw_cells(left, scores[[x, y]].to_numpy(float), groups, seed=seed, plain=FAINT, names_on_cells=True)
        others = np.setdiff1d(np.arange(len(places)), named)
        right.scatter(places[others, 0], places[others, 1], s=point_area(len(places)), c=MISSING, linewidths=0)
        right.scatter(places[named, 0], places[named, 1], s=16, c=UP, linewidths=0, zorder=3)
        for ax, what, title in ((left, "score", "Cells"), (right, "loading", "Genes")):
            zero_lines(ax, x, y, what)
            ax.set_title(title)
        place_labels(right, places[named], [str(loadings.index[g]) for g in named])
    return [left, right]


def _two_panels(axes: Sequence[Axes] | None) -> tuple[Axes, Axes]:
    if axes is None:
        import matplotlib.pyplot as plt  # here, because it looks for a display

        size = (2 * PANEL_INCHES + 0.6, PANEL_INCHES)
        axes = plt.figure(figsize=size, layout="constrained").subplots(1, 2)
    left, right = axes
    return left, right


def deletion_curves(
    curves: pd.DataFrame, factor: str, *, label: str = "table", axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw how far a factor moves as genes are switched off, and how near it comes as they are switched on.

    Parameters
    ----------
    curves
        What `lucidcell.faithfulness_curves` returns.
    factor
        Which factor.
    label
        What the ranking comes from.
    axes
        The two panels; a new figure by default.

    Raises
    ------
    DataError
        If the table lacks a column or has no such factor.
    """
    require_columns(curves, ["factor", "ranking", "curve", "n_genes", "movement"], "curves")
    one = curves[curves["factor"] == factor]
    if one.empty:
        known = ", ".join(map(str, curves["factor"].unique()[:10]))
        raise DataError(f"the curves have no factor {factor!r}; they have {known}.")
    with style():
        left, right = _two_panels(axes)
        for ax, curve, title in ((left, "deletion", "Top genes off"), (right, "insertion", "Only top genes on")):
            table = one[one["curve"] == curve].pivot(index="n_genes", columns="ranking", values="movement")
            random = table.drop(columns=0)
            low, high = random.quantile(0.05, axis=1), random.quantile(0.95, axis=1)
            ax.fill_between(table.index, low, high, color=MISSING, linewidth=0, label="random genes, 5 to 95 %")
            ax.plot(table.index, random.median(axis=1), color=FAINT, label="random genes, median")
            ax.plot(table.index, table[0], color=UP, marker="o", markersize=3.5, label=label)
            ax.set_xscale("log")
            ax.set_ylim(bottom=0)
            ax.set_xlabel("genes")
            ax.set_ylabel(f"movement of {readable(factor)} (its standard deviations)")
            ax.set_title(title, color=INK)
        left.legend(loc="upper left")
    return [left, right]
