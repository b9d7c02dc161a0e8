"""Topics among genes, what cells are made of, genes that topics share, and gene sets of all topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lucidcell.errors import DataError
from lucidcell.plots.canvas import axes_or_new, require_columns
from lucidcell.plots.labels import place_labels
from lucidcell.plots.map_points import point_area
from lucidcell.plots.names import readable
from lucidcell.plots.style import FAINT, INK, MISSING, PALETTE, style

OTHER = "other topics"


def topic_map(
    genes: pd.DataFrame,
    topics: pd.DataFrame,
    *,
    top: Mapping[str, Sequence[str]] | None = None,
    highlight: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw genes as points and topics as stars of one map.

    Parameters
    ----------
    genes, topics
        Two coordinates of each, of the same map: such as a UMAP of both embeddings together.
    top
        Best genes of each topic, to be coloured for the topics of `highlight`.
    highlight
        Topics to colour and name, with their best genes; at most as many as there are colours.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If a table is empty, has not two columns, or lacks a topic or a gene that is to be named.
    """
    for what, table in (("genes", genes), ("topics", topics)):
        require_columns(table, [], what)
        if table.shape[1] != 2:
            raise DataError(f"the coordinates of the {what} have {table.shape[1]} columns: a map has 2.")
    chosen = list(highlight)[: len(PALETTE)]
    best = {name: list((top or {}).get(name, ())) for name in chosen}
    unknown = [name for name in chosen if name not in topics.index]
    unknown += [gene for of_topic in best.values() for gene in of_topic if gene not in genes.index]
    if unknown:
        raise DataError(f"{len(unknown)} topics or genes have no coordinates, such as {unknown[0]!r}.")
    xy, stars = genes.to_numpy(float), topics.to_numpy(float)
    with style():
        ax = axes_or_new(ax, (5.4, 4.8))
        ax.scatter(xy[:, 0], xy[:, 1], s=point_area(len(xy)), c=MISSING, linewidths=0, label="genes")
        ax.scatter(stars[:, 0], stars[:, 1], s=46, marker="*", c=FAINT, linewidths=0, label="topics", zorder=3)
        anchors, names, colors = [], [], []
        for color, (name, of_topic) in zip(PALETTE, best.items(), strict=False):
            star, points = topics.loc[[name]].to_numpy(float), genes.loc[of_topic].to_numpy(float)
            ax.scatter(points[:, 0], points[:, 1], s=14, c=color, linewidths=0, zorder=4)
            ax.scatter(star[:, 0], star[:, 1], s=110, marker="*", c=color, edgecolors="white", linewidths=0.6, zorder=5)
            anchors.append(star[0])
            names.append(", ".join(map(str, [name, *of_topic[:3]])))
            colors.append(color)
        ax.set_xlabel(str(genes.columns[0]))
        ax.set_ylabel(str(genes.columns[1]))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.legend(loc="upper left", bbox_to_anchor=(0, 1.08), ncols=2)
        if anchors:
            place_labels(ax, np.array(anchors), names, colors=colors, size=7)
    return ax


def composition(
    shares: pd.DataFrame, groups: pd.Series | Sequence[object], *, n_topics: int = 12, ax: Axes | None = None
) -> Axes:
    """Draw what groups of cells are made of: mean shares of topics as stacked bars.

    Parameters
    ----------
    shares
        Cells x topics, rows sum to 1.
    groups
        Group of each cell.
    n_topics
        Topics with a colour of their own, those with the largest share of any group; others are summed up.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty, or there are not as many groups as cells.
    """
    require_columns(shares, [], "shares")
    names = pd.Series(list(groups), dtype=object)
    if len(names) != len(shares):
        raise DataError(f"there are {len(names)} groups for {len(shares)} cells: pass one for each.")
    means = shares.reset_index(drop=True).groupby(names.astype(str)).mean()
    chosen = means.max().nlargest(min(n_topics, len(PALETTE))).index
    chosen = [topic for topic in shares.columns if topic in set(chosen)]
    table = means[chosen].assign(**{OTHER: means.drop(columns=chosen).sum(axis=1)})
    table = table.loc[table.index[np.argsort(means.to_numpy().argmax(1), kind="stable")]]
    with style():
        ax = axes_or_new(ax, (6.4, 1.2 + 0.28 * len(table)))
        left = np.zeros(len(table))
        for color, topic in zip([*PALETTE[: len(chosen)], MISSING], table.columns, strict=True):
            ax.barh(range(len(table)), table[topic], left=left, color=color, label=readable(topic), height=0.8)
            left += table[topic].to_numpy()
        ax.set_yticks(range(len(table)), [readable(name) for name in table.index])
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.set_xlabel("mean share of the topics")
        ax.set_ylabel("group of cells")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(table.columns) // 14)
    return ax


