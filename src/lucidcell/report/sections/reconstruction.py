"""Whether the model expects what was observed, gene by gene."""

from __future__ import annotations

import pandas as pd

from lucidcell import plots
from lucidcell.plots.names import readable
from lucidcell.plots.reconstruction import log2_ratio
from lucidcell.report.blocks import Picture, Row, Section, Table
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import number, signed

_WORST = 20


def reconstruction(run: Run) -> Section | None:
    """Compare mean, spread and zeros of each gene; None for a run without these tables."""
    genes = run.genes
    if genes is None or genes.empty or "mean_observed" not in genes:
        return None
    return Section("Reconstruction", [Row([_means(genes), _worst(genes)]), _spread_and_zeros(genes)])


def _means(genes: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.reconstruction(genes, ax=figure.subplots()),
        (4.7, 4.3),
        alt="Expected against observed mean of each gene",
        caption="One point per gene. Points should hug the dashed line: of a gene above it the model expects too "
        "much, of one below too little. The genes farthest off are named.",
    )


def _worst(genes: pd.DataFrame) -> Table:
    ratio = log2_ratio(genes)
    worst = ratio.abs().sort_values(ascending=False, kind="stable").index[:_WORST]
    rows = [
        (
            readable(genes.at[gene, "gene"], 60),
            number(float(genes.at[gene, "mean_observed"])),
            number(float(genes.at[gene, "mean_expected"])),
            signed(float(ratio[gene])),
        )
        for gene in worst
    ]
    caption = f"The {len(rows)} of {number(len(genes))} genes whose mean count per cell is reproduced worst:"
    return Table(["gene", "observed", "expected", "log₂ ratio"], rows, caption, visible=10)


def _spread_and_zeros(genes: pd.DataFrame) -> Picture:
    return svg_picture(
        lambda figure: plots.predictive_check(genes, axes=figure.subplots(1, 2)),
        (8.0, 4.0),
        alt="Coefficient of variation and fraction of zeros, expected against observed",
        caption="The same for how much a gene varies between cells, and for how often it is not seen at all, in counts "
        "drawn from the model. A gene far below the line on the left varies more in the data than the model allows; "
        "genes off the line on the right say that the likelihood does not suit the zeros of the data.",
        wide=True,
    )
