"""Pick rows of a compressed sparse matrix in one compiled pass without the interpreter lock. Importing loads Numba."""

from __future__ import annotations

from typing import Any

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
        # unsigned, as Numba looks whether a signed index is negative, and copies an entry at a time: ten times slower
        start, first, size = np.uint64(indptr[rows[i]]), np.uint64(out_indptr[i]), out_indptr[i + 1] - out_indptr[i]
        for j in range(np.uint64(size)):
            out_indices[first + j] = indices[start + j]
        for j in range(np.uint64(size)):
            out_values[first + j] = values[start + j]
    return out_indptr, out_indices, out_values


DONE, OUT_OF_ORDER = 0, 1  # what `pick` returns


def _pick(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    out_indptr: np.ndarray,
    out_indices: np.ndarray,
    out_values: np.ndarray,
    first: int,
) -> int:
    """Write rows, their columns renumbered (-1: left out), zeros dropped, to out[first:], whose lengths are known.

    Gives up where the columns do not ascend, lie outside, or the lengths differ.
    """
    for i in range(len(rows)):
        at, end, last = out_indptr[first + i], out_indptr[first + i + 1], -1
        for j in range(indptr[rows[i]], indptr[rows[i] + 1]):
            column = np.int64(indices[j])
            if column < 0 or column >= len(columns):
                return OUT_OF_ORDER
            to = columns[column]
            if to < 0 or values[j] == 0:
                continue
            if to <= last or at == end:
                return OUT_OF_ORDER
            last = to
            out_indices[at] = to
            out_values[at] = values[j]
            at += 1
        if at != end:
            return OUT_OF_ORDER
    return DONE


def _compiled(function: Any) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no writable folder for the cache: compile once per process
        return njit(nogil=True)(function)


gather, pick = _compiled(_gather), _compiled(_pick)
