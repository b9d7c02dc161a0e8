"""Numba kernels of `normalise.py`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import float_bits

F = np.float32
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": True}
INFINITE = np.int32(0x7F800000)  # bits of the exponent; all are set in infinity and NaN only
KEEPS_NAN = {"reassoc", "contract", "nsz", "arcp"}  # the rest of fast-math takes NaN and infinity for impossible


@njit(nogil=True, cache=True, error_model="numpy", fastmath=KEEPS_NAN)
def _column_moments(x, mean, variance):
    """Mean and (biased) variance of every column, (H,), in two passes."""
    n, width = x.shape
    mean[:] = F(0.0)
    variance[:] = F(0.0)
    for i in range(n):
        for h in range(width):
            mean[h] += x[i, h]
    mean /= F(n)
    for i in range(n):
        for h in range(width):
            d = x[i, h] - mean[h]
            variance[h] += d * d
    variance /= F(n)


@njit(inline="always", **KERNEL)
def _mix(k):
    """The finaliser of MurmurHash3; Numba widens integers, so every step is cut back to 32 bits."""
    k = np.uint32((k ^ (k >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    k = np.uint32((k ^ (k >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(k ^ (k >> np.uint32(16)))


@njit(**KERNEL)
def _scale_and_mask(x, scale, shift, seed, rate, out):
    """out = relu(x scale + shift), and with probability `rate` zero, else divided by 1 - rate.

    The random number of an element is a hash of the seed, its row and its column, which vectorises.
    """
    n, width = x.shape
    if rate == 0.0:
        for i in range(n):
            for h in range(width):
                value = x[i, h] * scale[h] + shift[h]
                out[i, h] = value if value > F(0.0) else F(0.0)
        return
    threshold, keep_scale = np.uint32(rate * 4294967295.0), F(1.0 / (1.0 - rate))
    for i in range(n):
        row_key = _mix(np.uint32(_mix(np.uint32(seed & 0xFFFFFFFF)) + np.uint32(i)) ^ np.uint32(seed >> 32))
        for h in range(width):
            value = x[i, h] * scale[h] + shift[h]
            value = value if value > F(0.0) else F(0.0)
            kept = _mix(np.uint32(row_key + np.uint32(np.uint32(h) * np.uint32(0x9E3779B1)))) >= threshold
            out[i, h] = value * keep_scale if kept else F(0.0)


@njit(**KERNEL)
def _all_finite(values):
    for h in range(values.shape[0]):
        if float_bits(values[h]) & INFINITE == INFINITE:
            return False
    return True


@njit(**KERNEL)
def forward(x, bias, weight, shift, eps, momentum, running_mean, running_variance, seed, rate, mean, inverse_sd, out):
    """out = dropout(relu(batch-norm(x + bias))), the running statistics moved; False if x is not finite.

    The statistics of the batch are left in `mean` and `inverse_sd`. The bias of a layer before batch-norm is taken out
    again with the mean, so that it reaches the running mean only.
    """
    n = F(x.shape[0])
    _column_moments(x, mean, inverse_sd)
    if not _all_finite(inverse_sd):
        return False
    for h in range(mean.shape[0]):
        variance = inverse_sd[h]
        running_mean[h] += momentum * (mean[h] + bias[h] - running_mean[h])
        running_variance[h] += momentum * (variance * n / (n - F(1.0)) - running_variance[h])
        inverse_sd[h] = F(1.0) / math.sqrt(variance + eps)
    scale = inverse_sd * weight
    _scale_and_mask(x, scale, shift - mean * scale, seed, rate, out)
    return True


@njit(nogil=True, cache=True, error_model="numpy", fastmath=KEEPS_NAN)
def _column_norms(x, bias):
    """Sum of absolute values in every column, (H,), that of the bias among them."""
    norms = np.abs(bias)
    for i in range(x.shape[0]):
        for h in range(x.shape[1]):
            norms[h] += abs(x[i, h])
    return norms


@njit(**KERNEL)
def rectify(x, bias, seed, rate, out):
    """out = dropout(relu(x + bias)); False if x or the bias is not finite."""
    if not _all_finite(_column_norms(x, bias)):
        return False
    _scale_and_mask(x, np.ones_like(bias), bias, seed, rate, out)
    return True


@njit(**KERNEL)
def rectify_back(out, d_out, keep_scale, d_x, d_bias):
    """Gradients of x and of the bias. Where `out` is positive the unit was active and kept."""
    d_bias[:] = F(0.0)
    for i in range(out.shape[0]):
        for h in range(out.shape[1]):
            active = d_out[i, h] * keep_scale if out[i, h] > F(0.0) else F(0.0)
            d_x[i, h] = active
            d_bias[h] += active


@njit(**KERNEL)
def gradient(x, out, d_out, mean, inverse_sd, weight, keep_scale, d_x, d_weight, d_bias):
    """Gradients of x, weight and bias. Where `out` is positive the unit was active and kept."""
    n, width = x.shape
    d_weight[:] = F(0.0)
    d_bias[:] = F(0.0)
    for i in range(n):
        for h in range(width):
            active = d_out[i, h] * keep_scale if out[i, h] > F(0.0) else F(0.0)
            d_x[i, h] = active
            d_bias[h] += active
        for h in range(width):
            d_weight[h] += d_x[i, h] * (x[i, h] - mean[h]) * inverse_sd[h]
    a = weight * inverse_sd
    b = a * inverse_sd * d_weight / F(n)
    c = a * d_bias / F(n) - b * mean
    for i in range(n):
        for h in range(width):
            d_x[i, h] = a[h] * d_x[i, h] - b[h] * x[i, h] - c[h]
