"""What a topic model says of the data as a whole: cells as mixtures, topics among genes, and what topics share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import entropy

from lucidcell import plots
from lucidcell.metrics.topic_measures import N_TOP, best_genes
from lucidcell.plots.heatmap import heatmap_size
from lucidcell.readouts.factor_names import short_term
from lucidcell.report.blocks import Block, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import png_picture, svg_picture
from lucidcell.report.umap import point_map
from lucidcell.report.wording import number, plural

_HIGHLIGHTED = 6  # topics on the map of genes
_COMPARED = 20  # topics in the table of similarities
_GROUPS = 40  # of cells, drawn


def topics(run: Run) -> Section | None:
    """Draw compositions, the map of genes and topics, and genes and gene sets of topics; None without topics."""
    if run.topics is None or run.topic_genes is None:
        return None
    shares, genes = run.topics, run.topic_genes.set_index("gene")
    means = shares.mean().sort_values(ascending=False, kind="stable")
    top = best_genes(genes, min(N_TOP, len(genes)))
    blocks: list[Block] = [Text(_introduction(shares, means))]
    groups = run.labels if run.labels is not None else run.batches
    if groups is not None:
        blocks.append(_composition(shares, groups))
    place = point_map(run)
    if place is not None:
        blocks.append(_map(*place, {topic: top[topic] for topic in means.index[:_HIGHLIGHTED]}))
    blocks.append(Row([_shared_genes(top), _similarity(genes[means.index[:_COMPARED]])]))
    if run.enrichment is not None and (run.enrichment["nes"] > 0).any():
        blocks.append(_terms(run.enrichment))
    return Section("Topics", blocks)


def _introduction(shares: pd.DataFrame, means: pd.Series) -> str:
    leading = shares.to_numpy().argmax(1)
    effective = np.exp(entropy(means.to_numpy()))
    return (
        f"Each cell is a mixture of {plural(len(means), 'topic')}, whose shares sum to 1. "
        f"{number(len(np.unique(leading)))} of them are the largest share of some cell; the mean shares are as "
        f"uneven as those of {effective:.0f} topics of equal share. The largest mean share is that of "
        f"{means.index[0]}, {means.iloc[0]:.0%}."
    )


def _composition(shares: pd.DataFrame, groups: pd.Categorical) -> Picture:
    known = np.flatnonzero(groups.codes >= 0)
    frequent = pd.Series(groups[known]).value_counts().index[:_GROUPS]
    rows = known[np.isin(groups[known], frequent)]
    return svg_picture(
        lambda figure: plots.composition(shares.iloc[rows], list(groups[rows]), ax=figure.subplots()),
        (7.4, 1.3 + 0.25 * len(frequent)),
        alt="Composition of the groups of cells",
        caption="What groups of cells are made of. Topics without a colour of their own are summed up in grey.",
        wide=True,
    )


def _map(genes: pd.DataFrame, places: pd.DataFrame, top: dict[str, list[str]]) -> Picture:
    return png_picture(
        lambda figure: plots.topic_map(genes, places, top=top, highlight=list(top), ax=figure.subplots()),
        (7.4, 5.6),
        alt="Genes and topics on one map",
        caption="Genes (dots) and topics (stars) are points of one space, here brought to two dimensions (UMAP). A "
        "gene is near the topics that it is a word of. The topics with the largest mean shares are named, with "
        "their best genes. Stars on top of each other would be topics that say the same.",
        wide=True,
    )


def _shared_genes(top: dict[str, list[str]]) -> Picture:
    return svg_picture(
        lambda figure: plots.gene_frequency(top, ax=figure.subplots()),
        (3.6, 3.2),
        alt="How many topics a gene belongs to",
        caption="How many topics have a gene among their ten best. In a collapsed model most genes belong to many.",
    )


def _similarity(genes: pd.DataFrame) -> Picture:
    table = genes.corr()
    width, height = heatmap_size(*table.shape)
    return svg_picture(
        lambda figure: plots.heatmap(table, color_label="correlation over genes", ax=figure.subplots()),
        (min(width, 4.8), min(height, 4.4)),
        alt="Similarity of topics",
        caption=f"Which of the {len(table)} topics with the largest mean shares have the same genes.",
    )


def _terms(enrichment: pd.DataFrame) -> Picture:
    risen = enrichment[enrichment["nes"] > 0]
    risen = risen.assign(term=[short_term(term) for term in risen["term"]])
    return svg_picture(
        lambda figure: plots.manhattan(risen, ax=figure.subplots()),
        (7.4, 3.2),
        alt="Gene sets of all topics",
        caption="Each dot is a gene set and a topic; above the line its q-value is below 0.01. The best gene sets of "
        "different topics are named.",
        wide=True,
    )
