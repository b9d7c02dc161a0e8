"""Numba kernels of `pairs.py`."""

from __future__ import annotations

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import EXACT, F, exp, log

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": EXACT}


@njit(**KERNEL)
def add_and_rectify(x, cell, table, label, out):
    """out[p] = relu(x[cell[p]] + table[label[p]])."""
    n, width = out.shape
    for p in range(n):
        row, other = x[cell[p]], table[label[p]]
        for h in range(width):
            value = row[h] + other[h]
            out[p, h] = value if value > F(0.0) else F(0.0)


@njit(**KERNEL)
def scatter_active(out, d_out, cell, label, d_x, d_table):
    """Add the gradient of every active unit to those of its cell and of its label."""
    n, width = out.shape
    for p in range(n):
        row, other = d_x[cell[p]], d_table[label[p]]
        for h in range(width):
            value = d_out[p, h] if out[p, h] > F(0.0) else F(0.0)
            row[h] += value
            other[h] += value


@njit(**KERNEL)
def density(z, cell, mu, log_variance, smallest_variance, out):
    """Gaussian log-density of every pair, without its constant."""
    n, width = mu.shape
    floor = F(smallest_variance)
    for p in range(n):
        row, total = z[cell[p]], F(0.0)
        for d in range(width):
            v = exp(log_variance[p, d]) + floor
            gap = row[d] - mu[p, d]
            total += gap * gap / v + log(v)
        out[p] = F(-0.5) * total


@njit(**KERNEL)
def density_gradient(d_out, z, cell, mu, log_variance, smallest_variance, d_z, d_mu, d_log_variance):
    """Gradients of `density`; those of z add up over the pairs of a cell."""
    n, width = mu.shape
    floor = F(smallest_variance)
    for p in range(n):
        row, d_row, weight = z[cell[p]], d_z[cell[p]], d_out[p]
        for d in range(width):
            raw = exp(log_variance[p, d])
            v = raw + floor
            slope = (row[d] - mu[p, d]) / v
            d_mu[p, d] = weight * slope
            d_row[d] -= weight * slope
            d_log_variance[p, d] = F(0.5) * weight * (slope * slope - F(1.0) / v) * raw
