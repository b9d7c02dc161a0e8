"""Log-normalised expression, and the way back from its shares to those of counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lucidcell.cells.batch import TARGET_SUM, SparseRows
from lucidcell.maths import threads
from lucidcell.maths.sparse import row_cuts

MOST_STEPS, PRECISION = 60, 1e-6  # relative, of the total

WORTH_A_THREAD = 200_000  # non-zeros: about 0.4 ms


def log_normalized(counts: SparseRows, library: Tensor) -> SparseRows:
    """log(1 + counts scaled to 10,000 a cell), for cells with this library (B,)."""
    if counts.device.type != "cpu" or counts.values.dtype != torch.float32:
        return counts.shares(library, TARGET_SUM).log1p()
    from lucidcell.maths.logarithm_kernels import log1p_of_scaled

    values = torch.empty_like(counts.values)
    scale = TARGET_SUM / library.clamp(min=1e-12)
    arrays = [t.numpy() for t in (counts.indptr, counts.values, scale, values)]
    cuts = row_cuts(counts, WORTH_A_THREAD)
    threads.run(lambda t: log1p_of_scaled(*arrays, cuts[t], cuts[t + 1]), len(cuts) - 1)
    return counts._replace(values=values)


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
