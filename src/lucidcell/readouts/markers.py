"""The genes that mark each label, as a small table for the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.readouts.differential_expression import Settings, compare
from lucidcell.readouts.groups import FEWEST_CELLS, by_group

if TYPE_CHECKING:
    from lucidcell.models.factor_model import FactorModel

MOST_LABELS = 40  # the largest ones
GENES_OF_A_LABEL = 10
DRAWS = 1000
COLUMNS = [
    "lfc_sure", "lfc_mean", "lfc_low", "lfc_high", "proba_de", "raw_normalized_mean1", "raw_normalized_mean2",
    "non_zeros_proportion1", "non_zeros_proportion2",
]  # fmt: skip


def markers(model: FactorModel) -> pd.DataFrame | None:
    """The genes that surely rise most in each label against the rest, in all labels; None for fewer than two labels.

    Columns gene, group1, n_cells, n_rising (genes that rise, at an expected false discovery rate of 0.05) and those of
    `differential_expression`; a row for each gene that is among the first ten of any label, and each label.
    """
    if model.schema.labels_key is None or not model.of_counts:
        return None
    groups = model.own_groups(None)
    sizes = np.bincount(groups.codes[groups.codes >= 0], minlength=len(groups.names))
    kept = np.sort(np.argsort(-sizes, kind="stable")[:MOST_LABELS])
    names = [groups.names[code] for code in kept if sizes[code] >= FEWEST_CELLS]
    if len(names) < 2:
        return None
    cells, settings, law = model.cells_of(None), Settings(n_samples_overall=DRAWS), model.law_of_z(None, groups)
    tables, first = [], dict[str, None]()
    for comparison in by_group(groups, names, None):
        table = compare(model, cells, [comparison], settings, law)
        rising = table["is_de"] & (table["lfc_mean"] > 0)
        first |= dict.fromkeys(table.index[rising & (table["lfc_sure"] > 0)][:GENES_OF_A_LABEL])
        about = {"group1": comparison.group1, "n_cells": len(comparison.rows1), "n_rising": int(rising.sum())}
        tables.append(table[COLUMNS].assign(**about))
    return pd.concat([table.loc[list(first), [*about, *COLUMNS]] for table in tables]).reset_index()
