"""Numba kernels of `pairs.py`: what lies between the matrix products, for P pairs of a cell and a label.

`heads` (2, P, D) holds the means of D numbers, then the logs of their variances.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import EXACT, F, exp, log

KEEPS_NAN = EXACT - {"nnan", "ninf"}  # a broken run must not look like a good one
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": KEEPS_NAN}


@njit(**KERNEL)
def rectified_sum(x, cell, table, label, out):
    """out[p] = relu(x[cell[p]] + table[label[p]])."""
    for p in range(out.shape[0]):
        i, c = cell[p], label[p]
        for h in range(out.shape[1]):
            value = x[i, h] + table[c, h]
            out[p, h] = F(0.0) if value < F(0.0) else value


@njit(**KERNEL)
def rectified_sum_back(out, d_out, label, d_table):
    """Keep of d_out what belongs to active units, and add it to the table."""
    for p in range(out.shape[0]):
        c = label[p]
        for h in range(out.shape[1]):
            value = d_out[p, h] if out[p, h] > F(0.0) else F(0.0)
            d_out[p, h] = value
            d_table[c, h] += value


@njit(**KERNEL)
def add_rows(rows, cell, out):
    """out[cell[p]] += rows[p]."""
    for p in range(rows.shape[0]):
        i = cell[p]
        for h in range(rows.shape[1]):
            out[i, h] += rows[p, h]


@njit(**KERNEL)
def _exp(x):
    """exp up to 1e38, and NaN of NaN."""
    e = exp(x if x < F(88.0) else F(88.0))
    return e if x == x else x


@njit(**KERNEL)
def _row_sums(elements, out):
    width = elements.shape[0] // max(1, out.shape[0])
    for p in range(out.shape[0]):
        total = F(0.0)
        for k in range(p * width, (p + 1) * width):
            total += elements[k]
        out[p] = total


@njit(**KERNEL)
def _draw(mu, log_variance, epsilon, floor, u, divergence):
    for k in range(mu.shape[0]):
        v = _exp(log_variance[k]) + floor
        u[k] = mu[k] + math.sqrt(v) * epsilon[k]
        divergence[k] = F(0.5) * (mu[k] * mu[k] + v - F(1.0) - log(v))


@njit(**KERNEL)
def draw(heads, epsilon, floor, u, kl):
    """u = mean + sigma epsilon, and KL(N(mean, sigma^2) || N(0, I)) of every pair."""
    divergence = np.empty(u.size, F)
    _draw(heads[0].ravel(), heads[1].ravel(), epsilon.ravel(), F(floor), u.ravel(), divergence)
    _row_sums(divergence, kl)


@njit(**KERNEL)
def _draw_back(mu, log_variance, epsilon, floor, d_u, d_divergence, d_mu, d_log_variance):
    for k in range(mu.shape[0]):
        raw = _exp(log_variance[k])
        v = raw + floor
        d_v = d_u[k] * epsilon[k] / math.sqrt(v) + d_divergence[k] * (F(1.0) - F(1.0) / v)
        d_mu[k] = d_u[k] + d_divergence[k] * mu[k]
        d_log_variance[k] = F(0.5) * d_v * raw


@njit(**KERNEL)
def draw_back(heads, epsilon, floor, d_u, d_kl, d_heads):
    """From the gradients of u and of the divergence to that of the heads."""
    d_divergence = np.repeat(d_kl, d_u.shape[1])
    _draw_back(
        heads[0].ravel(), heads[1].ravel(), epsilon.ravel(), F(floor), d_u.ravel(), d_divergence, d_heads[0].ravel(),
        d_heads[1].ravel(),
    )  # fmt: skip


@njit(**KERNEL)
def _gaps(z, cell, mean):
    """z[cell] - mean, flat."""
    n, width = mean.shape
    out = np.empty(n * width, F)
    for p in range(n):
        i = cell[p]
        for d in range(width):
            out[p * width + d] = z[i, d] - mean[p, d]
    return out


@njit(**KERNEL)
def _density(gap, log_variance, floor):
    """Log-density of every element, in the place of its gap."""
    for k in range(gap.shape[0]):
        v = _exp(log_variance[k]) + floor
        gap[k] = F(-0.5) * (gap[k] * gap[k] / v + log(v))


@njit(**KERNEL)
def density(z, cell, heads, floor, log_p):
    """log N(z[cell]; mean, variance), summed over the D numbers, without its constant."""
    gap = _gaps(z, cell, heads[0])
    _density(gap, heads[1].ravel(), F(floor))
    _row_sums(gap, log_p)


@njit(**KERNEL)
def _density_back(gap, log_variance, floor, outer, d_mean, d_log_variance):
    for k in range(gap.shape[0]):
        raw = _exp(log_variance[k])
        v = raw + floor
        scaled = gap[k] / v
        d_mean[k] = outer[k] * scaled
        d_log_variance[k] = F(0.5) * outer[k] * (scaled * scaled - F(1.0) / v) * raw


@njit(**KERNEL)
def density_back(z, cell, heads, floor, d_log_p, d_z, d_heads):
    """Gradient of the heads; that of z is added."""
    n, width = heads.shape[1], heads.shape[2]
    gap, outer = _gaps(z, cell, heads[0]), np.repeat(d_log_p, width)
    _density_back(gap, heads[1].ravel(), F(floor), outer, d_heads[0].ravel(), d_heads[1].ravel())
    for p in range(n):
        i = cell[p]
        for d in range(width):
            d_z[i, d] -= d_heads[0, p, d]
