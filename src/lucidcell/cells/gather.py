"""Pick rows of a compressed sparse matrix in one compiled pass without the interpreter lock. Importing loads Numba."""

from __future__ import annotations

import numpy as np
from numba import njit


def _gather(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    out_indptr = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        out_indptr[i + 1] = out_indptr[i] + indptr[rows[i] + 1] - indptr[rows[i]]
    out_indices = np.empty(out_indptr[-1], indices.dtype)
    out_values = np.empty(out_indptr[-1], values.dtype)
    for i in range(len(rows)):
        start = indptr[rows[i]]
        first = out_indptr[i]
        for j in range(out_indptr[i + 1] - first):
            out_indices[first + j] = indices[start + j]
            out_values[first + j] = values[start + j]
    return out_indptr, out_indices, out_values


try:
    gather = njit(nogil=True, cache=True)(_gather)
except RuntimeError:  # no writable folder for the cache: compile once per process
    gather = njit(nogil=True)(_gather)
