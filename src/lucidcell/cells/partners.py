"""`Partners`: for every cell some others that are like it, of which one is drawn whenever the cell is taken."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.cells.matrix import Rows

MOST_TO_SEARCH = 16_384  # cells of a window, among which neighbours are searched for again and again


class Neighborhoods(NamedTuple):
    """Neighbours of n cells as compressed rows; none for a cell that is not to have any."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # positions of cells


class Partners(NamedTuple):
    """Neighbours in two views of the same cells.

    The draw depends on `seed` and on the cells that are taken, in their order, and on nothing else: it needs no state,
    so that a run that is resumed, or takes batches ahead in another thread, draws the same.
    """

    expression: Neighborhoods
    external: Neighborhoods
    seed: int

    def draw(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """A neighbour of each of these cells in either view, both (B,); None if one of them has none."""
        rng = np.random.default_rng([self.seed, zlib.crc32(rows.tobytes())])
        found = []
        for view in (self.expression, self.external):
            first, degree = view.indptr[rows], view.indptr[rows + 1] - view.indptr[rows]
            if not degree.all():
                return None
            found.append(view.indices[first + (rng.random(len(rows)) * degree).astype(np.int64)].astype(np.int64))
        return found[0], found[1]


class PartnerSearch(Protocol):
    """How to find neighbours among cells that are in memory for a while."""

    def among(self, counts: Rows, cells: Cells, held: np.ndarray) -> Partners:
        """Neighbours of the cells `held`, whose counts are given, numbered from 0 on."""
        ...


class WindowPartners(NamedTuple):
    """Partners of some cells, under the numbers that these have in the whole."""

    held: np.ndarray  # (h,) ascending
    local: Partners

    def draw(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Partners.draw`."""
        drawn = self.local.draw(np.searchsorted(self.held, rows))
        return None if drawn is None else (self.held[drawn[0]], self.held[drawn[1]])
