"""Kernels that share their rows among threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def each_row(kernel: Callable[..., None], *arguments: Any, n_jobs: int) -> None:
    """Call `kernel(*arguments, first, step)` on n_jobs threads; -1 for all cores. Kernels release the interpreter."""
    from joblib import Parallel, delayed, effective_n_jobs

    step = effective_n_jobs(n_jobs)
    Parallel(n_jobs=step, require="sharedmem")(delayed(kernel)(*arguments, first, step) for first in range(step))
