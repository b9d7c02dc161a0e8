"""Where siVAE places the genes: beside the cells, by centrality, and as a network."""

from __future__ import annotations

from itertools import islice

import pandas as pd

from lucidcell import plots
from lucidcell.readouts.networks import gene_network
from lucidcell.report.blocks import Block, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import png_picture, svg_picture
from lucidcell.report.wording import number

_CENTRAL = 40  # genes of the network
_QUANTILE = 0.05  # of the distances of their pairs, below which they are linked
_MOST_PAIRS = 2  # of factors that are drawn


def genes(run: Run) -> Section | None:
    """Draw cells beside genes, central genes and their network; of a model without gene embedding central genes.

    None where neither is known.
    """
    table, loadings, latent = run.genes, run.loadings, run.latent
    if table is None or loadings is None or latent is None:
        return None
    of_genes = loadings.set_index("gene")
    blocks: list[Block] = []
    if "gene embedding" in str(run.loadings_meaning.get("how", "")):
        used = _most_used(run, list(of_genes.columns))
        blocks.append(Text(_INTRODUCTION))
        pairs = zip(used[::2], used[1::2], strict=False)  # an odd one out stays undrawn
        blocks += [_linked(run, latent, of_genes, x, y) for x, y in islice(pairs, _MOST_PAIRS)]
    if "explained" in table:
        centrality = table.set_index("gene")["explained"]
        pictures = [_ranking(centrality)]
        if blocks and (network := _network(of_genes, centrality)) is not None:
            pictures.append(network)
        blocks.append(Row(pictures))
    return Section("Genes", blocks) if blocks else None


_INTRODUCTION = (
    "siVAE gives each gene a place in a space with the same factors as that of the cells: a gene that lies far out in "
    "some direction is high in the cells that lie far out in that direction. Genes near each other rise and fall "
    "together; genes near the origin go with no factor."
)


def _most_used(run: Run, names: list[str]) -> list[str]:
    if run.factors is None:
        return names
    return list(run.factors.sort_values("kl", ascending=False, kind="stable")["factor"])


def _linked(run: Run, latent: pd.DataFrame, loadings: pd.DataFrame, x: str, y: str) -> Picture:
    return png_picture(
        lambda figure: plots.cells_and_genes(latent, loadings, x, y, groups=run.labels, axes=figure.subplots(1, 2)),
        (9.0, 4.3),
        alt=f"Cells and genes on {x} and {y}",
        caption=f"Cells by score and genes by loading on {x} and {y}; the genes farthest from the origin are named.",
        wide=True,
    )


def _ranking(centrality: pd.Series) -> Picture:
    return svg_picture(
        lambda figure: plots.centrality_ranking(centrality, ax=figure.subplots()),
        (4.2, 4.6),
        alt="Most central genes",
        caption="The genes of which the model explains the largest share of variance over cells: many others go with "
        f"them. The median of {number(len(centrality))} genes is {centrality.median():.2f}. A gene that is high in one "
        "kind of cell is explained well too, so central does not mean regulating.",
    )


def _network(loadings: pd.DataFrame, centrality: pd.Series) -> Picture | None:
    shown = list(centrality.sort_values(ascending=False, kind="stable").index[:_CENTRAL])
    graph = gene_network(loadings, _QUANTILE, shown)
    if not graph.number_of_edges():  # no two of them are near each other
        return None
    return svg_picture(
        lambda figure: plots.network_drawing(graph, ax=figure.subplots()),
        (5.4, 4.6),
        alt="Network of the most central genes",
        caption=f"The {len(shown)} most central genes; a line joins two whose loadings are among the nearest "
        f"{_QUANTILE:.0%} of their pairs.",
    )