def gene_frequency(top: Mapping[str, Sequence[str]], *, n_named: int = 8, ax: Axes | None = None) -> Axes:
    """Draw how many topics each of the topics' best genes belongs to; without collapse nearly all belong to one.

    Parameters
    ----------
    top
        Best genes of each topic.
    n_named
        Genes of most topics, to be named.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If there are no genes.
    """
    counts = pd.Series([gene for genes in top.values() for gene in genes], dtype=object).value_counts()
    if counts.empty:
        raise DataError("there are no best genes, so there is nothing to draw: pass genes for each topic.")
    heights = counts.value_counts().sort_index()
    named = counts[counts > 1].head(n_named)
    with style():
        ax = axes_or_new(ax, (4.2, 2.8))
        ax.bar(heights.index, heights, color=PALETTE[0], width=0.8)
        ax.set_xlabel(f"topics that a gene is among the best of (of {len(top)})")
        ax.set_ylabel("genes")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(named):
            text = "\n".join(f"{readable(gene)} {count}" for gene, count in named.items())
            ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=7, color=INK)
        ax.set_title(f"{heights.get(1, 0) / counts.sum():.0%} of all best genes are one topic's")
    return ax


def manhattan(
    terms: pd.DataFrame, *, max_q: float = 0.01, n_named: int = 6, smallest_q: float = 1e-3, ax: Axes | None = None
) -> Axes:
    """Draw the q-values of gene sets, topic by topic.

    Parameters
    ----------
    terms
        topic (or factor), term and q_value, as `lucidcell.gsea` and `lucidcell.metrics.gsea_pairs` give them.
    max_q
        Where the line is drawn.
    n_named
        Terms to name, of those above the line: the best ones of different topics.
    smallest_q
        Smaller ones, which permutations do not tell apart, are drawn as this.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    """
    terms = terms.rename(columns={"factor": "topic"})
    require_columns(terms, ["topic", "term", "q_value"], "terms")
    order = {topic: i for i, topic in enumerate(dict.fromkeys(terms["topic"]))}
    within = terms.groupby("topic", sort=False).cumcount()
    x = terms["topic"].map(order) + 0.1 + 0.8 * (within / within.groupby(terms["topic"]).transform("max").clip(lower=1))
    y = -np.log10(terms["q_value"].clip(lower=smallest_q))
    with style():
        ax = axes_or_new(ax, (7.2, 3.0))
        colors = np.where(terms["topic"].map(order) % 2 == 0, PALETTE[0], PALETTE[5])
        ax.scatter(x, y, s=9, c=list(colors), linewidths=0)
        ax.axhline(-np.log10(max_q), color=FAINT, linewidth=0.8, linestyle=":")
        ax.set_ylim(0, 1.25 * max(float(y.max()), -np.log10(max_q)))
        ax.set_xlim(0, len(order))
        few = max(1, len(order) // 20)
        ax.set_xticks([i + 0.5 for i in range(0, len(order), few)], [readable(t) for t in list(order)[::few]])
        ax.tick_params(axis="x", labelrotation=90 if len(order) > 8 else 0)
        ax.set_xlabel("topic")
        ax.set_ylabel("\N{MINUS SIGN}log10 q-value")
        best = terms.assign(x=x, y=y)[terms["q_value"] <= max_q].sort_values("q_value", kind="stable")
        best = best.drop_duplicates("topic")
        best = best.drop_duplicates("term").head(n_named)
        place_labels(ax, best[["x", "y"]].to_numpy(float), [readable(term, 34) for term in best["term"]], size=7)
    return ax
