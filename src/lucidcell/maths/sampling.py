"""Rows drawn at random where all would be too many."""

from __future__ import annotations

import numpy as np


def some_rows(n: int, most: int) -> np.ndarray:
    """At most `most` of n rows, always the same ones, in ascending order; a smaller sample is part of a larger one."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).permutation(n)[:most])
