"""Measures of integration that scIB users know: LISI, silhouettes, graph connectivity.

Sources: LISI, Korsunsky et al. 2019 (Harmony); its scaling, the silhouettes and graph connectivity, Luecken et al. 2022
(scIB). docs/metrics.md gives formulas, ranges and every deviation.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups, points
from lucidcell.metrics.neighbors import Embedding, Neighbors, neighbors_of

_BLOCK_ROWS = 10_000


def lisi(embedding: Embedding, names: ArrayLike, *, k: int = 90, perplexity: float = 30.0) -> np.ndarray:
    """Local inverse Simpson index of each cell, (n,): how many groups its neighbourhood effectively holds, 1 or more.

    Neighbours are weighted by exp(-beta distance), beta chosen for each cell so that the weights have this perplexity.

    Parameters
    ----------
    embedding
        Cells as points, (n, D), or their neighbours.
    names
        Group of each cell, (n,): batches or labels.
    k
        Neighbours of a cell, itself not counted; three times the perplexity is usual.
    perplexity
        Effective number of neighbours; at least 1 and at most k.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there is one group only.
    SettingError
        If k or the perplexity is too large.
    """
    near = neighbors_of(embedding, k)
    if not 1 <= perplexity <= k:
        raise SettingError(f"perplexity={perplexity:g} is not possible with k={k} neighbours: choose 1 to {k}.")
    members = groups(names, "the grouping", near.n_cells, at_least=2)
    found = np.empty(near.n_cells)
    for start in range(0, near.n_cells, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        weights = _weights_of_perplexity(near.distances[rows], perplexity)
        codes = members.codes[near.indices[rows]]
        shares = np.stack([(weights * (codes == code)).sum(1) for code in range(len(members.names))])
        found[rows] = 1 / (shares**2).sum(0)
    return found


def ilisi(
    embedding: Embedding, batch: ArrayLike, *, k: int = 90, perplexity: float = 30.0, scale: bool = True
) -> float:
    """Median LISI of the batches; higher is better mixed.

    Parameters
    ----------
    embedding, k, perplexity
        As in `lisi`.
    batch
        Batch of each cell, (n,).
    scale
        True: (median - 1) / (batches - 1), from 0 to 1, as scIB. False: the median, from 1 to the number of batches.

    Raises
    ------
    DataError, SettingError
        As `lisi`.
    """
    n_batches = len(groups(batch, "batch", at_least=2).names)
    median = float(np.median(lisi(embedding, batch, k=k, perplexity=perplexity)))
    return (median - 1) / (n_batches - 1) if scale else median


def clisi(
    embedding: Embedding, labels: ArrayLike, *, k: int = 90, perplexity: float = 30.0, scale: bool = True
) -> float:
    """Median LISI of the cell types; scaled, higher keeps types better apart.

    Parameters
    ----------
    embedding, k, perplexity
        As in `lisi`.
    labels
        Cell type of each cell, (n,).
    scale
        True: (types - median) / (types - 1), from 0 to 1, as scIB. False: the median, 1 being the best.

    Raises
    ------
    DataError, SettingError
        As `lisi`.
    """
    n_types = len(groups(labels, "labels", at_least=2).names)
    median = float(np.median(lisi(embedding, labels, k=k, perplexity=perplexity)))
    return (n_types - median) / (n_types - 1) if scale else median


def silhouette_label(embedding: ArrayLike, labels: ArrayLike) -> float:
    """Mean silhouette width of the cell types, moved from [-1, 1] to [0, 1]; higher keeps types better apart.

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    labels
        Cell type of each cell, (n,); two types or more, fewer than cells.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there are too few or too many types.
    """
    from sklearn.metrics import silhouette_score

    x = points(embedding, "the embedding")
    types = groups(labels, "labels", len(x), at_least=2)
    if len(types.names) == len(x):
        raise DataError(f"each of the {len(x)} cells has a label of its own, so no type has a width: merge labels.")
    return float((silhouette_score(x - x.mean(0), types.codes) + 1) / 2)


def silhouette_batch(embedding: ArrayLike, labels: ArrayLike, batch: ArrayLike) -> float:
    """1 - |silhouette width of the batches|, mean over cells within each type, then over types; higher is better mixed.

    Types with cells of one batch only, or with no batch of two cells, say nothing and are left out.

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    labels
        Cell type of each cell, (n,).
    batch
        Batch of each cell, (n,).

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or no type has cells of two batches.
    """
    from sklearn.metrics import silhouette_samples

    x = points(embedding, "the embedding")
    types, batches = groups(labels, "labels", len(x)), groups(batch, "batch", len(x), at_least=2)
    widths = []
    for code in range(len(types.names)):
        rows = np.flatnonzero(types.codes == code)
        within = batches.take(rows)
        if 1 < len(within.names) < len(rows):
            centred = x[rows] - x[rows].mean(0)
            widths.append(1 - np.abs(silhouette_samples(centred, within.codes)).mean())
    if not widths:
        msg = f"none of {len(types.names)} cell types has cells of two batches, so none can be mixed: leave this out."
        raise DataError(msg)
    return float(np.mean(widths))


def graph_connectivity(embedding: Embedding, labels: ArrayLike, *, k: int = 15) -> float:
    """Share of a cell type's cells in its largest connected piece of the kNN graph, mean over types; 0 to 1.

    Two cells are connected if either is among the k nearest neighbours of the other.

    Parameters
    ----------
    embedding
        Cells as points, (n, D), or their neighbours.
    labels
        Cell type of each cell, (n,).
    k
        Neighbours of a cell, itself not counted.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If k is too large.
    """
    near = neighbors_of(embedding, k)
    types = groups(labels, "labels", near.n_cells)
    graph = knn_graph(near)
    shares = []
    for code in range(len(types.names)):
        rows = np.flatnonzero(types.codes == code)
        _, piece = sp.csgraph.connected_components(graph[rows][:, rows], directed=False)
        shares.append(np.bincount(piece).max() / len(rows))
    return float(np.mean(shares))


def knn_graph(neighbors: Neighbors) -> sp.csr_matrix:
    """(n, n) matrix with a 1 for each of a cell's neighbours."""
    n, k = neighbors.indices.shape
    edges = np.ones(n * k, np.int8)
    return sp.csr_matrix((edges, neighbors.indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _weights_of_perplexity(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """exp(-beta d) / sum, (n, k), with beta of each row by bisection; distances (n, k) rise along a row."""
    scale = distances.mean(1, keepdims=True) - distances[:, :1]
    d = (distances - distances[:, :1]) / np.where(scale > 0, scale, 1)  # changes beta only, and avoids underflow
    low, high = np.full((len(d), 1), -30.0), np.full((len(d), 1), 30.0)  # of log beta
    for _ in range(45):
        beta = np.exp(middle := (low + high) / 2)
        weights = np.exp(-beta * d)
        total = weights.sum(1, keepdims=True)
        entropy = np.log(total) + beta * (weights * d).sum(1, keepdims=True) / total
        too_wide = entropy > np.log(perplexity)
        low, high = np.where(too_wide, middle, low), np.where(too_wide, high, middle)
    return weights / total
