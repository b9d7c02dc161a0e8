"""Canonical correlation of two data sets over their genes: a stand-in for the alignment of Seurat 2.

As in Seurat 2 (Butler et al. 2018), genes are standardised within each data set, cells likewise, and the canonical
vectors are the singular vectors of cells x cells correlations. Seurat then warps each vector's metagenes (dynamic time
warping); here each vector gets mean 0 and the same variance in both data sets, and no more. That variance falls with
the singular value, as in the factors U S^(1/2) and V S^(1/2) of the matrix: with equal variances the last vectors,
which are mostly noise, would decide who is whose neighbour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups

_CLIP = 10.0  # standard deviations, as in Seurat


def cca(counts: Any, batch: ArrayLike, *, n_components: int = 20, seed: int = 0) -> np.ndarray:
    """Cells by their aligned canonical vectors, (n, n_components).

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    batch
        Batch of each cell, (n,); exactly two batches.
    n_components
        Canonical vectors.
    seed
        Of the solver's start.

    Raises
    ------
    DataError
        If the counts cannot be used, or there are not two batches.
    SettingError
        If there are too few cells or genes.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    x = log_normalize(counts)
    batches = groups(batch, "batch", x.shape[0], at_least=2)
    if len(batches.names) != 2:
        raise DataError(f"batch holds {len(batches.names)} names, and CCA aligns two data sets: choose two of them.")
    most = int(min(*batches.sizes, x.shape[1])) - 1
    if not 1 <= n_components <= most:
        raise SettingError(f"n_components={n_components} is not possible with these cells and genes: take 1 to {most}.")
    rows = [np.flatnonzero(batches.codes == code) for code in (0, 1)]
    first, second = (_standardised(x[of_batch].toarray()) for of_batch in rows)
    # the cells x cells matrix is never made
    product = LinearOperator(
        (len(first), len(second)),
        matvec=lambda v: first @ (second.T @ v),
        rmatvec=lambda u: second @ (first.T @ u),
        dtype=np.float64,
    )
    start = np.random.default_rng(seed).normal(size=min(product.shape))
    left, values, right = svds(product, k=n_components, v0=start)
    scale = np.sqrt(values / max(values.max(), 1e-12))[::-1]
    embedding = np.empty((x.shape[0], n_components))
    for of_batch, vectors in zip(rows, (left, right.T), strict=True):
        centred = vectors[:, ::-1] - vectors.mean(0)[::-1]
        embedding[of_batch] = scale * centred / np.maximum(centred.std(0), 1e-12)
    return embedding


def _standardised(x: np.ndarray) -> np.ndarray:
    """Genes and then cells with mean 0 and variance 1; constant ones are 0."""
    x = x - x.mean(0)
    x = np.clip(x / np.maximum(x.std(0), 1e-12), -_CLIP, _CLIP)
    x -= x.mean(1, keepdims=True)
    return x / np.maximum(x.std(1, keepdims=True), 1e-12)
