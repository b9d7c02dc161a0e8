"""What the run folder of a model that predicts labels holds of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.readouts.annotation import annotate, label_probabilities, level_names, most_likely
from lucidcell.readouts.new_types import N_NEIGHBORS, find_new_types

if TYPE_CHECKING:
    from lucidcell.models.scanvi import SCANVI

MOST_LABELS = 20  # whose probabilities are kept for every cell
DIGITS = 4


def annotation_tables(model: SCANVI) -> dict[str, pd.DataFrame]:
    """Tables of the model's own cells, by file name: annotation, posterior, taxonomy, and maybe new_types."""
    cells = model.cells_of(None)
    probabilities = label_probabilities(model)
    annotation = annotate(model)
    annotation.insert(0, "cell", cells.cell_names)
    tables = {
        "annotation": annotation,
        "posterior": _posterior(model, probabilities),
        "taxonomy": _levels(model, probabilities),
    }
    n_labelled = int((cells.label >= 0).sum())
    if 0 < n_labelled < len(cells) and len(cells) > N_NEIGHBORS:
        tables["new_types"] = find_new_types(model).reset_index()
    return tables


def _posterior(model: SCANVI, probabilities: np.ndarray) -> pd.DataFrame:
    """cell, and the probabilities of the 20 types that are predicted most often, in the order of the taxonomy."""
    n_cells = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    kept = np.sort(np.argsort(-n_cells, kind="stable")[:MOST_LABELS])
    names = [model.taxonomy.leaf_names[leaf] for leaf in kept]
    table = pd.DataFrame(probabilities[:, kept].round(DIGITS), columns=names)
    table.insert(0, "cell", model.cells_of(None).cell_names, allow_duplicates=True)
    return table


def _levels(model: SCANVI, probabilities: np.ndarray) -> pd.DataFrame:
    """One row per predicted type of each level, coarse to fine: node, parent, level, n_cells, mean confidence."""
    rows: list[pd.DataFrame] = []
    above = np.full(len(probabilities), "", object)
    for number, level in enumerate(level_names(model)):
        found = most_likely(model, probabilities, number)
        of_cells = pd.DataFrame({"node": found.names, "parent": above, "confidence": found.confidence})
        nodes = of_cells.groupby(["node", "parent"], sort=False, as_index=False)
        rows.append(nodes.agg(n_cells=("confidence", "size"), confidence=("confidence", "mean")).assign(level=level))
        above = found.names
    return pd.concat(rows, ignore_index=True)[["node", "parent", "level", "n_cells", "confidence"]]
