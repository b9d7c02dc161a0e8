"""How to train: every number of a run, resolved before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real

import numpy as np
import torch

from lucidcell.errors import SettingError
from lucidcell.maths import threads
from lucidcell.maths.fused import has_bfloat16_products, low_precision
from lucidcell.training.processes import n_here, own_device

# Measured on paul15, pbmc4k_hvg2000 and scanpy_10x_10k (LOG.md, 2026-11-21): the smallest budget whose held-out ELBO
# is past that of 400 epochs of the usual recipe on all three, with room to spare.
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 5e-3  # at that batch size
CELL_VISITS = 400_000
FEWEST_EPOCHS, MOST_EPOCHS = 20, 60
FEWEST_VISITS, MOST_EPOCHS_OF_FEW = 120_000, 120  # of fewer than 2,000 cells (LOG.md, 2026-11-29)
FEWEST_BATCHES = 3  # of an epoch, where a model's batches are large: with one, models overfit (LOG.md, 2026-11-30)


@dataclass(frozen=True)
class Settings:
    """Arguments of `train`; None stands for the measured default until `resolve` has filled it in."""

    max_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None  # peak of the one-cycle schedule
    early_stopping: bool = True
    train_size: float = 0.9
    seed: int = 0
    device: str = "auto"
    num_threads: int | None = None
    precision: str = "auto"
    gradient_clip: float | None = None
    buffer_gb: float = 0.5  # of counts in memory, where the cells are in files

    def resolve(
        self, n_cells: int, share: float = 1.0, rate: float = 1.0, fewest_steps: int = 0, batch_size: int = BATCH_SIZE
    ) -> Settings:
        """The same with every default filled in for a data set of `n_cells`.

        `share` is that of the default number of epochs that a model takes which does not start from nothing; `rate`
        that of the default learning rate. `fewest_steps` is what a model needs however few the cells are, and
        `batch_size` its default, which is halved where an epoch would have fewer than three batches.

        Raises
        ------
        SettingError
            If a value has no meaning.
        """
        self._check()
        n_train = max(2, n_cells - round((1 - self.train_size) * n_cells))
        batch_size = fitting_batch_size(batch_size, n_train) if self.batch_size is None else self.batch_size
        learning_rate = rate * default_learning_rate(batch_size) if self.learning_rate is None else self.learning_rate
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = own_device(device)
        _check_device(device)
        max_epochs = self.max_epochs
        if max_epochs is None:
            steps_of_epoch = math.ceil(n_train / batch_size)
            max_epochs = max(round(share * default_epochs(n_train)), math.ceil(fewest_steps / steps_of_epoch))
        resolved = replace(
            self,
            batch_size=batch_size,
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            device=device,
            num_threads=max(1, threads.available_cores() // n_here()) if self.num_threads is None else self.num_threads,
            precision=self._precision(device),
        )
        # NumPy numbers are welcome, and JSON cannot hold them
        plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in asdict(resolved).items()}
        return Settings(**plain)

    def _precision(self, device: str) -> str:
        if self.precision == "auto":
            return "bfloat16" if device == "cpu" and has_bfloat16_products() else "float32"
        return self.precision

    def _check(self) -> None:
        for name, smallest in (("max_epochs", 1), ("batch_size", 2), ("num_threads", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name != "seed":
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or not smallest <= int(value) < 2**63:
                alternative = "" if name == "seed" else ", or None"
                raise SettingError(
                    f"{name} is {value!r}; it must be a whole number of at least {smallest}{alternative}."
                )
        for name in ("learning_rate", "gradient_clip", "buffer_gb"):
            value, may_be_none = getattr(self, name), name != "buffer_gb"
            positive = isinstance(value, Real) and math.isfinite(value) and float(value) > 0
            if not positive and not (value is None and may_be_none):
                raise SettingError(f"{name} is {value!r}; it must be a positive number{', or None' * may_be_none}.")
        if not isinstance(self.train_size, Real) or not 0 < float(self.train_size) <= 1:
            raise SettingError(
                f"train_size is {self.train_size!r}; it must be above 0 and at most 1, for instance 0.9."
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise SettingError(f"precision is {self.precision!r}; it must be 'auto', 'float32' or 'bfloat16'.")


def _check_device(device: str) -> None:
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"device {device!r} is not to be had here ({str(error).splitlines()[0]}); use 'auto' or 'cpu'."
        ) from error


def default_epochs(n_train: int) -> int:
    """Passes over the training cells: about 400,000 cell visits, but at least 20 passes and at most 60.

    Fewer than 2,000 cells are visited 120,000 times, or 120 times each.
    """
    most = max(MOST_EPOCHS, min(MOST_EPOCHS_OF_FEW, round(FEWEST_VISITS / n_train)))
    return max(FEWEST_EPOCHS, min(most, round(CELL_VISITS / n_train)))


def fitting_batch_size(batch_size: int, n_train: int) -> int:
    """A model's default, halved down to `BATCH_SIZE` until an epoch has `FEWEST_BATCHES`."""
    while batch_size > BATCH_SIZE and math.ceil(n_train / batch_size) < FEWEST_BATCHES:
        batch_size //= 2
    return batch_size


def default_learning_rate(batch_size: int) -> float:
    """Peak learning rate; it grows with the square root of the batch, whose gradient is less noisy."""
    return min(1e-2, PEAK_LEARNING_RATE * math.sqrt(batch_size / BATCH_SIZE))


@contextmanager
def environment(settings: Settings) -> Iterator[None]:
    """Threads, matrix precision and random state of a run; all restored on leaving."""
    before = torch.get_float32_matmul_precision()
    cuda = [torch.device(settings.device)] if settings.device.startswith("cuda") else []
    low = settings.precision == "bfloat16"
    with threads.limit(settings.num_threads), torch.random.fork_rng(devices=cuda), low_precision(low):
        torch.manual_seed(settings.seed)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
