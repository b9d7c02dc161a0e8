"""Whether the model expects what was observed, gene by gene."""

from __future__ import annotations

from lucidcell import plots
from lucidcell.plots.reconstruction import log2_ratio
from lucidcell.report.blocks import Row, Section, Table
from lucidcell.report.folder import Run
from lucidcell.report.pictures import svg_picture
from lucidcell.report.wording import number, signed

_WORST = 20


def reconstruction(run: Run) -> Section | None:
    """Compare mean, spread and zeros of each gene; None for a run without these tables."""
    genes = run.genes
    if genes is None or genes.empty:
        return None
    mean = svg_picture(
        lambda figure: plots.reconstruction(genes, ax=figure.subplots()),
        (4.6, 4.2),
        alt="Expected against observed mean of each gene",
        caption="One point per gene. Points should hug the dashed line; the model expects too much of a gene above "
        "it and too little of one below. The names are those farthest off.",
    )
    spread = svg_picture(
        lambda figure: plots.predictive_check(genes, axes=figure.subplots(1, 2)),
        (8.0, 4.0),
        alt="Coefficient of variation and fraction of zeros, expected against observed",
        caption="The same for how much a gene varies between cells, and for how often it is not seen at all, in counts "
        "drawn from the model. Points far below the line on the left vary more in the data than the model allows; "
        "points off the line on the right say that the likelihood does not suit the zeros of the data.",
        wide=True,
    )
    ratio = log2_ratio(genes)
    worst = genes.assign(ratio=ratio).loc[ratio.abs().sort_values(ascending=False, kind="stable").index[:_WORST]]
    rows = [
        (
            str(row["gene"]),
            signed(row["ratio"]),
            *(f"{number(row[f'{name}_observed'])} → {number(row[f'{name}_expected'])}" for name in _STATISTICS),
        )
        for _, row in worst.iterrows()
    ]
    header = ["gene", "log₂ expected/observed", *(f"{title}: observed → expected" for title in _STATISTICS.values())]
    caption = (
        f"The {len(rows)} genes whose mean is reproduced worst, of {number(len(genes))}. Means are counts per cell."
    )
    return Section("Reconstruction", [mean, Row([spread]), Table(header, rows, caption, visible=10)])


_STATISTICS = {"mean": "mean", "cv": "variation", "zero_fraction": "zeros"}
