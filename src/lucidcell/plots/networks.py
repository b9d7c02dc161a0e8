"""Gene networks: which genes are central, and who is linked to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lucidcell.errors import DataError, SettingError
from lucidcell.plots.canvas import axes_or_new
from lucidcell.plots.labels import place_labels
from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, INK, MISSING, PALETTE, style

if TYPE_CHECKING:
    import networkx as nx


def centrality_ranking(
    centrality: pd.Series,
    *,
    n: int = 20,
    highlight: Sequence[str] | None = None,
    label: str = "degree centrality\n(share of variance explained)",
    ax: Axes | None = None,
) -> Axes:
    """Draw the most central genes from top to bottom.

    Parameters
    ----------
    centrality
        By gene.
    n
        Genes shown.
    highlight
        Genes in another colour.
    label
        What centrality is, with its unit.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If no gene has a centrality.
    SettingError
        If `n` is below 1.
    """
    if n < 1:
        raise SettingError(f"n is {n!r}; it must be at least 1.")
    shown = centrality.dropna().sort_values(ascending=False, kind="stable").head(n)
    if shown.empty:
        raise DataError(f"none of {len(centrality)} genes has a centrality, so there is nothing to draw.")
    rows, values, marked = np.arange(len(shown)), shown.to_numpy(float), shown.index.isin(list(highlight or ()))
    with style():
        ax = axes_or_new(ax, (3.6, 0.8 + 0.19 * len(shown)))
        colors = [PALETTE[3] if one else PALETTE[0] for one in marked]
        low = 0.0 if values.min() >= 0 else float(values.min() - 0.1 * max(np.ptp(values), 1e-12))
        if values.max() <= 0:  # minus a distance: bars from 0 would all look alike
            ax.hlines(rows, low, values, color=colors, linewidth=1)
            ax.scatter(values, rows, s=22, c=colors, zorder=3)
            ax.set_xlim(left=low)
        else:
            ax.barh(rows, values, height=0.72, color=colors)
            ax.set_xlim(left=min(0.0, low))
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_yticks(rows, [readable(gene, 20) for gene in shown.index])
        for text, one in zip(ax.get_yticklabels(), marked, strict=True):
            text.set_fontweight("bold" if one else "normal")
        ax.tick_params(axis="y", length=0)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel(label)
        ax.set_ylabel("gene")
    return ax


def network_drawing(
    graph: nx.Graph,
    *,
    genes: Sequence[str] | None = None,
    colors: Mapping[str, str] | None = None,
    n_names: int = 40,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a network; genes without an edge are left out, and edges are as dark as their weight.

    Parameters
    ----------
    graph
        With the attribute "weight", 0 to 1, at edges; as `PopulationNetworks.graph` gives it.
    genes
        Only these genes and their neighbours; all by default.
    colors
        Group of a gene, such as a pathway, for its colour.
    n_names
        Genes written by name: those of `genes` first, then those with most neighbours, as far as they fit.
    seed
        Of the layout.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If a gene is not in the network, or no edge is left.
    """
    import networkx

    genes = [genes] if isinstance(genes, str) else genes
    wanted = list(dict.fromkeys(genes)) if genes is not None else []
    if unknown := [gene for gene in wanted if gene not in graph]:
        raise DataError(f"{len(unknown)} of {len(wanted)} genes are not in the network, such as {unknown[0]!r}.")
    near = graph.edge_subgraph(graph.edges(wanted) if genes is not None else graph.edges)
    if not near.number_of_edges():
        of = f"the {len(list(genes))} genes" if genes is not None else f"{graph.number_of_nodes()} genes"
        raise DataError(f"the network has no edge between {of} and others, so there is nothing to draw.")
    nodes = sorted(near, key=lambda gene: (gene not in wanted, -near.degree(gene), str(gene)))
    bare = networkx.Graph()  # in a fixed order, so that one network has one layout
    bare.add_nodes_from(nodes)
    bare.add_edges_from(sorted(map(sorted, near.edges)))
    places = _layout(bare, seed)
    xy = np.array([places[gene] for gene in nodes])
    group_of = {gene: str(colors[gene]) for gene in nodes if gene in colors} if colors is not None else {}
    groups = list(dict.fromkeys(sorted(group_of.values())))
    shade_of = dict(zip(groups, PALETTE, strict=False))
    shades = [shade_of.get(group_of.get(gene, ""), PALETTE[0] if colors is None else MISSING) for gene in nodes]
    with style():
        ax = axes_or_new(ax, (6.0, 5.2))
        weights = [float(near.edges[edge].get("weight", 1.0)) for edge in bare.edges]
        lines = LineCollection(
            [(places[one], places[other]) for one, other in bare.edges], linewidths=1.1, colors=INK, zorder=1,
            alpha=[0.15 + 0.6 * float(np.clip(weight, 0, 1)) for weight in weights],
        )  # fmt: skip
        ax.add_collection(lines)
        sizes = np.clip(18 + 9 * np.array([near.degree(gene) for gene in nodes]), 18, 160)
        edges = [INK if gene in wanted else "white" for gene in nodes]
        ax.scatter(xy[:, 0], xy[:, 1], s=sizes, c=shades, edgecolors=edges, linewidths=0.9, zorder=2)
        ax.margins(0.1)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        n_alone = graph.number_of_nodes() - len(nodes) if genes is None else 0
        alone = f"; not shown, without an edge: {n_alone}" if n_alone else ""
        ax.set_xlabel(f"{len(nodes)} genes, {bare.number_of_edges()} edges{alone}", fontsize=8, loc="left")
        ax.set_ylabel("spring layout (no unit)", fontsize=7, loc="bottom", color=FAINT)
        if groups:
            _legend(ax, groups, shade_of, any(gene not in group_of for gene in nodes))
        place_labels(ax, xy[:n_names], nodes[:n_names], size=7.5)
    return ax


def _layout(graph: nx.Graph, seed: int) -> dict[str, np.ndarray]:
    """Spring layout of every component, packed in rows, the largest first."""
    import networkx

    parts = sorted(networkx.connected_components(graph), key=lambda part: (-len(part), min(map(str, part))))
    placed: dict[str, np.ndarray] = {}
    sides = [np.sqrt(len(part)) for part in parts]
    width = max(1.25 * np.sqrt(sum((side + 0.8) ** 2 for side in sides)), sides[0] + 0.8)
    x = y = height = 0.0
    for part, side in zip(parts, sides, strict=True):
        if x + side > width and x > 0:
            x, y, height = 0.0, y - height - 0.8, 0.0
        found = networkx.spring_layout(graph.subgraph(sorted(part, key=str)), seed=seed, iterations=200)
        points = np.array(list(found.values()))
        span = np.maximum(np.ptp(points, axis=0), 1e-9)
        points = (points - points.min(0)) / span.max() * side
        points[:, 1] -= points[:, 1].max()
        placed |= dict(zip(found, points + [x, y], strict=True))
        x, height = x + side + 0.8, max(height, side)
    return placed


def _legend(ax: Axes, groups: list[str], shade_of: dict[str, str], has_others: bool) -> None:
    entries = [(shade_of.get(group, MISSING), readable(group)) for group in groups]
    entries += [(MISSING, "other")] if has_others else []
    handles = [Line2D([], [], linestyle="", marker="o", markersize=6, color=color) for color, _ in entries]
    legend = ax.legend(
        handles, ["name"] * len(handles), loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2
    )
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(name)  # matplotlib drops entries whose name begins with "_"
