"""The processes of a run under torchrun: who they are, and what they tell each other.

Every process has the same weights and walks through the same batches, of each of which it takes a part. The gradients
are summed, so that a step is that of one process with the whole batch; batch-norm sees the whole batch (`across`).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from lucidcell.errors import SettingError, TrainingError
from lucidcell.maths import across

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # for a process that is slower, or gone without a word
NOISE = 1_000_003  # between the seeds of processes


def rank() -> int:
    """Number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def n_here() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextmanager
def alone() -> Iterator[None]:
    """What is trained here, and in processes started from here, is no part of torchrun's run."""
    run = os.environ.pop("TORCHELASTIC_RUN_ID", None)
    try:
        yield
    finally:
        if run is not None:
            os.environ["TORCHELASTIC_RUN_ID"] = run


def own_device(device: str) -> str:
    """The device of this process: under torchrun each has a GPU of its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "TORCHELASTIC_RUN_ID" in os.environ else device


@dataclass(frozen=True)
class Processes:
    """One process among `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Meet the other processes that torchrun started, if it did.

        Raises
        ------
        TrainingError
            If they do not come.
        """
        size = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
        if size == 1:
            return cls()
        if not torch.distributed.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            with _in_a_sentence():
                torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
            atexit.register(_leave)
        return cls(rank(), size)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Mini-batches are spread among the processes; one that ends ends the others with a sentence."""
        if self.size == 1:
            yield
            return
        with across.spread(self.size), _in_a_sentence():
            yield

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Another one for the noise of every process."""
        return seed + NOISE * self.rank

    def part(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a batch that this process takes."""
        return rows if self.size == 1 else np.array_split(rows, self.size)[self.rank]

    def check_batches(self, batches: Sequence[np.ndarray]) -> None:
        """Raise `SettingError` if a batch is too small for every process to have two cells of it."""
        smallest = min(map(len, batches))
        if self.size > 1 and smallest < 2 * self.size:
            raise SettingError(
                f"a batch of {smallest} cells is too small for {self.size} processes, which need 2 each: start fewer "
                "processes, or choose a larger batch_size."
            )

    def require_one(self, what: str) -> None:
        """Raise `SettingError` if there are several."""
        if self.size > 1:
            raise SettingError(f"{what} is for one process, and there are {self.size}: start one, or train from files.")

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        exist = torch.tensor([float(one.grad is not None) for one in parameters], device=gradients[0].device)
        sizes = [one.numel() for one in parameters]
        *summed, exist = across.add_up(torch.cat([*(one.reshape(-1) for one in gradients), exist])).split(
            [*sizes, len(sizes)]
        )
        for parameter, gradient, somewhere in zip(parameters, summed, exist.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if somewhere else None

    def sum_of(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """Numbers by name, summed over the processes; a name that one of them lacks counts as 0 there."""
        if self.size == 1:
            return dict(values)
        names = list(dict.fromkeys(name for one in self.gather(list(values)) for name in one))
        of_here = [values.get(name, 0.0) for name in names]
        summed = across.add_up(torch.tensor(of_here, dtype=torch.float64, device=device))
        torch.distributed.broadcast(summed, 0)  # the same to the last bit, since decisions hang on it
        return dict(zip(names, summed.tolist(), strict=True))

    def gather(self, what: T) -> list[T]:
        """What each process gives, in the order of their ranks."""
        found: list[Any] = [what]
        if self.size > 1:
            found = [None] * self.size
            torch.distributed.all_gather_object(found, what)
        return found

    def agree(self, module: nn.Module) -> None:
        """Give all processes the weights of the first."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's have no class of their own
        if not any(word in str(error) for word in ("onnection", "gloo", "NCCL", "imed out")):
            raise
        raise TrainingError(
            f"another process of this run has ended, or does not answer ({str(error).splitlines()[0]}); start again "
            "with resume to go on from the last checkpoint, with any number of processes."
        ) from error


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
