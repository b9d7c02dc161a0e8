"""How far a cell keeps its own neighbours when data sets are harmonized: kNN purity of the scANVI paper.

Source: Xu et al. 2021 (scANVI), Online Methods "Evaluation metrics" and Figure 2. docs/metrics.md gives the formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.metrics.checks import data_sets, points
from lucidcell.metrics.neighbors import curve_ks, nearest_neighbors, require_neighbors

_BLOCK_ENTRIES = 2**21  # neighbours compared at a time


def purity_per_cell(before: ArrayLike, after: ArrayLike, batch: ArrayLike | None = None, *, k: int = 30) -> np.ndarray:
    """Jaccard index of each cell's neighbours within its batch, before against after harmonization, (n,).

    Parameters
    ----------
    before
        Cells embedded from their own batch alone, (n, D). Batches may lie in different spaces: distances are taken
        within a batch only.
    after
        Cells in the joint space, (n, D'), in the same order.
    batch
        Batch of each cell, (n,); None when all are one data set.
    k
        Neighbours of a cell within its batch, itself not counted.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If a batch has too few cells for k.
    """
    return _purity(before, after, batch, [k])[:, 0]


def knn_purity(before: ArrayLike, after: ArrayLike, batch: ArrayLike | None = None, *, k: int = 30) -> float:
    """Mean Jaccard index of neighbours before and after, per batch, then over batches; 0 to 1, higher is better.

    Parameters
    ----------
    before, after, batch, k
        As in `purity_per_cell`.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If a batch has too few cells for k.
    """
    return float(purity_curve(before, after, batch, [k])["purity"].iloc[0])


def purity_curve(
    before: ArrayLike, after: ArrayLike, batch: ArrayLike | None = None, ks: Sequence[int] | None = None
) -> pd.DataFrame:
    """kNN purity against the number of neighbours, from one search in each space.

    Parameters
    ----------
    before, after, batch
        As in `purity_per_cell`.
    ks
        Numbers of neighbours; by default 10 to 500 as far as the smallest batch goes.

    Returns
    -------
    pandas.DataFrame
        Columns k and purity, a row for each k in rising order.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If a k is too large.
    """
    parts = data_sets(batch, len(points(before, "before")))
    wanted = curve_ks(ks, int(parts.sizes.min()) - 1)
    shares = _purity(before, after, batch, wanted)
    by_batch = [shares[parts.codes == code].mean(0) for code in range(len(parts.names))]
    return pd.DataFrame({"k": wanted, "purity": np.mean(by_batch, axis=0)})


def shared_neighbors(first: np.ndarray, second: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """How many of a cell's k first entries in two lists are the same, (n, len(ks)), for each k in rising order.

    Parameters
    ----------
    first, second
        Neighbours of n cells, (n, K) each, the nearest first and none twice.
    ks
        In rising order, at most K.
    """
    n, width = first.shape
    counts = np.empty((n, len(ks)), np.int64)
    names = max(first.max(), second.max()) + 1
    for start in range(0, n, rows := max(1, _BLOCK_ENTRIES // width)):
        lists = first[start : start + rows], second[start : start + rows]
        row = np.arange(len(lists[0]))[:, None]
        left, right = ((one + row * names).ravel() for one in lists)  # equal only in the same row
        _, here, there = np.intersect1d(left, right, assume_unique=True, return_indices=True)
        rank = np.maximum(here % width, there % width)  # from this rank on both lists have it
        found = np.bincount(here // width * width + rank, minlength=row.size * width).reshape(-1, width)
        counts[start : start + rows] = found.cumsum(1)[:, np.asarray(ks) - 1]
    return counts


def _purity(before: ArrayLike, after: ArrayLike, batch: ArrayLike | None, ks: Sequence[int]) -> np.ndarray:
    first = points(before, "before")
    second = points(after, "after", len(first))
    parts = data_sets(batch, len(first))
    shares = np.empty((len(first), len(ks)))
    for code, name in enumerate(parts.names):
        rows = np.flatnonzero(parts.codes == code)
        require_neighbors(ks[-1], len(rows), f"cells of batch {name!r}")
        own, joint = (nearest_neighbors(x[rows], ks[-1]).indices for x in (first, second))
        shared = shared_neighbors(own, joint, ks)
        shares[rows] = shared / (2 * np.asarray(ks) - shared)
    return shares
