"""Work shared between threads that never spin.

A training step has a few large products and many small operations. OpenMP's threads wait for the next parallel region
by spinning, which makes two busy jobs on two cores several times slower than one thread each. Here the large pieces go
to plain Python threads (torch and Numba release the interpreter lock) and every OpenMP region has one thread.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_pool: ThreadPoolExecutor | None = None
_kept = threading.local()
_n_threads = 1


def available_cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    """Number of threads that `run` uses now."""
    return _n_threads


def worth(amount: int, least: int) -> int:
    """Number of threads for an amount of work, each with the least that waking it is worth; one where there is less."""
    return max(1, min(_n_threads, amount // least))


@contextmanager
def limit(n: int | None) -> Iterator[None]:
    """Use n threads (None: all cores) for `run`, and one for each torch operation; both are restored on leaving."""
    global _pool, _n_threads
    before, before_torch = (_pool, _n_threads), torch.get_num_threads()
    before_kept: dict[Hashable, torch.Tensor] | None = getattr(_kept, "memory", None)
    _kept.memory = {}
    n = available_cores() if n is None else n
    flush = torch.tensor([1e-45]).mul(1.0).item() == 0.0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _n_threads = n
    _pool = ThreadPoolExecutor(n - 1, "lucidcell", initializer=_start_worker) if n > 1 else None
    try:
        yield
    finally:
        if _pool is not None:
            _pool.shutdown()
        _pool, _n_threads = before
        _kept.memory = before_kept
        torch.set_num_threads(before_torch)
        torch.set_flush_denormal(flush)


def _start_worker() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def workspace(name: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Uninitialised memory; inside `limit` the same for the same name: fresh pages cost more than filling them."""
    memory: dict[Hashable, torch.Tensor] | None = getattr(_kept, "memory", None)
    if memory is None:
        return torch.empty(shape, dtype=dtype)
    size = math.prod(shape)
    kept = memory.get(name)
    if kept is None or kept.dtype != dtype or kept.numel() < size:
        memory[name] = kept = torch.empty(size, dtype=dtype)
    return kept[:size].view(shape)


def start(task: Callable[[], T]) -> Callable[[], T]:
    """Begin `task` on another thread, if there is one; what is returned waits for its result."""
    return task if _pool is None else _pool.submit(task).result


def run(task: Callable[[int], None], n_tasks: int) -> None:
    """Call `task(0) ... task(n_tasks - 1)` side by side, the first on the calling thread."""
    if _pool is None or n_tasks == 1:
        for i in range(n_tasks):
            task(i)
        return
    others = [_pool.submit(task, i) for i in range(1, n_tasks)]
    task(0)
    for other in others:
        other.result()
