"""Whether neighbours in an embedding are neighbours in another view of the same cells, such as their surface proteins.

Source: Xu et al. 2021 (scANVI), Figure 5c and Supplementary Figure 13a.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.metrics.checks import points
from lucidcell.metrics.neighbors import curve_ks, nearest_neighbors
from lucidcell.metrics.purity import knn_purity, shared_neighbors

_BLOCK_ENTRIES = 2**23


def neighbor_error(embedding: ArrayLike, view: ArrayLike, *, k: int = 50) -> float:
    """Mean squared distance in the view between a cell and the average of its neighbours; lower is more consistent.

    The sum of squared differences over the columns of the view, mean over cells; in squared units of the view.

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    view
        The same cells in the other view, (n, P), its columns on comparable scales.
    k
        Neighbours of a cell in the embedding, itself not counted.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If k is too large.
    """
    x = points(embedding, "the embedding")
    return float(_errors(nearest_neighbors(x, k).indices, points(view, "the view", len(x)), [k])[0])


def neighbor_overlap(embedding: ArrayLike, view: ArrayLike, *, k: int = 50) -> float:
    """Mean Jaccard index of a cell's k neighbours in the embedding and in the view; 0 to 1, higher is better.

    Parameters
    ----------
    embedding, view, k
        As in `neighbor_error`.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If k is too large.
    """
    return knn_purity(view, embedding, k=k)


def second_view_curve(embedding: ArrayLike, view: ArrayLike, ks: Sequence[int] | None = None) -> pd.DataFrame:
    """Neighbour error and neighbour overlap against the number of neighbours, from one search in each space.

    Parameters
    ----------
    embedding, view
        As in `neighbor_error`.
    ks
        Numbers of neighbours; by default 10 to 500 as far as the cells go.

    Returns
    -------
    pandas.DataFrame
        Columns k, error and overlap, a row for each k in rising order.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If a k is too large.
    """
    x = points(embedding, "the embedding")
    y = points(view, "the view", len(x))
    wanted = curve_ks(ks, len(x) - 1)
    here, there = (nearest_neighbors(space, wanted[-1]).indices for space in (x, y))
    shared = shared_neighbors(here, there, wanted)
    overlap = (shared / (2 * np.asarray(wanted) - shared)).mean(0)
    return pd.DataFrame({"k": wanted, "error": _errors(here, y, wanted), "overlap": overlap})


def _errors(indices: np.ndarray, view: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    total = np.zeros(len(ks))
    for start in range(0, len(view), rows := max(1, _BLOCK_ENTRIES // (ks[-1] * view.shape[1]))):
        near = view[indices[start : start + rows, : ks[-1]]].cumsum(1)[:, np.asarray(ks) - 1]
        means = near / np.asarray(ks)[:, None]
        total += ((means - view[start : start + rows, None]) ** 2).sum((0, 2))
    return total / len(view)
