"""Neighbours of the cells in the two views that scE2TM compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from lucidcell.cells.partners import Neighborhoods, Partners
from lucidcell.comparators.expression import principal_components, scaled_logarithms
from lucidcell.maths.neighbor_graph import mutual_neighbors

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells

N_COMPONENTS = 50  # among which neighbours by expression are searched for


def partners(cells: Cells, rows: np.ndarray, k: int, seed: int) -> Partners:
    """Mutual nearest neighbours of the cells `rows` among themselves, by expression and by external embedding."""
    assert cells.external is not None
    training = cells.select(rows)
    counts = sp.csr_matrix((training.values, training.indices, training.indptr), (len(rows), cells.n_genes))
    n_components = min(N_COMPONENTS, min(counts.shape) - 1)
    views = (principal_components(scaled_logarithms(counts), n_components, seed), cells.external[rows])
    found = []
    for view in views:
        graph = mutual_neighbors(view, k)
        degree = np.zeros(len(cells), np.int64)
        degree[rows] = np.diff(graph.indptr)
        order = np.argsort(rows, kind="stable")  # compressed rows in the order of all cells
        indices = np.concatenate([rows[graph.indices[graph.indptr[i] : graph.indptr[i + 1]]] for i in order])
        found.append(Neighborhoods(np.concatenate([[0], np.cumsum(degree)]), indices))
    return Partners(found[0], found[1], seed)
