"""Genes that differ between groups of cells: one comparison as a volcano, many groups as dots."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.labels import place_labels
from lucidcell.plots.names import readable
from lucidcell.plots.style import CONTINUOUS, DOWN, FAINT, HAIRLINE, INK, MISSING, UP, style

_RASTERISED_FROM = 500  # points; above, an SVG holds them as an image
_LARGEST_DOT = 120.0  # square points, for a gene that every cell has
_DOT_INCHES = 0.24


def volcano(table: pd.DataFrame, *, n_named: int = 16, ax: Axes | None = None) -> Axes:
    """Draw for each gene the evidence for a change against its size; genes counted as changed are coloured.

    Parameters
    ----------
    table
        One comparison of `differential_expression` in mode "change": genes in the index, columns lfc_mean, lfc_sure,
        bayes_factor, is_de, group1, group2.
    n_named
        How many of the coloured genes to name, half of them on each side, those that surely change most.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If a column is missing, or the table holds several comparisons.
    """
    require_columns(table, ["lfc_mean", "lfc_sure", "bayes_factor", "is_de", "group1", "group2"], "changes")
    pairs = table[["group1", "group2"]].drop_duplicates()
    if len(pairs) > 1:
        msg = f"the table holds {len(pairs)} comparisons and a volcano shows one: pass the rows of one group1."
        raise DataError(msg)
    group1, group2 = (readable(name) for name in pairs.iloc[0])
    x, y = table["lfc_mean"].to_numpy(float), table["bayes_factor"].to_numpy(float)
    changed = table["is_de"].to_numpy(bool)
    with style():
        ax = axes_or_new(ax, (5.6, 4.6))
        area = 12 if len(table) < 1000 else 7
        for chosen, color in ((~changed, MISSING), (changed & (x > 0), UP), (changed & (x < 0), DOWN)):
            ax.scatter(
                x[chosen], y[chosen], s=area, color=color, alpha=0.7, linewidths=0,
                rasterized=len(table) > _RASTERISED_FROM,
            )  # fmt: skip
        ax.axvline(0, color=HAIRLINE, linewidth=0.9, zorder=0)
        ax.set_xlabel(f"log2 fold change ({group1} over {group2})")
        ax.set_ylabel("log odds of a change (nats)")
        ax.set_title(f"{int(changed.sum()):,} of {len(table):,} genes change")
        ax.margins(x=0.08, y=0.08)
        named = pd.concat([_surest(table[changed & side], n_named // 2) for side in (x > 0, x < 0)])
        place_labels(ax, named[["lfc_mean", "bayes_factor"]].to_numpy(float), list(named.index))
    return ax


def _surest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    return table.loc[table["lfc_sure"].abs().sort_values(ascending=False, kind="stable").index[:n]]


def marker_dots(table: pd.DataFrame, *, n_genes: int = 3, ax: Axes | None = None) -> Axes:
    """Draw the top genes of each group in all groups: size by how many cells have the gene, colour by its mean.

    Parameters
    ----------
    table
        Comparisons of each group with the rest: genes in the index, columns group1, lfc_sure, raw_normalized_mean1,
        non_zeros_proportion1.
    n_genes
        Genes for each group: those that surely rise most in it. A gene is drawn once.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If a column is missing, or no gene rises in any group.
    """
    require_columns(table, ["group1", "lfc_sure", "raw_normalized_mean1", "non_zeros_proportion1"], "markers")
    groups = list(dict.fromkeys(table["group1"]))
    genes = top_genes(table, n_genes)
    if not genes:
        msg = f"no gene rises surely in any of the {len(groups)} groups, so there is no marker to draw."
        raise DataError(msg)
    by_group = table.loc[table.index.isin(genes)].set_index("group1", append=True)
    means, shares = (
        by_group[column].unstack().reindex(index=genes, columns=groups).to_numpy(float)
        for column in ("raw_normalized_mean1", "non_zeros_proportion1")
    )
    highest = np.fmax.reduce(means, axis=1, keepdims=True)
    row, column = np.indices(means.shape)
    with style():
        ax = axes_or_new(ax, marker_dots_size(len(genes), len(groups)))
        dots = ax.scatter(
            row.ravel(), column.ravel(), s=_LARGEST_DOT * shares.ravel(), c=(means / highest).ravel(), cmap=CONTINUOUS,
            vmin=0, vmax=1, linewidths=0.4, edgecolors=FAINT,
        )  # fmt: skip
        ax.set_xlim(-0.7, len(genes) - 0.3)
        ax.set_ylim(len(groups) - 0.4, -0.6)
        ax.set_xticks(range(len(genes)), [readable(gene) for gene in genes], rotation=90)
        ax.set_yticks(range(len(groups)), [readable(name) for name in groups])
        ax.tick_params(length=0)
        ax.set_xlabel("gene")
        ax.set_ylabel("group")
        ax.spines[:].set_visible(False)
        ax.set_axisbelow(True)
        ax.grid(color=HAIRLINE, linewidth=0.6)
        _keys(ax, dots)
    return ax


def top_genes(table: pd.DataFrame, n: int) -> list[str]:
    """Names of the `n` genes of each group that surely rise most in it, group by group, each once."""
    rising = table[table["lfc_sure"] > 0]
    found: dict[str, None] = {}
    for _, rows in rising.groupby("group1", sort=False):
        found |= dict.fromkeys(map(str, _surest(rows, n).index))
    return list(found)


def marker_dots_size(n_genes: int, n_groups: int) -> tuple[float, float]:
    """Return the width and height in inches that suit a figure of `marker_dots`."""
    return 3.6 + _DOT_INCHES * n_genes, max(2.4, 1.3 + _DOT_INCHES * n_groups)


def _keys(ax: Axes, dots: PathCollection) -> None:
    """The scale of colours at the right, that of sizes on top."""
    figure = ax.get_figure()
    assert figure is not None
    bar = figure.colorbar(dots, ax=ax, label="mean (share of highest)", shrink=0.9, aspect=18, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    sizes = [(_LARGEST_DOT * share) ** 0.5 for share in (0.1, 0.5, 1.0)]
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=size, color=FAINT, markeredgewidth=0) for size in sizes
    ]
    ax.legend(
        handles, ["10 %", "50 %", "100 %"], title="cells with the gene", loc="lower left", bbox_to_anchor=(0, 1.0),
        ncols=3, handletextpad=0.3, columnspacing=1.2, borderaxespad=0.2, title_fontsize=8, alignment="left",
        labelcolor=INK,
    )  # fmt: skip
