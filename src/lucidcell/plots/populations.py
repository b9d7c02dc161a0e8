"""Populations by their gene networks, and the genes whose place in them goes with a phenotype."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lucidcell.errors import DataError, SettingError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.categories import group_colors, legend_beside
from lucidcell.plots.labels import place_labels
from lucidcell.plots.map_points import ColorScale, color_bar
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, DIVERGING, DOWN, FAINT, HAIRLINE, INK, MISSING, UP, style

_NAMES = {"spearman": "Spearman correlation", "rank_biserial": "rank-biserial correlation"}
_MOST_NAMES = 60  # populations that are written by name


def population_embedding(
    embedding: pd.DataFrame, phenotype: pd.Series | None = None, *, names: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw a point for each population, near to those with a similar network, coloured by the phenotype.

    Parameters
    ----------
    embedding
        `PopulationNetworks.embedding`: populations x (PC1, PC2), with the shares of variance in attrs.
    phenotype
        Number or category of each population; grey where there is none.
    names
        Write the populations' names, as far as they fit without touching.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    require_columns(embedding, ["PC1", "PC2"], "population embedding")
    xy = embedding[["PC1", "PC2"]].to_numpy(float)
    with style():
        ax = axes_or_new(ax, (5.4, 4.4))
        values = None if phenotype is None else phenotype.reindex(embedding.index)
        ax.axhline(0, color=HAIRLINE, linewidth=0.8, zorder=0)
        ax.axvline(0, color=HAIRLINE, linewidth=0.8, zorder=0)
        ax.margins(0.12)
        for axis, column, share in zip((ax.xaxis, ax.yaxis), ("PC1", "PC2"), _shares(embedding), strict=True):
            axis.set_label_text(f"{column} of network similarity{share}")
            axis.set_major_locator(MaxNLocator(5))
        label = "phenotype" if values is None or values.name is None else str(values.name)
        if values is None:
            ax.scatter(xy[:, 0], xy[:, 1], s=42, c=FAINT, linewidths=0.8, edgecolors="white")
        elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            numbers = values.to_numpy(float)
            scale = _whole_range(numbers)
            ax.scatter(xy[:, 0], xy[:, 1], s=42, c=scale.colors(numbers), linewidths=0.8, edgecolors="white")
            color_bar([ax], scale, readable(label))
        else:
            groups = pd.Categorical(values)
            colors = [*group_colors(groups), MISSING]
            ax.scatter(
                xy[:, 0], xy[:, 1], s=42, c=[colors[code] for code in groups.codes], linewidths=0.8, edgecolors="white"
            )
            legend_beside(ax, groups, colors[:-1])
        if names:
            place_labels(ax, xy[:_MOST_NAMES], list(embedding.index[:_MOST_NAMES]), size=7)
    return ax


def association_bars(table: pd.DataFrame, *, n_genes: int = 20, ax: Axes | None = None) -> Axes:
    """Draw bars of the genes whose centrality goes most with the phenotype, beside marks of their mean expression.

    Parameters
    ----------
    table
        What `PopulationNetworks.associate` gives. Bars are full where q is at most 0.05.
    n_genes
        Genes with the smallest p-values.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column, or no gene could be tested.
    SettingError
        If `n_genes` is below 1.
    """
    require_columns(table, ["gene", "statistic", "effect", "q_value", "mean_effect"], "associations")
    if n_genes < 1:
        raise SettingError(f"n_genes is {n_genes!r}; it must be at least 1.")
    shown = table.dropna(subset="effect").head(n_genes).sort_values("effect", ascending=False, kind="stable")
    if shown.empty:
        raise DataError(f"none of {len(table)} genes could be tested, so there is nothing to draw.")
    rows, effects = np.arange(len(shown)), shown["effect"].to_numpy(float)
    significant = shown["q_value"].to_numpy(float) <= 0.05
    with style():
        ax = axes_or_new(ax, (4.6, 1.1 + 0.19 * len(shown)))
        bars = ax.barh(rows, effects, height=0.72, color=[UP if effect >= 0 else DOWN for effect in effects])
        for bar, is_sure in zip(bars, significant, strict=True):
            bar.set_alpha(1.0 if is_sure else 0.35)
        ax.scatter(
            shown["mean_effect"], rows, s=26, marker="D", facecolor="white", edgecolor=INK, linewidths=0.9, zorder=3
        )
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlim(-1.05, 1.05)
        ax.set_yticks(rows, [readable(gene, 20) for gene in shown["gene"]])
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_ylabel("gene")
        groups = table.attrs.get("groups")
        towards = f" (positive: higher in {readable(groups[1])})" if groups else ""
        ax.set_xlabel(f"{_NAMES.get(str(shown['statistic'].iloc[0]), 'effect')} with the phenotype{towards}")
        _key(ax, significant)
    return ax


def _key(ax: Axes, significant: np.ndarray) -> None:
    """What bars and marks are, above the plot."""
    marks = [Line2D([], [], linestyle="", marker="s", markersize=7, color=FAINT, label="degree centrality, q ≤ 0.05")]
    if not significant.all():
        marks.append(Line2D([], [], linestyle="", marker="s", markersize=7, color=FAINT, alpha=0.35, label="q > 0.05"))
    marks.append(
        Line2D([], [], linestyle="", marker="D", markersize=5, markerfacecolor="white", markeredgecolor=INK,
               label="mean expression")
    )  # fmt: skip
    ax.legend(
        handles=marks if significant.any() else marks[1:], loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3,
        handletextpad=0.1, columnspacing=1.0, borderaxespad=0.2,
    )  # fmt: skip


def _whole_range(numbers: np.ndarray) -> ColorScale:
    """A scale that ends at the extremes: populations are too few to leave some beyond it."""
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        return ColorScale(DIVERGING, -max(-low, high), max(-low, high), "neither")
    return ColorScale(CONTINUOUS, low, high if high > low else low + 1, "neither")


def _shares(embedding: pd.DataFrame) -> list[str]:
    shares = embedding.attrs.get("share", [])
    return [f" ({share:.0%} of variance)" for share in shares] if len(shares) == 2 else ["", ""]
