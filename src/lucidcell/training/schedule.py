"""Learning rate and KL weight as functions of the fraction of training that is done."""

from __future__ import annotations

import math


def one_cycle(progress: float, rise: float = 0.1, start: float = 0.1, end: float = 1e-3) -> float:
    """Learning rate relative to its peak: linear from `start` up to 1, then a half cosine down to `end`.

    The one-cycle policy of Smith & Topin (2018).
    """
    if progress < rise:
        return start + (1 - start) * progress / rise
    fall = (progress - rise) / (1 - rise)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0)))


def warm_up(progress: float, fraction: float) -> float:
    """Weight that grows linearly from 0 to 1 over the first `fraction` of training and stays there."""
    return 1.0 if fraction <= 0 else min(1.0, progress / fraction)
