"""Exact nearest neighbours in Euclidean distance: searched once, shared by every metric that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.errors import SettingError
from lucidcell.metrics.checks import points

CURVE_KS = (*range(10, 100, 10), *range(100, 501, 50))  # from a fine to a coarse view, as in the paper


class Neighbors(NamedTuple):
    """The k nearest cells of each of n cells, the nearest first; a cell is not its own neighbour."""

    indices: np.ndarray  # (n, k) int64
    distances: np.ndarray  # (n, k) float64

    @property
    def n_cells(self) -> int:
        return len(self.indices)

    def first(self, k: int) -> Neighbors:
        """The k nearest of these.

        Raises
        ------
        SettingError
            If there are fewer.
        """
        if not 1 <= k <= self.indices.shape[1]:
            msg = f"k={k} neighbours are wanted and {self.indices.shape[1]} are known: search for more, or lower k."
            raise SettingError(msg)
        return Neighbors(self.indices[:, :k], self.distances[:, :k])


Embedding: TypeAlias = ArrayLike | Neighbors  # cells as points (n, D), or their neighbours where these are known


def nearest_neighbors(embedding: ArrayLike, k: int) -> Neighbors:
    """The k nearest neighbours of every cell, exact, by brute force in blocks (scikit-learn).

    Pass the result to several metrics in the place of the embedding, and the search is done once. Ties are broken by
    the order of the cells.

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    k
        Neighbours of a cell, the cell itself not counted; below n.

    Raises
    ------
    DataError
        If the embedding is not a matrix of finite numbers.
    SettingError
        If there are not that many other cells.
    """
    from sklearn.neighbors import NearestNeighbors

    x = points(embedding, "the embedding")
    require_neighbors(k, len(x), "cells")
    centred = x - x.mean(0)  # distances lose digits far from the origin
    distances, indices = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centred).kneighbors()
    return Neighbors(indices, distances)


def neighbors_of(embedding: Embedding, k: int) -> Neighbors:
    """The k nearest neighbours: of those known, or searched for.

    Raises
    ------
    DataError
        If the embedding is not a matrix of finite numbers.
    SettingError
        If there are not that many.
    """
    return embedding.first(k) if isinstance(embedding, Neighbors) else nearest_neighbors(embedding, k)


def require_neighbors(k: int, n_cells: int, what: str) -> None:
    """Raise `SettingError` if a cell cannot have k neighbours among `n_cells`; `what` says which cells."""
    if not 1 <= k < n_cells:
        raise SettingError(f"k={k} neighbours are not possible with {n_cells} {what}: choose 1 to {n_cells - 1}.")


def curve_ks(ks: Sequence[int] | None, most: int) -> list[int]:
    """The numbers of neighbours of a curve in rising order; by default 10 to 500, as far as `most`.

    Raises
    ------
    SettingError
        If there are none, or one is not between 1 and `most`.
    """
    wanted = sorted({int(k) for k in ks} if ks is not None else {k for k in CURVE_KS if k <= most})
    if not wanted:
        raise SettingError(f"there is no k to draw a curve over ({most} neighbours are possible): pass ks.")
    if wanted[0] < 1 or wanted[-1] > most:
        raise SettingError(f"ks run from {wanted[0]} to {wanted[-1]}, and k can be 1 to {most} here: drop the others.")
    return wanted
