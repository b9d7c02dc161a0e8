"""Numba kernels of `sparse.py`. Plain indexing, no slices: making a slice costs more than a row of products.

Genes are taken by blocks whose rows of the weight stay in the second-level cache, for all cells before the next block.
"""

from __future__ import annotations

from numba import njit

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}
BLOCK = 256  # genes: 200 kB of 200 hidden units
ENTRIES = 16  # of a row in a block, on average, at least: fewer are seldom four at a time


@njit(**KERNEL)
def multiply(indptr, indices, values, weight, out, first, last):
    """Rows first:last of out = x @ weight; four genes at a time, so that `out` is read and written less often."""
    n_genes, n_hidden = weight.shape
    at = indptr[first:last].copy()  # the next entry of each row
    size = max(BLOCK, ENTRIES * n_genes * (last - first) // max(1, indptr[last] - indptr[first]))
    for i in range(first, last):
        for h in range(n_hidden):
            out[i, h] = 0.0
    for block in range(0, n_genes, size):
        end = block + size
        for i in range(first, last):
            k, stop = at[i - first], indptr[i + 1]
            while k + 4 <= stop and indices[k + 3] < end:
                g0, g1, g2, g3 = indices[k], indices[k + 1], indices[k + 2], indices[k + 3]
                v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
                for h in range(n_hidden):
                    out[i, h] += v0 * weight[g0, h] + v1 * weight[g1, h] + v2 * weight[g2, h] + v3 * weight[g3, h]
                k += 4
            while k < stop and indices[k] < end:
                gene, value = indices[k], values[k]
                for h in range(n_hidden):
                    out[i, h] += value * weight[gene, h]
                k += 1
            at[i - first] = k


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
    """Rows (genes) first:last of d_weight = x.T @ d_out; four at a time, so that `d_out` is read less often."""
    n_cells, n_hidden = d_out.shape
    at = indptr[:n_cells].copy()  # the next entry of each row
    for i in range(n_cells):
        at[i] = _first_from(indices, indptr[i], indptr[i + 1], first)
    for block in range(first, last, BLOCK):
        end = min(block + BLOCK, last)
        d_weight[block:end] = 0.0
        for i in range(n_cells):
            k, stop = at[i], indptr[i + 1]
            while k + 4 <= stop and indices[k + 3] < end:
                g0, g1, g2, g3 = indices[k], indices[k + 1], indices[k + 2], indices[k + 3]
                v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
                for h in range(n_hidden):
                    d = d_out[i, h]
                    d_weight[g0, h] += v0 * d
                    d_weight[g1, h] += v1 * d
                    d_weight[g2, h] += v2 * d
                    d_weight[g3, h] += v3 * d
                k += 4
            while k < stop and indices[k] < end:
                gene, value = indices[k], values[k]
                for h in range(n_hidden):
                    d_weight[gene, h] += value * d_out[i, h]
                k += 1
            at[i] = k
