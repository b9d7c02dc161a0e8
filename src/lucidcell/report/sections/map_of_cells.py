"""Cells on a map, coloured by label, batch and factor."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell import plots
from lucidcell.plots.embedding import factor_panel_size
from lucidcell.plots.style import PALETTE
from lucidcell.report.blocks import Block, Picture, Row, Section, Text
from lucidcell.report.folder import Run
from lucidcell.report.pictures import png_picture
from lucidcell.report.umap import FEWEST_CELLS, CellMap, cell_map
from lucidcell.report.wording import number

_INTRODUCTION = (
    "Each point is a cell; cells with similar latent factors lie close together (UMAP of the latent space). Trust what "
    "is next to what; do not read distances between far groups, or their sizes and shapes."
)


def map_of_cells(run: Run) -> Section | None:
    """Draw the maps; None for a run without latent coordinates."""
    if run.latent is None:
        return None
    title = "Map of cells"
    drawn = cell_map(run)
    if drawn is None:
        return Section(
            title, [Text(f"{len(run.latent)} cells are too few for a map; it takes at least {FEWEST_CELLS}.")]
        )
    introduction = _INTRODUCTION
    if len(drawn.rows) < len(run.latent):
        introduction += f" Drawn are {number(len(drawn.rows))} of {number(len(run.latent))} cells, chosen at random."
    blocks: list[Block] = [Text(introduction)]
    by_category = []
    batches = run.batches if run.batches is not None and len(run.batches.categories) > 1 else None
    if run.labels is not None:
        by_category.append(_by_label(drawn, run.labels, alone=batches is None))
    if batches is not None:
        by_category.append(_by_batch(drawn, batches))
    if by_category:
        blocks.append(Row(by_category))
    blocks.append(_by_factor(drawn, run.latent))
    return Section(title, blocks)


def _by_label(drawn: CellMap, labels: pd.Categorical, *, alone: bool) -> Picture:
    caption = (
        "Coloured by label. Look for labels that form areas of their own; two labels that share an area are alike to "
    )
    caption += "the model."
    n_labels = len(labels.categories)
    if n_labels > len(PALETTE):
        caption += f" The {len(PALETTE)} largest of {n_labels} labels have a colour; the rest are grey."
    if (labels.codes < 0).any():
        caption += " Grey cells have no label."
    return png_picture(
        lambda figure: plots.embedding(
            drawn.xy, labels[drawn.rows], "categorical", names="on", title="By label", ax=figure.subplots()
        ),
        (7.6, 5.4) if alone else (5.4, 4.6),
        alt="Map of cells coloured by label",
        caption=caption,
    )


def _by_batch(drawn: CellMap, batches: pd.Categorical) -> Picture:
    return png_picture(
        lambda figure: plots.embedding(
            drawn.xy, batches[drawn.rows], "categorical", title="By batch", ax=figure.subplots()
        ),
        (5.4, 4.6),
        alt="Map of cells coloured by batch",
        caption="Coloured by batch. Where batches hold the same kinds of cells, their colours should be mixed; an area "
        "of one colour is a kind of cell found in that batch only, or a batch effect that is left.",
    )


def _by_factor(drawn: CellMap, latent: pd.DataFrame) -> Picture:
    values = latent.iloc[np.asarray(drawn.rows)]
    return png_picture(
        lambda figure: plots.factor_panel(drawn.xy, values, figure=figure),
        factor_panel_size(latent.shape[1]),
        alt="Map of cells coloured by each latent factor",
        caption="Coloured by each latent factor, all on one scale. A factor that is strong in one area marks a kind of "
        "cell or a state; one that changes smoothly marks a process; one that is flat everywhere is not used.",
        wide=True,
    )
