"""Numba kernel of `logarithms.py`."""

from __future__ import annotations

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import log1p


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "ninf", "nsz", "arcp"})
def log1p_of_scaled(indptr, values, scale, out, first, last):
    """out = log(1 + scale_i value) for the entries of the rows first:last."""
    one = np.float32(1.0)
    for i in range(first, last):
        size = scale[i]
        for k in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):  # signed ones are not vectorised
            x = size * values[k]
            out[k] = log1p(x, one / (one + x))
