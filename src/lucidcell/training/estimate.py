"""What a training will take, from some steps of it on some of the cells."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lucidcell.training.loop import epochs_per_phase, fit
from lucidcell.training.split import hold_out

if TYPE_CHECKING:
    from lucidcell.models.base import Model
    from lucidcell.training.settings import Settings

STEPS = 30  # of an epoch that is timed
SHORTEST_STRETCH = 240  # cells
COPIES = 5  # of the weights: themselves, gradients, two moments, the best so far
COPIES_IN_CHECKPOINT = 4
BYTES_OF_CELL, BYTES_OF_NUMBER = 80, 16  # in the tables of a run folder, about; a number is there twice


@dataclass(frozen=True)
class Estimate:
    """Of a training that goes through all planned epochs; early stopping may end it sooner."""

    epochs: int  # in all phases
    seconds: float
    memory_gb: float  # resident memory at the peak, with what this process holds already
    disk_gb: float  # run folder, and checkpoint

    def __str__(self) -> str:
        hours = self.seconds / 3600
        time = f"{hours:.1f} hours" if hours >= 2 else f"{self.seconds / 60:.0f} minutes"
        time = time if self.seconds >= 120 else f"{self.seconds:.0f} s"
        return (
            f"at most {self.epochs} epochs in about {time}, {self.memory_gb:.1f} GiB of memory and "
            f"{self.disk_gb:.2g} GiB on the disk"
        )


def estimate(model: Model, settings: Settings) -> Estimate:
    """What `model.train` with resolved settings will take; the model stays as it is."""
    assert settings.batch_size is not None
    assert settings.max_epochs is not None
    cells = model._own_cells("train it")
    some = cells.select(_stretches(len(cells), STEPS * settings.batch_size))
    few = replace(settings, max_epochs=1)
    for _ in range(2):  # the first time also compiles
        module = model._new_module(some, few)
        record = fit(module, model._cells_to_train(some, few), few, progress=False)
    phases = module.phases()  # type: ignore[operator]
    n_train = len(hold_out(len(cells), settings.train_size, settings.seed)[0])
    plan = epochs_per_phase(phases, settings.max_epochs, n_train)
    seconds = 0.0
    ends = record.history.groupby("phase", sort=False)["seconds"].max()
    clock = ends - ends.shift(fill_value=0.0)
    for phase, n_epochs in zip(phases, plan, strict=True):
        timed = int((record.history["phase"] == phase.name).sum())
        per_epoch = float(clock[phase.name]) / max(1, timed)
        seconds += n_epochs * per_epoch * (len(cells) / len(some) if phase.n_items is None else 1.0)
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values()) / 2**30
    n_factors = getattr(model.config, "n_latent", 10)
    tables = len(cells) * (BYTES_OF_CELL + n_factors * BYTES_OF_NUMBER) / 2**30
    tables += model.schema.n_genes * (BYTES_OF_CELL + n_factors * BYTES_OF_NUMBER) / 2**30
    buffer = 0.0 if cells.in_memory else 1.5 * settings.buffer_gb  # two windows, and held-out cells
    return Estimate(
        epochs=sum(plan),
        seconds=seconds,
        memory_gb=(peak_memory_gb() or 0.0) + COPIES * weights + buffer,
        disk_gb=tables + (1 + COPIES_IN_CHECKPOINT) * weights,
    )


def _stretches(n: int, most: int) -> np.ndarray:
    """At most `most` of n rows, in a few stretches all over them, which files give up as fast as in training."""
    if n <= most:
        return np.arange(n)
    n_stretches = max(1, most // SHORTEST_STRETCH)
    length = most // n_stretches
    starts = np.linspace(0, n - length, n_stretches).astype(int)
    return np.unique(starts[:, None] + np.arange(length))


def peak_memory_gb() -> float | None:
    """Largest resident memory of this process so far, in GiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` also counts what the parent process held
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return None if found is None else int(found[1]) / 2**20
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
