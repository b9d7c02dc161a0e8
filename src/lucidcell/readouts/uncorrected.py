"""The cells as their counts have them: what a latent space without batches is to be compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.comparators.expression import principal_components, scaled_logarithms
from lucidcell.maths.sampling import some_rows

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells

MOST_CELLS = 5000
N_COMPONENTS = 20


def uncorrected(cells: Cells) -> pd.DataFrame:
    """At most 5,000 cells by the principal components of their log-normalised counts: cell, PC1, PC2, ..."""
    some = cells.select(some_rows(len(cells), MOST_CELLS))
    counts = some.counts.take(np.arange(len(some))).to_scipy()
    n_components = max(1, min(N_COMPONENTS, len(some) - 1, some.n_genes - 1))
    scores = principal_components(scaled_logarithms(counts), n_components, seed=0)
    table = pd.DataFrame(scores, columns=[f"PC{d + 1}" for d in range(n_components)])
    table.insert(0, "cell", some.cell_names)
    return table
