"""Numba kernels of `sparse.py`. Plain indexing, no slices: making a slice costs more than a row of products."""

from __future__ import annotations

from numba import njit

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}


@njit(**KERNEL)
def multiply(indptr, indices, values, weight, out, first, last):
    """Rows first:last of out = x @ weight; four genes at a time, so that `out` is read and written less often."""
    n_hidden = weight.shape[1]
    for i in range(first, last):
        for h in range(n_hidden):
            out[i, h] = 0.0
        k, stop = indptr[i], indptr[i + 1]
        while k + 4 <= stop:
            g0, g1, g2, g3 = indices[k], indices[k + 1], indices[k + 2], indices[k + 3]
            v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            for h in range(n_hidden):
                out[i, h] += v0 * weight[g0, h] + v1 * weight[g1, h] + v2 * weight[g2, h] + v3 * weight[g3, h]
            k += 4
        while k < stop:
            gene, value = indices[k], values[k]
            for h in range(n_hidden):
                out[i, h] += value * weight[gene, h]
            k += 1


@njit(**KERNEL)
def _first_from(indices, start, stop, gene):
    """First position in start:stop whose index is `gene` or higher; the indices of a row ascend."""
    while start < stop:
        middle = (start + stop) // 2
        if indices[middle] < gene:
            start = middle + 1
        else:
            stop = middle
    return start


@njit(**KERNEL)
def multiply_transposed(indptr, indices, values, d_out, d_weight, first, last):
    """Rows (genes) first:last of d_weight = x.T @ d_out."""
    n_hidden = d_weight.shape[1]
    d_weight[first:last] = 0.0
    for i in range(indptr.shape[0] - 1):
        start = _first_from(indices, indptr[i], indptr[i + 1], first)
        stop = _first_from(indices, start, indptr[i + 1], last)
        for k in range(start, stop):
            gene, value = indices[k], values[k]
            for h in range(n_hidden):
                d_weight[gene, h] += value * d_out[i, h]
