"""Two factors at a time, genes by rank, and cells between archetypes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.cell_points import Groups, draw_cells, zero_lines
from lucidcell.plots.labels import place_labels
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, DOWN, FAINT, HAIRLINE, INK, MISSING, UP, style

_REACH = 0.9  # of the longest gene vector, relative to the farthest cells
_QUANTILE = 0.995  # of the cells' distances, which stands for the farthest


def factor_density(scores: pd.DataFrame, x: str, y: str, *, bins: int = 60, ax: Axes | None = None) -> Axes:
    """Draw how many cells lie where, in the space of two factors.

    Parameters
    ----------
    scores
        Cells x factors.
    x, y
        Factors on the axes.
    bins
        Hexagons across.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a factor.
    """
    require_columns(scores, [x, y], "scores")
    with style():
        ax = axes_or_new(ax, (4.8, 4.0))
        drawn = ax.hexbin(
            scores[x], scores[y], gridsize=bins, cmap=CONTINUOUS, norm=LogNorm(), mincnt=1, linewidths=0.1
        )
        figure = ax.get_figure()
        assert figure is not None
        bar = figure.colorbar(drawn, ax=ax, label="cells", shrink=0.8, aspect=25, pad=0.02)
        bar.outline.set_visible(False)
        zero_lines(ax, x, y)
    return ax


def factor_pair(
    scores: pd.DataFrame,
    loadings: pd.DataFrame,
    x: str,
    y: str,
    *,
    groups: Groups | None = None,
    n_genes: int = 10,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells in the space of two factors, and the genes with the longest loadings as vectors.

    Vectors have the directions of the loadings; their common scale is chosen so that the longest fits the cells.

    Parameters
    ----------
    scores
        Cells x factors.
    loadings
        Genes x factors: the same factors, rotated alike.
    x, y
        Factors on the axes.
    groups
        Category of each cell, for its colour.
    n_genes
        Vectors drawn.
    seed
        Of the drawing order.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If a table is empty or lacks a factor, or there are not as many groups as cells.
    """
    require_columns(scores, [x, y], "scores")
    require_columns(loadings, [x, y], "loadings")
    xy, vectors = scores[[x, y]].to_numpy(float), loadings[[x, y]].to_numpy(float)
    lengths = np.linalg.norm(vectors, axis=1)
    top = np.argsort(-lengths, kind="stable")[:n_genes]
    top = top[lengths[top] > 0]
    with style():
        ax = axes_or_new(ax, (6.0, 4.8))
        draw_cells(ax, xy, groups, seed=seed, plain=MISSING)
        zero_lines(ax, x, y)
        if len(top):
            scale = _REACH * float(np.quantile(np.linalg.norm(xy, axis=1), _QUANTILE)) / lengths[top[0]]
            ends = vectors[top] * (scale or 1.0)
            for end in ends:
                ax.annotate(
                    "", (end[0], end[1]), xytext=(0, 0),
                    arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
            ax.update_datalim(ends)
            ax.autoscale_view()
            place_labels(ax, ends, [str(loadings.index[g]) for g in top])
    return ax


def loadings_rank(
    loadings: pd.DataFrame, factor: str, *, n_genes: int = 8, label: str = "loading", ax: Axes | None = None
) -> Axes:
    """Draw the loadings of all genes on a factor from high to low, with names at both ends.

    Parameters
    ----------
    loadings
        Genes x factors.
    factor
        Which column.
    n_genes
        Names at each end.
    label
        What a loading is, with its unit.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks the factor.
    """
    require_columns(loadings, [factor], "loadings")
    values = loadings[factor].sort_values(ascending=False, kind="stable")
    heights, rank = values.to_numpy(float), np.arange(1, len(values) + 1)
    ends = np.unique(np.r_[0 : min(n_genes, len(values)), max(0, len(values) - n_genes) : len(values)])
    ends = ends[np.argsort(-np.abs(heights[ends]), kind="stable")]
    with style():
        ax = axes_or_new(ax, (4.4, 3.6))
        ax.axhline(0, color=HAIRLINE, linewidth=0.8)
        ax.scatter(rank, heights, s=5, color=FAINT, linewidths=0, rasterized=len(values) > 500)
        ax.scatter(rank[ends], heights[ends], s=14, c=[UP if heights[g] >= 0 else DOWN for g in ends], linewidths=0)
        ax.set_xlabel("rank of the gene")
        ax.set_ylabel(label)
        ax.set_title(readable(factor))
        ax.margins(x=0.12, y=0.08)
        place_labels(ax, np.column_stack([rank[ends], heights[ends]]), [str(values.index[g]) for g in ends])
    return ax


def simplex(
    scores: pd.DataFrame,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells of a logistic-normal latent between the archetypes, which stand on a circle in the table's order.

    A cell is drawn at the mean of the corners, weighted by its scores. With more than three archetypes cells of
    different scores can fall on one point.

    Parameters
    ----------
    scores
        Cells x factors, positive, each row with sum 1.
    groups
        Category of each cell, for its colour.
    seed
        Of the drawing order.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the rows are not on the simplex, or there are fewer than three archetypes.
    """
    require_columns(scores, [], "scores")
    values, n = scores.to_numpy(float), scores.shape[1]
    n_off = int((~((values >= -1e-6).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3))).sum())
    if n_off or n < 3:
        msg = (
            f"{n_off} of {len(values)} cells have scores that are negative or do not sum to 1, over {n} factors: pass "
            "the unrotated scores of a model with latent_distribution='ln' and at least 3 factors."
        )
        raise DataError(msg)
    angles = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    corners = np.column_stack([np.cos(angles), np.sin(angles)])
    xy = values @ corners
    with style():
        ax = axes_or_new(ax, (5.4, 4.6))
        ax.fill(*corners.T, facecolor="none", edgecolor=FAINT, linewidth=0.8)
        draw_cells(ax, xy, groups, seed=seed, plain=DOWN)
        for (px, py), name in zip(corners * 1.06, scores.columns, strict=True):
            ax.text(px, py, readable(name, 14), ha="center" if abs(px) < 0.2 else "left" if px > 0 else "right",
                    va="center" if abs(py) < 0.8 else "bottom" if py > 0 else "top", fontsize=8)  # fmt: skip
        ax.set_aspect("equal")
        ax.set_xlim(-1.3, 1.3)
        ax.set_ylim(-1.15, 1.2)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_xlabel("corners: archetypes (no unit)", fontsize=7)
        ax.set_ylabel("weights of a cell sum to 1", fontsize=7)
    return ax
