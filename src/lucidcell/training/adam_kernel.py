"""Numba kernel of `optimizer.py`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def update(parameter, gradient, mean, square, size, scale, eps):
    """One Adam step: moments, then parameter -= size * mean / (sqrt(square) * scale + eps)."""
    one_minus_1, one_minus_2 = np.float32(0.1), np.float32(0.001)
    decay, size, scale, eps = np.float32(0.999), np.float32(size), np.float32(scale), np.float32(eps)
    for i in range(parameter.shape[0]):
        g = gradient[i]
        m = mean[i] + one_minus_1 * (g - mean[i])
        v = decay * square[i] + one_minus_2 * g * g
        mean[i] = m
        square[i] = v
        parameter[i] -= size * m / (math.sqrt(v) * scale + eps)
