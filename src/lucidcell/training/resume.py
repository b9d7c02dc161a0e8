"""A run that can go on: its state, its checkpoints, and whether a checkpoint is one of this run."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lucidcell.errors import SettingError
from lucidcell.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.training.optimizer import Adam
    from lucidcell.training.phases import Phase
    from lucidcell.training.processes import Processes
    from lucidcell.training.settings import Settings

logger = logging.getLogger("lucidcell")

CHECKPOINT_SHARE = 20  # a checkpoint is written when training has gone on for this many times what the last one took
CHECKPOINT_SECONDS = 1.0


@dataclass
class RunState:
    """State of a run that is not in the module or the optimiser."""

    phase: int = 0
    epoch: int = 0  # within the phase
    step: int = 0  # within the epoch
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch so far
    n_seen: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # finished epochs
    best: float = math.inf
    best_epoch: int = -1  # position in `rows`
    seconds: float = 0.0
    cells_visited: int = 0


class Checkpoints:
    """Those of one run, in one folder; without a folder there are none.

    Parameters
    ----------
    folder
        Where they lie.
    identity
        What a checkpoint must have in common with the run that goes on from it.
    processes
        Of the run; the first one writes.
    device
        Whose random state is kept.
    """

    def __init__(
        self, folder: Path | None, identity: Mapping[str, Any], processes: Processes, device: torch.device
    ) -> None:
        self.folder, self.identity, self.processes, self.device = folder, identity, processes, device
        self.last_written, self.cost_of_writing = time.perf_counter(), 0.0

    def read(self, resume: bool) -> Checkpoint | None:
        """The checkpoint to go on from, if that is wanted and there is one.

        Raises
        ------
        SettingError
            If it belongs to another run, or the processes do not find the same.
        """
        found = Checkpoint.read(self.folder) if resume and self.folder else None
        run = None if found is None else found.facts["run"]
        position = None if run is None else (run["phase"], run["epoch"], run["step"])
        if len(set(self.processes.gather(position))) > 1:
            raise SettingError(
                f"the processes do not find the same checkpoint in {self.folder}: it must be where all can read it."
            )
        if found is not None:
            self._check_same_run(found)
        return found

    def write_if_due(
        self, state: Callable[[], RunState], module: nn.Module, best: Mapping[str, Tensor], optimizers: dict[str, Adam]
    ) -> None:
        """Write one if training has gone on for long since the last; `state` is asked for only then."""
        now = time.perf_counter()
        due = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * self.cost_of_writing)
        if self.folder is None or not self.processes.is_first or now - self.last_written < due:
            return
        tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for key, optimizer in optimizers.items():
            tensors |= {f"optimizer.{key}.{name}": value for name, value in optimizer.state().items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {"identity": self.identity, "run": asdict(state()), "processes": self.processes.size}
        Checkpoint(tensors, facts).write(self.folder)
        self.last_written = time.perf_counter()
        self.cost_of_writing = self.last_written - now

    def restore(
        self, checkpoint: Checkpoint, module: nn.Module, optimizers: dict[str, Adam], seed: int
    ) -> tuple[RunState, dict[str, Tensor]]:
        """Put weights, moments and random state back; the run's state and its best weights."""
        module.load_state_dict(checkpoint.part("module"))
        self.processes.agree(module)
        for key, optimizer in optimizers.items():
            optimizer.load_state(checkpoint.part(f"optimizer.{key}"))
        state = RunState(**checkpoint.facts["run"])
        if self.processes.is_first:
            torch.set_rng_state(checkpoint.tensors["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in checkpoint.tensors:
                torch.cuda.set_rng_state(checkpoint.tensors["random.cuda"], self.device)
        else:  # what they have seen of this epoch is not known
            torch.manual_seed(self.processes.seed(hash((seed, len(state.rows), state.step))))
            state.sums, state.n_seen = dict.fromkeys(state.sums, 0.0), 0
        logger.info("resumed after %d epochs and %d steps.", len(state.rows), state.step)
        return state, checkpoint.part("best")

    def _check_same_run(self, checkpoint: Checkpoint) -> None:
        before, now = checkpoint.facts.get("identity", {}), dict(self.identity)
        n_before = checkpoint.facts.get("processes", 1)
        if n_before > 1 or self.processes.size > 1:  # those of the first process need not be those of all
            now.pop("num_threads", None)
        if n_before != self.processes.size:
            logger.warning(
                "a checkpoint of %d processes goes on with %d: not bit for bit what those would have come to.",
                n_before, self.processes.size,
            )  # fmt: skip
        differing = [f"{key} was {before.get(key)!r} and is {now[key]!r}" for key in now if before.get(key) != now[key]]
        if differing:
            raise SettingError(
                f"the checkpoint in {self.folder} belongs to another run ({'; '.join(differing)}); "
                "train with the same settings and data, or without resume=True."
            )


def identity(module: nn.Module, phases: list[Phase], cells: Cells, settings: Settings) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it."""
    data = 0
    for array in (cells.library, cells.batch, cells.label, cells.covariates, cells.external):
        data = data if array is None else zlib.crc32(array.tobytes(), data)
    weights = [(name, list(value.shape)) for name, value in module.state_dict().items()]
    course = [(one.name, one.share, one.warmup, one.n_items, one.turn and one.turn.steps) for one in phases]
    structure = zlib.crc32(repr((weights, course, getattr(module, "config", None))).encode())
    checksums = {"checksum of the data": data, "checksum of the structure": structure}
    device = {"device": torch.device(settings.device).type}  # of several processes each has another GPU
    return asdict(settings) | device | {"n_cells": len(cells)} | checksums
