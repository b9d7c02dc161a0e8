"""Log-likelihoods and derivatives by the textbook formulas in 60 digits: the stranger that ours must agree with."""

from __future__ import annotations

import math

import mpmath
import numpy as np
from mpmath import mp, mpf

mp.dps = 60

MEANS = (1e-8, 1e-5, 1e-3, 0.1, 1.0, 7.3, 300.0, 1e4, 1e6)
THETAS = (1e-6, 1e-3, 0.05, 1.0, 3.7, 15.9, 16.1, 1e3, 1e6, 1e8)
COUNTS = (0, 1, 2, 3, 7, 8, 9, 50, 1000, 10**5, 10**6)
DROPOUT_LOGITS = (-30.0, -5.0, -0.3, 0.0, 2.0, 30.0)


def counts_near(mean: float) -> set[int]:
    """Whole numbers at the mean and a standard deviation or so to either side, where cancellation is worst."""
    if mean > 1e6 - 1:
        return {10**6 - 1000, 10**6 - 1}
    return {round(mean), math.ceil(mean), round(mean + math.sqrt(mean))} if mean >= 1 else set()


def grid(dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, means and inverse dispersions of every combination, each (N,), rounded to `dtype`."""
    points = [
        (x, mean, theta) for mean in MEANS for theta in THETAS for x in sorted({*COUNTS, *counts_near(mean)})
    ]  # fmt: skip
    x, mean, theta = np.array(points, dtype=dtype).T
    return x, mean, theta


def poisson(x: float, mean: float | mpf) -> mpf:
    x, mean = mpf(float(x)), mpf(mean)
    return x * mpmath.log(mean) - mean - mpmath.loggamma(x + 1)


def nb(x: float, mean: float | mpf, theta: float | mpf) -> mpf:
    """Negative binomial with this mean and variance mean + mean^2 / theta."""
    x, mean, theta = mpf(float(x)), mpf(mean), mpf(theta)
    coefficient = mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
    return coefficient + theta * mpmath.log(theta / (theta + mean)) + x * mpmath.log(mean / (theta + mean))


def nb_d_log_mean(x: float, mean: float | mpf, theta: float | mpf) -> mpf:
    x, mean, theta = mpf(float(x)), mpf(mean), mpf(theta)
    return theta * (x - mean) / (theta + mean)


def nb_d_log_theta(x: float, mean: float | mpf, theta: float | mpf) -> mpf:
    x, mean, theta = mpf(float(x)), mpf(mean), mpf(theta)
    digammas = mpmath.digamma(x + theta) - mpmath.digamma(theta)
    return theta * (digammas + mpmath.log(theta / (theta + mean)) + (mean - x) / (theta + mean))


def zinb(x: float, mean: float | mpf, theta: float | mpf, dropout_logit: float | mpf) -> mpf:
    pi = 1 / (1 + mpmath.exp(-mpf(dropout_logit)))
    p = mpmath.exp(nb(x, mean, theta))
    return mpmath.log(pi + (1 - pi) * p) if x == 0 else mpmath.log(1 - pi) + nb(x, mean, theta)


def softmax(logits: np.ndarray, log_total: float) -> list[mpf]:
    """`exp(log_total)` shared out by the softmax of these very numbers."""
    terms = [mpmath.exp(mpf(float(a))) for a in logits]
    scale = mpmath.exp(mpf(float(log_total))) / sum(terms)
    return [scale * term for term in terms]


def largest_error(found: np.ndarray, exact: list[mpf]) -> float:
    """Largest relative difference."""
    pairs = zip(found.ravel().tolist(), exact, strict=True)
    return max(float(abs(mpf(ours) - theirs) / max(abs(theirs), mpf("1e-300"))) for ours, theirs in pairs)
