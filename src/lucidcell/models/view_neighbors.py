"""Neighbours of the cells in the two views that scE2TM compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from lucidcell.cells.partners import Neighborhoods, Partners
from lucidcell.comparators.expression import principal_components, scaled_logarithms
from lucidcell.maths.neighbor_graph import mutual_neighbors

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.cells.matrix import Rows

N_COMPONENTS = 50  # among which neighbours by expression are searched for


def partners(cells: Cells, rows: np.ndarray, k: int, seed: int) -> Partners:
    """Mutual nearest neighbours of the cells `rows` among themselves, by expression and by external embedding."""
    assert cells.external is not None
    counts = cells.counts.take(rows).to_scipy()
    expression, external = _graphs(counts, cells.external[rows], k, seed)
    return Partners(_of_all(expression, rows, len(cells)), _of_all(external, rows, len(cells)), seed)


class NeighborSearch(NamedTuple):
    """The same among the cells of a window, for cells that are never in memory together."""

    k: int
    seed: int

    def among(self, counts: Rows, cells: Cells, held: np.ndarray) -> Partners:
        assert cells.external is not None
        expression, external = _graphs(counts.to_scipy(), cells.external[held], self.k, self.seed)
        return Partners(
            Neighborhoods(expression.indptr, expression.indices),
            Neighborhoods(external.indptr, external.indices),
            self.seed,
        )


def _graphs(counts: sp.csr_matrix, external: np.ndarray, k: int, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Of both views, (n, n) each."""
    n_components = min(N_COMPONENTS, min(counts.shape) - 1)
    views = (principal_components(scaled_logarithms(counts), n_components, seed), external)
    return mutual_neighbors(views[0], k), mutual_neighbors(views[1], k)


def _of_all(graph: sp.csr_matrix, rows: np.ndarray, n_cells: int) -> Neighborhoods:
    """Neighbours of `rows` by position among all cells."""
    degree = np.zeros(n_cells, np.int64)
    degree[rows] = np.diff(graph.indptr)
    order = np.argsort(rows, kind="stable")  # compressed rows in the order of all cells
    indices = np.concatenate([rows[graph.indices[graph.indptr[i] : graph.indptr[i + 1]]] for i in order])
    return Neighborhoods(np.concatenate([[0], np.cumsum(degree)]), indices)
