"""Which genes mark each label."""

from __future__ import annotations

import pandas as pd

from lucidcell import plots
from lucidcell.plots.differential_expression import marker_dots_size, top_genes
from lucidcell.plots.names import readable
from lucidcell.report.blocks import Block, Section, Table, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import number, signed

_MOST_DOTS = 48  # genes in the figure
_MOST_GENES = 4  # of one label


def markers(run: Run) -> Section | None:
    """Show the genes that rise most in each label; None for a run without labels."""
    table = run.markers
    if table is None or table.empty:
        return None
    table = table.set_index("gene")
    groups = list(dict.fromkeys(table["group1"]))
    blocks: list[Block] = [
        Text(
            "Each label is compared with all other cells that have one. Genes are in the order of the log₂ fold change "
            "that the model is sure of: the true one is larger with a probability of 97.5 %."
        )
    ]
    n_genes = min(_MOST_GENES, _MOST_DOTS // len(groups))
    if n_genes and (shown := top_genes(table, n_genes)):
        picture = svg_picture(
            lambda figure: plots.marker_dots(table, n_genes=n_genes, ax=figure.subplots()),
            marker_dots_size(len(shown), len(groups)),
            alt="Mean and share of cells of the first genes of each label, in all labels",
            caption=f"Up to {n_genes} genes of each label, in all labels. A good marker is one large bright dot in its "
            "column; colours compare labels within a gene, not genes with each other.",
            wide=True,
        )
        blocks.append(picture)
    blocks.append(Table(["label", "cells", "genes that rise", "the first of them (log₂ fold change)"], _rows(table)))
    return Section("Markers", blocks)


def _rows(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, of_label in table.groupby("group1", sort=False):
        rising = of_label[of_label["lfc_sure"] > 0].sort_values("lfc_sure", ascending=False, kind="stable")[:10]
        genes = [f"{readable(gene)} ({signed(float(lfc))})" for gene, lfc in rising["lfc_mean"].items()]
        n_cells, n_rising = (number(int(of_label[column].iloc[0])) for column in ("n_cells", "n_rising"))
        rows.append((readable(name, 60), n_cells, n_rising, ", ".join(genes) or "none"))
    return rows
