"""One pass over the rows of a block: softmax, count likelihood and their gradients, between the matrix products.

Every kernel takes the block's logits (rows x G, float32 or bfloat16 held as uint16) and overwrites them with the
gradient of `sum_b weight_b log p(x_b)` with respect to the logits. Loops over all genes treat every count as zero and
vectorise; the non-zeros are put right afterwards, in double precision. The formulas are in `fused.py`, in torch.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lucidcell.maths.vector_math import (
    EXACT,
    F,
    exp,
    load_one,
    load_row,
    log1p,
    maximum,
    store_row,
)
from lucidcell.maths.vector_math import total as row_sum

SMALL_COUNT = 32  # below it, what depends on count and dispersion alone comes from a table made at every step
LOG_FACTORIAL_8 = math.lgamma(9.0)
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
KERNEL = {"nogil": True, "cache": True, "error_model": "numpy"}
LOOP = {"nogil": True, "error_model": "numpy", "fastmath": EXACT}


# --- one non-zero -----------------------------------------------------------------------------------------------


@njit(**KERNEL)
def _stirling(t, log_t):
    """log Gamma(t) for t >= 8, given log t."""
    r = 1.0 / t
    s = r * r
    return (t - 0.5) * log_t - t + HALF_LOG_2PI + r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s / 1680)))


@njit(**KERNEL)
def _stirling_slope(t, log_t):
    """digamma(t) for t >= 8, given log t."""
    r = 1.0 / t
    s = r * r
    return log_t - 0.5 * r - s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s / 240)))


@njit(**KERNEL)
def _digamma(t):
    shift = 0.0
    while t < 8.0:
        shift -= 1.0 / t
        t += 1.0
    return shift + _stirling_slope(t, math.log(t))


@njit(**KERNEL)
def _nb_general(x, mu, theta):
    """log NB(x; mu, theta) and theta (digamma(x + theta) - digamma(theta)), for any x > 0.

    In double precision the differences of log-gamma functions keep what a float32 result needs. From x = 8 on they are
    eight factors of the recurrence and two Stirling series, which cost less than log-gamma functions.
    """
    share = mu / (theta + mu)
    log_zero = -theta * math.log1p(mu / theta)
    z = x + theta
    if x < 8.0:
        rising = math.lgamma(z) - math.lgamma(theta) - math.lgamma(x + 1.0)
        return log_zero + rising + x * math.log(share), theta * (_digamma(z) - _digamma(theta))
    factors, digammas = 1.0, 0.0
    for i in range(8):
        factors *= (theta + i) * share / (i + 1.0)
        digammas += theta / (theta + i)
    shifted = theta + 8.0
    log_z, log_shifted = math.log(z), math.log(shifted)
    rising = _stirling(z, log_z) - _stirling(shifted, log_shifted)
    factorial = _stirling(x + 1.0, math.log(x + 1.0)) - LOG_FACTORIAL_8
    digammas += theta * (_stirling_slope(z, log_z) - _stirling_slope(shifted, log_shifted))
    return log_zero + math.log(factors) + rising - factorial + (x - 8.0) * math.log(share), digammas


@njit(**KERNEL)
def _poisson(x, mu):
    """log Poisson(x; mu) for x > 0."""
    if x < 8.0:
        return x * math.log(mu) - mu - math.lgamma(x + 1.0)
    return x * math.log(mu) - mu - _stirling(x + 1.0, math.log(x + 1.0))


@njit(**LOOP)
def _next_counts(inverse_theta, x, rising, digammas, next_rising, next_digammas):
    """One more factor (1 + (x - 1) / theta) / x of the rising factorial, and one more term of the digammas."""
    i, log_x = F(x - 1), F(math.log(x))
    for g in range(inverse_theta.shape[0]):
        y = i * inverse_theta[g]
        reciprocal = F(1.0) / (F(1.0) + y)
        next_rising[g] = rising[g] + log1p(y, reciprocal) - log_x
        next_digammas[g] = digammas[g] + reciprocal


@njit(**KERNEL)
def small_counts(theta):
    """For x below SMALL_COUNT, per dispersion: two tables (D, SMALL_COUNT, G).

    sum over i < x of log(1 + i / theta), less log x!; and theta (digamma(x + theta) - digamma(theta)).
    """
    n_groups, n_genes = theta.shape
    rising, digammas = np.zeros((n_groups, SMALL_COUNT, n_genes), F), np.zeros((n_groups, SMALL_COUNT, n_genes), F)
    for d in range(n_groups):
        inverse_theta = F(1.0) / theta[d]
        for x in range(1, SMALL_COUNT):
            _next_counts(inverse_theta, x, rising[d, x - 1], digammas[d, x - 1], rising[d, x], digammas[d, x])
    return rising, digammas


# --- all genes of one row ---------------------------------------------------------------------------------------


@njit(**LOOP)
def _exponentials(a, shift):
    for g in range(a.shape[0]):
        a[g] = exp(a[g] - shift)


@njit(**LOOP)
def _softmax(logits, bias, e):
    """e = exp(logits + bias - max); returns the max and the sum of e."""
    load_row(logits, bias, e)
    shift = maximum(e)
    _exponentials(e, shift)
    return shift, row_sum(e)


@njit(**LOOP)
def _nb_zeros(e, scale, theta, inverse_theta, log_p, slope):
    """log NB(0) = -theta log(1 + mu / theta), and its derivative in log mu, -theta mu / (theta + mu)."""
    for g in range(e.shape[0]):
        mu = e[g] * scale
        y = mu * inverse_theta[g]
        reciprocal = F(1.0) / (F(1.0) + y)
        log_p[g] = -theta[g] * log1p(y, reciprocal)
        slope[g] = -mu * reciprocal


@njit(**LOOP)
def _add_difference(log_p, slope, weight, out):
    """Derivative of log NB(0) with respect to log theta: log NB(0) + theta mu / (theta + mu)."""
    for g in range(out.shape[0]):
        out[g] += weight * (log_p[g] - slope[g])


@njit(**LOOP)
def _softmax_gradient(e, slope, factor, weight):
    """slope = weight (slope - e factor): from log-mean slopes to logit gradients, in place."""
    for g in range(e.shape[0]):
        slope[g] = weight * (slope[g] - e[g] * factor)


@njit(**LOOP)
def _add(row, out):
    for g in range(row.shape[0]):
        out[g] += row[g]


@njit(**LOOP)
def _finish(e, total_e, slope, log_p, weight, logits, d_bias, gradients):
    """Sum a row and turn its slopes into logit gradients; returns log p(x_b) and its slope in log library."""
    value = row_sum(log_p)
    slope_sum = row_sum(slope)
    if gradients:
        _softmax_gradient(e, slope, F(slope_sum / total_e), weight)
        _add(slope, d_bias)
        store_row(slope, logits)
    return value, slope_sum


# --- kernels ----------------------------------------------------------------------------------------------------


@njit(**KERNEL)
def nb_rows(
    logits, bias, indptr, indices, values, log_library, theta, rising, digammas, group, weight, gradients,
    log_likelihood, d_bias, d_log_theta, d_log_library,
):  # fmt: skip
    """Negative binomial. `theta` is (D, G) with the row of each cell in `group`; gradients are added, not set.

    `rising` and `digammas` are the tables of `small_counts`.
    """
    n_genes = bias.shape[0]
    e, log_p, slope = np.empty(n_genes, F), np.empty(n_genes, F), np.empty(n_genes, F)
    inverse_theta = F(1.0) / theta
    for i in range(logits.shape[0]):
        shift, total_e = _softmax(logits[i], bias, e)
        scale = F(math.exp(log_library[i]) / total_e)
        t, w = theta[group[i]], weight[i]
        d_log_t = d_log_theta[group[i]]
        _nb_zeros(e, scale, t, inverse_theta[group[i]], log_p, slope)
        if gradients:
            _add_difference(log_p, slope, w, d_log_t)
        first, last = indptr[i], indptr[i + 1]
        _nb_nonzeros(
            indices[first:last], values[first:last], logits[i], bias, shift, e, scale, t, inverse_theta[group[i]],
            rising[group[i]], digammas[group[i]], w, log_p, slope, d_log_t,
        )  # fmt: skip
        value, slope_sum = _finish(e, total_e, slope, log_p, w, logits[i], d_bias, gradients)
        log_likelihood[i] = value
        d_log_library[i] = w * slope_sum


@njit(**KERNEL)
def _nb_nonzeros(
    genes, counts, logits, bias, shift, e, scale, theta, inverse_theta, rising, digammas, weight,
    log_p, slope, d_log_theta,
):  # fmt: skip
    """Replace the zero-count terms of the expressed genes by the right ones."""
    log_scale = F(math.log(scale))
    for k in range(genes.shape[0]):
        g, x = genes[k], counts[k]
        mu, whole = e[g] * scale, np.uint64(x)
        if x < SMALL_COUNT and x == whole:
            log_mu = load_one(logits, g) + bias[g] - shift + log_scale
            log1p_ratio = -log_p[g] * inverse_theta[g]  # log(1 + mu / theta)
            log_p[g] += rising[whole, g] + x * (log_mu - log1p_ratio)
            digamma_term = digammas[whole, g]
        else:
            value, term = _nb_general(np.float64(x), max(np.float64(mu), 1e-30), np.float64(theta[g]))
            log_p[g], digamma_term = F(value), F(term)
        reciprocal = F(1.0) / (F(1.0) + mu * inverse_theta[g])
        slope[g] = (x - mu) * reciprocal
        d_log_theta[g] += weight * (digamma_term - x * reciprocal)


@njit(**KERNEL)
def poisson_rows(
    logits, bias, indptr, indices, values, log_library, theta, rising, digammas, group, weight, gradients,
    log_likelihood, d_bias, d_log_theta, d_log_library,
):  # fmt: skip
    """Poisson; the arguments about dispersion are not used, so that all kernels are called alike."""
    n_genes = bias.shape[0]
    e, log_p, slope = np.empty(n_genes, F), np.empty(n_genes, F), np.empty(n_genes, F)
    for i in range(logits.shape[0]):
        shift, total_e = _softmax(logits[i], bias, e)
        scale = F(math.exp(log_library[i]) / total_e)
        for g in range(n_genes):
            log_p[g] = -e[g] * scale
        slope[:] = log_p
        for k in range(indptr[i], indptr[i + 1]):
            g, x = indices[k], np.float64(values[k])
            mu = max(np.float64(e[g]) * scale, 1e-30)
            log_p[g] = _poisson(x, mu)
            slope[g] = x - mu
        value, slope_sum = _finish(e, total_e, slope, log_p, weight[i], logits[i], d_bias, gradients)
        log_likelihood[i] = value
        d_log_library[i] = weight[i] * slope_sum


@njit(**KERNEL)
def multinomial_rows(
    logits, bias, indptr, indices, values, log_library, theta, rising, digammas, group, weight, gradients,
    log_likelihood, d_bias, d_log_theta, d_log_library,
):  # fmt: skip
    """Multinomial without its coefficient: sum_g x_g log rho_g. Counts may be any non-negative weights."""
    n_genes = bias.shape[0]
    e, log_p, slope = np.empty(n_genes, F), np.empty(n_genes, F), np.empty(n_genes, F)
    for i in range(logits.shape[0]):
        shift, total_e = _softmax(logits[i], bias, e)
        log_total = np.float64(shift) + math.log(total_e)
        log_p[:] = F(0.0)
        slope[:] = F(0.0)
        for k in range(indptr[i], indptr[i + 1]):
            g = indices[k]
            log_p[g] = values[k] * F(np.float64(load_one(logits[i], g)) + bias[g] - log_total)
            slope[g] = values[k]
        value, _ = _finish(e, total_e, slope, log_p, weight[i], logits[i], d_bias, gradients)
        log_likelihood[i] = value
        d_log_library[i] = F(0.0)


@njit(**LOOP)
def _zero_inflation(nb, dropout, log_p, nb_share):
    """log p(0) of the mixture, and the probability that a zero is the NB part's; dropout becomes log(1 - pi)."""
    for g in range(nb.shape[0]):
        d, n = dropout[g], nb[g]
        small = exp(-abs(d))
        reciprocal = F(1.0) / (F(1.0) + small)
        log_pi = (d if d < F(0.0) else F(0.0)) - log1p(small, reciprocal)
        keep = (small if d > F(0.0) else F(1.0)) * reciprocal  # 1 - pi
        gap = n - d
        k = exp(-abs(gap))
        r = F(1.0) / (F(1.0) + k)
        far = log_pi + (gap if gap > F(0.0) else F(0.0)) + log1p(k, r)
        # near n = 0 the mixture differs from 1 by (1 - pi) (1 - e^n): there, e^n - 1 by its series
        m = n if n > F(-0.5) else F(-0.5)
        series = F(1 / 24) + m * (F(1 / 120) + m * (F(1 / 720) + m * F(1 / 5040)))
        deficit = keep * m * (F(1.0) + m * (F(0.5) + m * (F(1 / 6) + m * series)))
        near = log1p(deficit, F(1.0) / (F(1.0) + deficit))
        log_p[g] = near if n > F(-0.5) else far
        nb_share[g] = (F(1.0) if gap > F(0.0) else k) * r
        dropout[g] = log_pi - d


