"""Numba kernels of `gaussian.py`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import EXACT, F, log

KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": EXACT}


@njit(**KERNEL)
def draw(mu, variance, epsilon, z, sigma, kl, log_q, smallest_variance):
    """Standard deviation and draw of every element, divergence and log-density of every row."""
    n, width = mu.shape
    divergence, density = np.empty(mu.size, F), np.empty(mu.size, F)
    _elements(
        mu.ravel(), variance.ravel(), epsilon.ravel(), z.ravel(), sigma.ravel(), divergence, density,
        F(smallest_variance),
    )  # fmt: skip
    for i in range(n):
        total_kl, total_density = F(0.0), F(0.0)
        for k in range(i * width, (i + 1) * width):
            total_kl += divergence[k]
            total_density += density[k]
        kl[i] = total_kl
        log_q[i] = total_density


@njit(**KERNEL)
def _elements(mu, variance, epsilon, z, sigma, divergence, density, smallest_variance):
    for k in range(mu.shape[0]):
        v = variance[k] + smallest_variance
        s, log_s = math.sqrt(v), F(0.5) * log(v)
        sigma[k] = s
        z[k] = mu[k] + s * epsilon[k]
        divergence[k] = F(0.5) * (mu[k] * mu[k] + v - F(1.0)) - log_s
        density[k] = -log_s - F(0.5) * epsilon[k] * epsilon[k]


@njit(**KERNEL)
def gradient(mu, variance, epsilon, sigma, d_z, d_kl, d_log_q, d_mu, d_log_variance):
    """From gradients of draw, divergence and density to those of mean and log variance."""
    n, width = mu.shape
    for i in range(n):
        for d in range(width):
            s = sigma[i, d]
            d_sigma = d_z[i, d] * epsilon[i, d] + d_kl[i] * (s - F(1.0) / s) - d_log_q[i] / s
            d_mu[i, d] = d_z[i, d] + d_kl[i] * mu[i, d]
            d_log_variance[i, d] = d_sigma * variance[i, d] / (F(2.0) * s)
