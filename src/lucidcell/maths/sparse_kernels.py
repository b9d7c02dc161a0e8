"""Numba kernels of `sparse.py`. Plain indexing, no slices: making a slice costs more than a row of products."""

from __future__ import annotations

import numpy as np
from numba import njit

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}


@njit(**KERNEL)
def multiply(indptr, indices, values, weight, out, first, last):
    """Rows first:last of out = x @ weight."""
    n_hidden = weight.shape[1]
    for i in range(first, last):
        for h in range(n_hidden):
            out[i, h] = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            gene, value = indices[k], values[k]
            for h in range(n_hidden):
                out[i, h] += value * weight[gene, h]


@njit(**KERNEL)
def multiply_transposed(indptr, indices, values, d_out, d_weight, first, last):
    """Columns first:last of d_weight += x.T @ d_out."""
    start, stop = np.uint64(first), np.uint64(last)  # unsigned: no check for negative indices in the inner loop
    for i in range(indptr.shape[0] - 1):
        for k in range(indptr[i], indptr[i + 1]):
            gene, value = indices[k], values[k]
            for h in range(start, stop):
                d_weight[gene, h] += value * d_out[i, h]
