"""How well data sets are mixed, and how far clusters survive it: measures of the scANVI paper (kNN purity: purity.py).

Sources: Xu et al. 2021 (scANVI), Online Methods "Evaluation metrics", Figure 2 and Supplementary Table 2; the entropy
of batch mixing goes back to Haghverdi et al. 2018. docs/metrics.md gives formulas, ranges and every deviation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import xlogy

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import data_sets, groups, points
from lucidcell.metrics.clustering import adjusted_rand_index, kmeans_clusters
from lucidcell.metrics.neighbors import Embedding, Neighbors, curve_ks, neighbors_of

_BLOCK_ENTRIES = 2**23  # neighbours x batches looked at together


def batch_mixing_per_cell(
    embedding: Embedding, batch: ArrayLike, *, k: int = 50, balance: bool = True, normalize: bool = False
) -> np.ndarray:
    """Entropy of the batches among each cell's neighbours, (n,) in nats.

    Parameters
    ----------
    embedding
        Cells as points, (n, D), or their neighbours.
    batch
        Batch of each cell, (n,); two batches or more.
    k
        Neighbours of a cell, itself not counted.
    balance
        Weight each neighbour by 1 / cells in its batch, so that batches of different size can mix perfectly.
    normalize
        Divide by log(number of batches), so that the maximum is 1.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there is one batch only.
    SettingError
        If k is too large.
    """
    return _mixing(neighbors_of(embedding, k), batch, [k], balance, normalize)[:, 0]


def entropy_of_batch_mixing(
    embedding: Embedding,
    batch: ArrayLike,
    *,
    k: int = 50,
    balance: bool = True,
    normalize: bool = False,
    n_pools: int | None = None,
    n_per_pool: int = 100,
    seed: int = 0,
) -> float:
    """Mean over cells of the entropy of the batches among their neighbours; higher is better mixed.

    0 when every neighbourhood holds one batch; at most log(number of batches) nats, or 1 when normalised.

    Parameters
    ----------
    embedding, batch, k, balance, normalize
        As in `batch_mixing_per_cell`.
    n_pools, n_per_pool
        None: the exact mean over all cells. Otherwise, as the paper does, the mean over `n_pools` pools of
        `n_per_pool` cells drawn with replacement.
    seed
        Of the pools.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there is one batch only.
    SettingError
        If k is too large or there are no pools.
    """
    entropies = batch_mixing_per_cell(embedding, batch, k=k, balance=balance, normalize=normalize)
    if n_pools is None:
        return float(entropies.mean())
    if n_pools < 1 or n_per_pool < 1:
        raise SettingError(f"n_pools={n_pools} pools of n_per_pool={n_per_pool} cells are none: both must be positive.")
    drawn = np.random.default_rng(seed).integers(len(entropies), size=(n_pools, n_per_pool))
    return float(entropies[drawn].mean())


def mixing_curve(
    embedding: Embedding,
    batch: ArrayLike,
    ks: Sequence[int] | None = None,
    *,
    balance: bool = True,
    normalize: bool = False,
) -> pd.DataFrame:
    """Entropy of batch mixing against the number of neighbours, from one search.

    Parameters
    ----------
    embedding, batch, balance, normalize
        As in `batch_mixing_per_cell`.
    ks
        Numbers of neighbours; by default 10 to 500 as far as the cells go.

    Returns
    -------
    pandas.DataFrame
        Columns k and mixing, a row for each k in rising order.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there is one batch only.
    SettingError
        If a k is too large.
    """
    most = embedding.indices.shape[1] if isinstance(embedding, Neighbors) else len(points(embedding, "embedding")) - 1
    wanted = curve_ks(ks, most)
    entropies = _mixing(neighbors_of(embedding, wanted[-1]), batch, wanted, balance, normalize)
    return pd.DataFrame({"k": wanted, "mixing": entropies.mean(0)})


def kmeans_conservation(
    before: ArrayLike, after: ArrayLike, batch: ArrayLike | None, labels: ArrayLike, *, seed: int = 0
) -> float:
    """Adjusted Rand index of k-means before and after harmonization, averaged over batches; 1 is full conservation.

    The number of clusters is the number of cell types of the batch (Supplementary Table 2).

    Parameters
    ----------
    before, after, batch
        As in `purity_per_cell`.
    labels
        Cell type of each cell, (n,); only their number in each batch is used.
    seed
        Of k-means (10 starts each).

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or a batch has one cell type only.
    """
    first = points(before, "before")
    second = points(after, "after", len(first))
    parts, types = data_sets(batch, len(first)), groups(labels, "labels", len(first))
    found = []
    for code, name in enumerate(parts.names):
        rows = np.flatnonzero(parts.codes == code)
        n_types = len(types.take(rows).names)
        if n_types < 2:
            msg = f"batch {name!r} holds one cell type only, so k-means has nothing to conserve: leave this batch out."
            raise DataError(msg)
        clusters = [kmeans_clusters(x[rows], n_types, seed=seed) for x in (first, second)]
        found.append(adjusted_rand_index(*clusters))
    return float(np.mean(found))


def _mixing(neighbors: Neighbors, batch: ArrayLike, ks: Sequence[int], balance: bool, normalize: bool) -> np.ndarray:
    """Entropy of the batches among the first k neighbours, (n, len(ks)), for each k in rising order."""
    batches = groups(batch, "batch", neighbors.n_cells, at_least=2)
    weights = 1 / batches.sizes if balance else np.ones(len(batches.names))
    entropies = np.empty((neighbors.n_cells, len(ks)))
    starts = [0, *ks[:-1]]
    for start in range(0, len(entropies), rows := max(1, _BLOCK_ENTRIES // (ks[-1] * len(weights)))):
        near = batches.codes[neighbors.indices[start : start + rows, : ks[-1]]]
        member = near[:, :, None] == np.arange(len(weights))
        counts = np.add.reduceat(member, starts, axis=1, dtype=np.int64).cumsum(1) * weights
        shares = counts / counts.sum(2, keepdims=True)
        entropies[start : start + rows] = -xlogy(shares, shares).sum(2)
    return entropies / np.log(len(weights)) if normalize else entropies
