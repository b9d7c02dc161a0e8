"""Exact permutation tests of rank sums, by going through all different orders."""

from __future__ import annotations

from itertools import combinations
from math import factorial, prod

import numpy as np


def n_arrangements(a: np.ndarray) -> int:
    """In how many different orders the values can stand."""
    return factorial(len(a)) // prod(factorial(int(n)) for n in np.unique(a, return_counts=True)[1])


def arrangements(a: np.ndarray) -> np.ndarray:
    """All different orders of the values, (N, n)."""
    values, counts = np.unique(a, return_counts=True)
    table = np.full((1, len(a)), -1)
    for value, n in enumerate(counts):
        free = np.nonzero(table < 0)[1].reshape(len(table), -1)
        chosen = np.array(list(combinations(range(free.shape[1]), int(n))))
        table = np.repeat(table, len(chosen), axis=0)
        table[np.arange(len(table))[:, None], free[:, chosen].reshape(-1, int(n))] = value
    arranged: np.ndarray = values[table]
    return arranged


def exact_p(ranks: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Two-sided p of sum_i ranks_i a_i for each row of `ranks` (m, n): twice the smaller tail over all orders of `a`.

    Ranks, of ties too, are multiples of 1/2. Rows with the same ties share a null distribution.
    """
    ranks, a = np.rint(2 * ranks), np.rint(2 * a)  # whole numbers, so that sums compare exactly
    patterns, of_row = np.unique(np.sort(ranks, axis=1), axis=0, return_inverse=True)
    orders, sums, p_values = arrangements(a), ranks @ a, np.empty(len(ranks))
    for k, pattern in enumerate(patterns):
        rows = np.flatnonzero(of_row.ravel() == k)
        null = np.sort(orders @ pattern)
        lower = np.searchsorted(null, sums[rows], side="right")
        upper = len(null) - np.searchsorted(null, sums[rows], side="left")
        p_values[rows] = np.minimum(2 * np.minimum(lower, upper) / len(null), 1.0)
    return p_values
