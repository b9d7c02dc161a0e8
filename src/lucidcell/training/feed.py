"""Where the batches of an epoch come from: the cells in memory, or windows of those in files, one read ahead.

Cells in files are visited in an order that reads them in blocks: the blocks (consecutive cells of the file) come in
random order, a window of them is in memory, and within the window the cells come in random order. The order follows
from seed and epoch, so that the state of a run is its seed, epoch and step.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lucidcell.cells.cells import Cells
from lucidcell.cells.loader import Loader
from lucidcell.training.processes import Processes
from lucidcell.training.split import cut, shuffled

ALONE = Processes()
BLOCK = 64  # cells that stay together on the way from the file to the window
FEWEST_BLOCKS = 16  # of a window
FEWEST_BATCHES = 8  # of a window


class Source(Protocol):
    """What batches are taken from."""

    def take(self, rows: np.ndarray) -> Any:
        """The cells `rows` (B,), or other items by their positions."""
        ...


class Windows(NamedTuple):
    """How cells in files are read: in blocks of so many, so many batches at a time."""

    block: int  # cells
    n_batches: int

    @classmethod
    def of(cls, cells: Cells, batch_size: int, buffer_gb: float) -> Windows | None:
        """None for cells in memory."""
        if cells.in_memory:
            return None
        most = cells.cells_within(buffer_gb * 2**30 / 2)
        n_batches = max(FEWEST_BATCHES, most // batch_size)
        block = max(BLOCK, cells.cells_unpacked_together())
        return cls(max(1, min(block, n_batches * batch_size // FEWEST_BLOCKS)), n_batches)


def held_out_in_memory(cells: Cells, rows: np.ndarray, seed: int, buffer_gb: float) -> tuple[Source, np.ndarray]:
    """What validation takes cells in files from, and which: as many as fit into the buffer, at random."""
    alone = replace(cells, partners=None)
    most = alone.cells_within(buffer_gb * 2**30 / 2)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, min(len(rows), max(2, most)), replace=False))
    return alone.window(rows), rows


class Stretch(NamedTuple):
    """Consecutive steps of an epoch, and where their cells are taken from."""

    first: int
    stop: int
    batches: list[np.ndarray]  # of all steps of the epoch
    source: Source


class Items:
    """Stands in for the cells in a phase that passes over something else, by its positions."""

    def take(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows)


class LoaderFeed:
    """The batches of a loader, which has its own order."""

    windows = None

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def close(self) -> None:
        """Nothing is open."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The number of each step, since the cells are not known before."""
        return list(np.arange(len(self.loader))[:, None])

    def stretches(self, epoch: int, step: int) -> Iterator[Stretch]:
        """The epoch from a step on."""
        batches = self.batches(epoch)
        self.loader.start(step)
        yield Stretch(step, len(batches), batches, self.loader)


class Feed:
    """The batches of a run, epoch by epoch. Close it: it may have a thread that reads ahead."""

    def __init__(
        self,
        cells: Source,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        windows: Windows | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.cells, self.rows, self.batch_size, self.seed, self.windows = cells, rows, batch_size, seed, windows
        self.processes = processes
        self.reader = None if self.windows is None else ThreadPoolExecutor(1, "lucidcell-reader")
        self.ahead: tuple[tuple[int, int], Future[Stretch]] | None = None

    def close(self) -> None:
        if self.reader is not None:
            self.reader.shutdown(cancel_futures=True)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Rows of each step."""
        if self.windows is None:
            order = shuffled(self.rows, self.seed, epoch)
        else:
            block, n_batches = self.windows
            order = shuffled(self.rows, self.seed, epoch, block, n_batches * self.batch_size)
        return cut(order, self.batch_size, 2 * self.processes.size)

    def stretches(self, epoch: int, step: int) -> Iterator[Stretch]:
        """The epoch from a step on."""
        if self.windows is None or self.reader is None:
            batches = self.batches(epoch)
            yield Stretch(step, len(batches), batches, self.cells)
            return
        stretch = self.ahead[1].result() if self.ahead and self.ahead[0] == (epoch, step) else None
        stretch = self._read(epoch, step) if stretch is None else stretch
        while True:
            here = stretch.stop < len(stretch.batches)
            after = (epoch, stretch.stop) if here else (epoch + 1, 0)
            self.ahead = after, self.reader.submit(self._read, *after, stretch.batches if here else None)
            yield stretch
            if not here:
                return
            stretch = self.ahead[1].result()

    def _read(self, epoch: int, step: int, batches: list[np.ndarray] | None = None) -> Stretch:
        """From `step` to the end of its window, all of which is held, so that a resumed run has the same one."""
        assert self.windows is not None
        assert isinstance(self.cells, Cells)
        batches = self.batches(epoch) if batches is None else batches
        first = step - step % self.windows.n_batches
        stop = min(first + self.windows.n_batches, len(batches))
        rows = np.concatenate([self.processes.part(batch) for batch in batches[first:stop]])
        return Stretch(step, stop, batches, self.cells.window(rows))
