"""Batch correction by mutual nearest neighbours (Haghverdi et al. 2018), after the R function mnnCorrect.

Cells are scaled to unit length. Batches join one by one: pairs of cells that are among each other's k nearest across
reference and new batch give differences; each new cell is moved by the average of these, weighted by a Gaussian kernel
of its distance to the paired cells. Differs from mnnCorrect: no variance adjustment, no removal of biological
components from the differences (both optional there).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize, principal_components
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups

_BLOCK_ROWS = 2_000


def mnn(
    counts: Any,
    batch: ArrayLike,
    *,
    n_components: int = 50,
    k: int = 20,
    sigma: float = 0.1,
    order: Sequence[str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Principal components of expression corrected by mutual nearest neighbours, (n, n_components).

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    batch
        Batch of each cell, (n,).
    n_components, seed
        Of the principal components.
    k
        Neighbours of a cell in the other batch.
    sigma
        Width of the kernel; cells have unit length, so distances are between 0 and 2. 1 in mnnCorrect until 2018.
    order
        Names of the batches, the reference first; by default from the largest to the smallest.

    Raises
    ------
    DataError
        If the counts or batches cannot be used, or two batches share no mutual neighbours.
    SettingError
        If k, sigma or the order is not possible, or there are too few cells or genes.
    """
    x = log_normalize(counts).toarray()
    batches = groups(batch, "batch", len(x), at_least=2)
    if not (1 <= k <= batches.sizes.min() and sigma > 0):
        smallest = batches.sizes.min()
        raise SettingError(f"k={k} must be 1 to {smallest}, the smallest batch's cells, and sigma={sigma:g} positive.")
    by_size = [batches.names[code] for code in np.argsort(-batches.sizes, kind="stable")]
    names = list(order) if order is not None else by_size
    if sorted(names) != sorted(by_size):
        raise SettingError(f"order is {names}, and the batches are {by_size}: name each of them once.")
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    joined = np.flatnonzero(batches.codes == batches.names.index(names[0]))
    for name in names[1:]:
        rows = np.flatnonzero(batches.codes == batches.names.index(name))
        x[rows] += _correction(x[joined], x[rows], k, sigma)
        joined = np.concatenate([joined, rows])
    return principal_components(x, n_components, seed)


def mutual_pairs(reference: np.ndarray, new: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `reference` and rows of `new`, (pairs,) each, that are among each other's k nearest."""
    import scipy.sparse as sp
    from sklearn.neighbors import NearestNeighbors

    to_new = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(new).kneighbors_graph(reference)
    to_reference = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reference).kneighbors_graph(new)
    mutual = sp.coo_matrix(to_new.multiply(to_reference.T))
    return mutual.row, mutual.col


def _correction(reference: np.ndarray, new: np.ndarray, k: int, sigma: float) -> np.ndarray:
    """What to add to the cells of the new batch, (n, G)."""
    from scipy.special import softmax
    from sklearn.metrics.pairwise import euclidean_distances

    here, there = mutual_pairs(reference, new, k)
    if not len(here):
        raise DataError(f"no mutual nearest neighbours with k={k} between two batches: raise k or leave one out.")
    paired, pair_of = np.unique(there, return_inverse=True)  # cells of the new batch that have a partner
    shift = np.zeros((len(paired), new.shape[1]))
    np.add.at(shift, pair_of, reference[here] - new[there])
    shift /= np.bincount(pair_of)[:, None]
    # a crowd of paired cells must not outweigh a few: each counts by the inverse of the crowd around it
    crowd = np.exp(-euclidean_distances(new[paired], squared=True) / sigma**2).sum(1)
    moved = np.empty_like(new)
    for start in range(0, len(new), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        squared = euclidean_distances(new[rows], new[paired], squared=True)
        moved[rows] = softmax(-squared / sigma**2 - np.log(crowd), axis=1) @ shift
    return moved
