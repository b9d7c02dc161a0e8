"""Randomness of the read-outs: seeded, and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lucidcell.errors import SettingError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a stream that starts at `seed`, without gradients; torch's global stream is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


def draws(n: int, argument: str = "n_samples") -> range:
    """Count `n` draws; `argument` is what the user gave them as.

    Raises
    ------
    SettingError
        If there are none.
    """
    if n < 1:
        raise SettingError(f"{argument} is {n!r}; it must be a whole number of at least 1.")
    return range(n)
