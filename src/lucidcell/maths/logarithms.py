"""Back from shares of log-normalised expression to shares of counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_STEPS, PRECISION = 60, 1e-6  # relative, of the total


def log_expm1(log_x: Tensor) -> Tensor:
    """log(exp(x) - 1) from log x, without overflow, cancellation, or an x too small to be told from 0."""
    x = log_x.exp()
    ratio = torch.where(x > torch.finfo(x.dtype).tiny, -torch.expm1(-x) / x, 1.0)  # of 1 - exp(-x) to x
    return log_x + x + ratio.log()


def total_of_logarithms(p: Tensor, total: float) -> Tensor:
    """The t (B, 1) with sum_g exp(p_g t) - 1 = total, for shares p (B, G) of each cell's logarithms.

    Where x_g = log(1 + y_g) and y sums to `total`, p = x / sum x has t = sum x. The sum is convex in t, and so Newton
    steps from above come down to t and never past it.
    """
    t = math.log1p(total) / p.amax(1, keepdim=True)  # where the largest term alone is the total
    for _ in range(MOST_STEPS):
        grown = p * t
        above = torch.expm1(grown).sum(1, keepdim=True) - total
        step = above / (p * grown.exp()).sum(1, keepdim=True)
        t = t - step
        if bool((step.abs() <= PRECISION * t).all()):
            break
    return t
