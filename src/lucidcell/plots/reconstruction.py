"""Does the model expect what was observed? One point per gene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lucidcell.plots.canvas import axes_or_new, panels_or_new, require_columns
from lucidcell.plots.labels import place_labels
from lucidcell.plots.style import INK, PALETTE, UP, plain_log_axis, style

PSEUDO_MEAN = 0.01  # counts per cell, added to both means so that hardly seen genes do not lead the ranking
_RASTERISED_FROM = 500  # points; above, an SVG holds them as an image


def log2_ratio(genes: pd.DataFrame) -> pd.Series:
    """Return log2 of expected over observed mean per gene: above 0, the model expects too much."""
    return np.log2((genes["mean_expected"] + PSEUDO_MEAN) / (genes["mean_observed"] + PSEUDO_MEAN))


def reconstruction(genes: pd.DataFrame, *, n_named: int = 10, ax: Axes | None = None) -> Axes:
    """Draw expected against observed mean counts of each gene on log axes; the worst genes are named.

    Genes with a mean of 0 on either side have no place on a log axis and are counted in a note.

    Parameters
    ----------
    genes
        Columns gene, mean_observed, mean_expected (counts per cell).
    n_named
        How many genes to name, by distance from the line of identity (`log2_ratio`).
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    require_columns(genes, ["gene", "mean_observed", "mean_expected"], "genes")
    with style():
        ax = axes_or_new(ax, (4.6, 4.2))
        shown = _compare(ax, genes, "mean", log=True)
        ax.set_xlabel("observed mean (counts per cell)")
        ax.set_ylabel("expected mean (counts per cell)")
        worst = shown.loc[log2_ratio(shown).abs().sort_values(ascending=False, kind="stable").index[:n_named]]
        places = worst[["mean_observed", "mean_expected"]].to_numpy(float)
        ax.scatter(places[:, 0], places[:, 1], s=14, color=UP, linewidths=0, zorder=4)
        place_labels(ax, places, list(worst["gene"]))
    return ax


def predictive_check(genes: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Compare coefficient of variation and fraction of zeros of each gene: in draws from the model against the data.

    Parameters
    ----------
    genes
        Columns cv_observed, cv_expected, zero_fraction_observed, zero_fraction_expected.
    axes
        Two Axes; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    statistics = ("cv", "zero_fraction")
    require_columns(genes, [f"{name}_{side}" for name in statistics for side in ("observed", "expected")], "genes")
    with style():
        panels = panels_or_new(axes, 2, (7.6, 3.8))
        _compare(panels[0], genes, "cv", log=True)
        panels[0].set_title("Coefficient of variation")
        panels[0].set_xlabel("observed (standard deviation / mean)")
        panels[0].set_ylabel("expected (standard deviation / mean)")
        _compare(panels[1], genes, "zero_fraction", log=False)
        panels[1].set_title("Fraction of zeros")
        panels[1].set_xlabel("observed (fraction of cells)")
        panels[1].set_ylabel("expected (fraction of cells)")
    return panels


def _compare(ax: Axes, genes: pd.DataFrame, statistic: str, *, log: bool) -> pd.DataFrame:
    """Draw points and the line of identity; return the genes that have a place on the axes."""
    columns = [f"{statistic}_observed", f"{statistic}_expected"]
    values = genes[columns].to_numpy(float)
    visible = (np.isfinite(values) & (values > 0 if log else True)).all(axis=1)
    x, y = values[visible].T
    area, alpha = (14, 0.6) if len(x) < 1000 else (7, 0.35) if len(x) < 5000 else (3, 0.35)
    ax.scatter(x, y, s=area, color=PALETTE[0], alpha=alpha, linewidths=0, rasterized=len(x) > _RASTERISED_FROM)
    low, high = _common_limits(values[visible], log)
    ax.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    if log:
        plain_log_axis(ax, "x")
        plain_log_axis(ax, "y")
    hidden = len(genes) - int(visible.sum())
    if hidden:
        why = "0 or missing" if log else "missing"
        ax.annotate(f"{hidden:,} genes not shown ({why})", (1, 0.02), xycoords="axes fraction", ha="right", fontsize=7)
    return genes[visible]


def _common_limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    if not log:
        return -0.03, 1.03
    if values.size == 0:
        return 0.1, 10.0
    low, high = float(values.min()), float(values.max())
    margin = max(high / low, 1.1) ** 0.04
    return low / margin, high * margin
