"""Continuous values as bins."""

from __future__ import annotations

import numpy as np


def equal_frequency_bins(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Bins of about equally many cells, for each column of (n, G); int64 from 0 on, without gaps.

    A value with r values below it is in bin floor(r n_bins / n), so that equal values share a bin: the zeros of a
    zero-inflated gene are one bin, and those that they span fall away.
    """
    codes = np.empty(values.shape, np.int64)
    for g in range(values.shape[1]):
        column = values[:, g]
        below = np.searchsorted(np.sort(column), column, side="left")
        codes[:, g] = np.unique(below * n_bins // len(column), return_inverse=True)[1]
    return codes