@njit(**LOOP)
def _share_slopes(nb_share, slope):
    for g in range(slope.shape[0]):
        slope[g] *= nb_share[g]


@njit(**LOOP)
def _add_shared_difference(nb, slope, nb_share, weight, out):
    for g in range(out.shape[0]):
        out[g] += weight * nb_share[g] * (nb[g] - slope[g])


@njit(**LOOP)
def _dropout_gradient(nb_share, weight, log_keep):
    """Derivative with respect to the dropout logit, P(dropout | x) - pi, in place of log(1 - pi)."""
    for g in range(log_keep.shape[0]):
        log_keep[g] = weight * (exp(log_keep[g]) - nb_share[g])


@njit(**KERNEL)
def zinb_rows(
    logits, bias, dropout_logits, dropout_bias, indptr, indices, values, log_library, theta, rising, digammas, group,
    weight, gradients,
    log_likelihood, d_bias, d_dropout_bias, d_log_theta, d_log_library,
):  # fmt: skip
    """Zero-inflated negative binomial: with probability pi = sigmoid(dropout logit) the count is zero."""
    n_genes = bias.shape[0]
    e, nb, slope = np.empty(n_genes, F), np.empty(n_genes, F), np.empty(n_genes, F)
    log_p, log_keep, nb_share = np.empty(n_genes, F), np.empty(n_genes, F), np.empty(n_genes, F)
    inverse_theta = F(1.0) / theta
    for i in range(logits.shape[0]):
        shift, total_e = _softmax(logits[i], bias, e)
        scale = F(math.exp(log_library[i]) / total_e)
        t, w = theta[group[i]], weight[i]
        d_log_t = d_log_theta[group[i]]
        genes, counts = indices[indptr[i] : indptr[i + 1]], values[indptr[i] : indptr[i + 1]]
        load_row(dropout_logits[i], dropout_bias, log_keep)
        _nb_zeros(e, scale, t, inverse_theta[group[i]], nb, slope)
        _zero_inflation(nb, log_keep, log_p, nb_share)
        for g in genes:
            nb_share[g] = F(1.0)
        if gradients:
            _add_shared_difference(nb, slope, nb_share, w, d_log_t)
        _share_slopes(nb_share, slope)
        _nb_nonzeros(
            genes, counts, logits[i], bias, shift, e, scale, t, inverse_theta[group[i]], rising[group[i]],
            digammas[group[i]], w, nb, slope, d_log_t,
        )  # fmt: skip
        for g in genes:
            log_p[g] = nb[g] + log_keep[g]
        if gradients:
            _dropout_gradient(nb_share, w, log_keep)
            _add(log_keep, d_dropout_bias)
            store_row(log_keep, dropout_logits[i])
        value, slope_sum = _finish(e, total_e, slope, log_p, w, logits[i], d_bias, gradients)
        log_likelihood[i] = value
        d_log_library[i] = w * slope_sum
