"""Counts as the comparators take them, normalised as scanpy's users do, and their principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from lucidcell.cells.checks import ValueScan
from lucidcell.cells.matrix import read_rows
from lucidcell.errors import DataError, SettingError


def read_counts(counts: Any, name: str = "counts") -> sp.csr_matrix:
    """Counts of any matrix layout, (n, G) float32 CSR.

    Raises
    ------
    DataError
        If they are no matrix of whole numbers from 0 on.
    """
    if np.ndim(counts) != 2 and not sp.issparse(counts):
        raise DataError(f"{name} have {np.ndim(counts)} dimensions: pass a matrix of cells x genes.")
    scan = ValueScan()
    rows = read_rows(counts, name, look=scan.look)
    fault = scan.fault([str(i) for i in range(counts.shape[0])], [str(i) for i in range(counts.shape[1])], counts=True)
    if fault is not None:
        raise DataError(f"{name}: the matrix {fault}; comparators normalise by themselves and need raw counts.")
    return rows.to_scipy()


def log_normalize(counts: Any, name: str = "counts") -> sp.csr_matrix:
    """log(1 + 10,000 x / total of the cell), (n, G) float64 CSR; empty cells stay zero.

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    name
        What to call them in messages.

    Raises
    ------
    DataError
        If they are no matrix of whole numbers from 0 on.
    """
    return scaled_logarithms(read_counts(counts, name))


def scaled_logarithms(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """log(1 + 10,000 x / total of the row), (n, G) float64 CSR; empty rows stay zero."""
    matrix = matrix.astype(np.float64)
    totals = np.asarray(matrix.sum(1)).ravel()
    scaled = sp.diags_array(1e4 / np.where(totals > 0, totals, 1)) @ matrix
    return sp.csr_matrix(scaled.log1p())


def principal_components(x: sp.csr_matrix | np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Scores of the leading principal components, (n, n_components) float64, columns centred and not scaled.

    Raises
    ------
    SettingError
        If there are too few cells or columns.
    """
    from sklearn.decomposition import PCA

    require_components(n_components, x.shape)
    return np.asarray(PCA(n_components, svd_solver="arpack", random_state=seed).fit_transform(x))


def require_components(n_components: int, shape: tuple[int, ...]) -> None:
    """Raise `SettingError` if a matrix (n, G) of this shape cannot have that many components."""
    if not 1 <= n_components < min(shape):
        what = f"n_components={n_components} with {shape[0]} cells and {shape[1]} genes"
        raise SettingError(f"{what} is not possible: choose 1 to {min(shape) - 1}.")
