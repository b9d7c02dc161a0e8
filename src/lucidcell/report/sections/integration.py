"""The cells before and after integration."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell import plots
from lucidcell.plots.integration import integration_size
from lucidcell.report.blocks import Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import png_picture
from lucidcell.report.umap import FEWEST_CELLS, CellMap, cell_map, uncorrected_map
from lucidcell.report.wording import number

_INTRODUCTION = (
    "Left, each cell by its counts alone: principal components of the normalised logarithms. Right, the same cells in "
    "the latent space. After integration, the batches (top) should be mixed wherever they hold the same kinds of cells"
)


def integration(run: Run) -> Section | None:
    """Draw the two maps; None for a single batch, or a run without the table of uncorrected cells."""
    if run.batches is None or len(run.batches.categories) < 2:
        return None
    before, after = uncorrected_map(run), cell_map(run)
    if before is None or after is None:
        return None
    rows = np.intersect1d(before.rows, after.rows)
    if len(rows) < FEWEST_CELLS:
        return None
    labels = None if run.labels is None else run.labels[rows]
    batches = run.batches[rows]
    picture = png_picture(
        lambda figure: plots.integration(_at(before, rows), _at(after, rows), batches, labels, figure=figure),
        integration_size(labels is not None),
        alt="Maps of cells before and after integration",
        caption="A colour that lies apart on the left and is mixed with the others on the right was a batch effect. "
        "A colour that stays apart is a kind of cell that only this batch has, or a batch effect that is left.",
        wide=True,
    )
    introduction = _INTRODUCTION
    if labels is not None:
        introduction += ", and the labels (bottom) should lie as far apart as before, or farther"
    introduction += f". Drawn are {number(len(rows))} cells."
    return Section("Before and after integration", [Text(introduction), picture])


def _at(drawn: CellMap, rows: np.ndarray) -> np.ndarray:
    """Coordinates of some rows, (m, 2)."""
    return drawn.xy[pd.Index(drawn.rows).get_indexer(rows)]
