"""Gene Relevance: local derivatives of expression along an embedding, from nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import points

ENTRIES_AT_A_TIME = 2**24  # of cells x neighbours x genes
WIDTH_OF_SMOOTHING = 2.5  # standard deviations from the middle of the window to its end


def gene_relevance(expression: ArrayLike, embedding: ArrayLike, *, k: int = 20, window: float = 0.1) -> np.ndarray:
    """How much each gene changes along each dimension of an embedding, (G, D).

    In each cell the derivative of a gene along a dimension is the median, over the cell's nearest neighbours in
    expression that have another value of the gene, of the difference quotient. Derivatives are smoothed over cells in
    the order of the dimension. The table holds the first principal component (through zero) of each dimension's cells x
    genes derivatives, times the root of its eigenvalue, as `get_attributions` sums up its scores.

    Parameters
    ----------
    expression
        Log-normalised expression, (n, G).
    embedding
        The same cells in the embedding, (n, D).
    k
        How many neighbours.
    window
        Share of the cells over which derivatives are smoothed; 0 for no smoothing.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If there are fewer than k other cells, or `window` is no share.

    Notes
    -----
    After Angerer, Fischer, Theis, Scialdone and Marr (2020), Bioinformatics 36, 4291. Cells without two such neighbours
    count as 0 for that gene.
    """
    x, z = points(expression, "expression"), points(embedding, "embedding")
    if len(x) != len(z):
        raise DataError(f"expression has {len(x)} cells and embedding {len(z)}: give the same cells, in one order.")
    if not 2 <= k < len(x):
        raise SettingError(f"k={k} neighbours are not possible with {len(x)} cells; choose 2 to {len(x) - 1}.")
    if not 0 <= window <= 1:
        raise SettingError(f"window is {window!r}; it must be a share from 0 to 1.")
    return np.stack([_principal(partials) for partials in partial_derivatives(x, z, k, window)], axis=1)


def partial_derivatives(x: np.ndarray, z: np.ndarray, k: int, window: float) -> Iterator[np.ndarray]:
    """Derivatives (n, G) along each dimension in turn, NaN where there are none."""
    from sklearn.neighbors import NearestNeighbors

    neighbors = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors(return_distance=False)
    (n, n_genes), step = x.shape, max(1, ENTRIES_AT_A_TIME // (len(x) * k))
    for d in range(z.shape[1]):
        run = z[neighbors, d] - z[:, d][:, None]  # (n, k)
        partials = np.empty((n, n_genes), np.float32)
        for start in range(0, n_genes, step):
            genes = slice(start, start + step)
            rise = x[neighbors, genes] - x[:, None, genes]
            with np.errstate(divide="ignore", invalid="ignore"):
                quotients = np.where((rise == 0) | (run == 0)[:, :, None], np.nan, rise / run[:, :, None])
            partials[:, genes] = _medians(quotients)
        yield _smoothed(partials, z[:, d], window) if window else partials


def _medians(values: np.ndarray) -> np.ndarray:
    """Median over the second axis of what is not NaN, where there are at least two such."""
    values = np.sort(values, axis=1)  # NaN last
    n = (~np.isnan(values)).sum(1)
    lower, upper = np.maximum(n - 1, 0) // 2, n // 2
    middle = [
        np.take_along_axis(values, at[:, None], 1)[:, 0] for at in (lower, np.minimum(upper, values.shape[1] - 1))
    ]
    return np.where(n >= 2, (middle[0] + middle[1]) / 2, np.nan)


def _smoothed(partials: np.ndarray, coordinate: np.ndarray, window: float) -> np.ndarray:
    """Gaussian means over cells in the order of the coordinate; shorter at the ends; NaN is left out."""
    from scipy.signal import oaconvolve

    half = max(1, round(window * len(partials) / 2))
    kernel = np.exp(-0.5 * (WIDTH_OF_SMOOTHING * np.arange(-half, half + 1) / half) ** 2)[:, None]
    order = np.argsort(coordinate, kind="stable")
    known = ~np.isnan(partials[order])
    total = oaconvolve(np.where(known, partials[order], 0.0), kernel, mode="same", axes=0)
    weight = oaconvolve(known.astype(float), kernel, mode="same", axes=0)
    result = np.empty_like(partials)
    result[order] = np.where(weight > 1e-6, total / np.maximum(weight, 1e-6), np.nan)
    return result


def _principal(partials: np.ndarray) -> np.ndarray:
    from scipy.sparse.linalg import svds

    known = np.nan_to_num(partials.astype(float))
    if not known.any():
        return np.zeros(known.shape[1])
    _, values, vectors = svds(known, k=1, v0=np.ones(min(known.shape)))
    column = vectors[0] * values[0] / len(known) ** 0.5
    return column if column @ known.mean(0) >= 0 else -column
