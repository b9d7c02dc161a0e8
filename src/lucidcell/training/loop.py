"""The training loop: phases, epochs, batches, one step each; validation, early stopping, checkpoints.

The loop knows of a model its phases and nothing else. What decides the outcome (weights, moments, random state,
position) is in its checkpoints (resume.py), so that a killed run resumes bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lucidcell.cells.on_device import CellsOnDevice, fits
from lucidcell.errors import TrainingError
from lucidcell.maths import threads
from lucidcell.training.feed import Feed, Items, LoaderFeed, Source, Windows, held_out_in_memory
from lucidcell.training.optimizer import Adam
from lucidcell.training.phases import Loss, Phase, Trainable, Turn
from lucidcell.training.processes import Processes
from lucidcell.training.resume import Checkpoints, RunState, identity
from lucidcell.training.schedule import one_cycle
from lucidcell.training.settings import Settings, environment
from lucidcell.training.split import hold_out
from lucidcell.training.turn import inputs_of, pass_over

if TYPE_CHECKING:
    from lucidcell.cells.batch import Batch
    from lucidcell.cells.cells import Cells
    from lucidcell.cells.loader import Loader
    from lucidcell.training.checkpoint import Checkpoint

logger = logging.getLogger("lucidcell")

VALIDATION_BATCH = 1024
LONG_RUN_MINUTES = 3


@dataclass
class Record:
    """What happened during training."""

    settings: Settings
    history: pd.DataFrame
    train_rows: np.ndarray
    validation_rows: np.ndarray
    n_planned: int  # epochs, in all phases; those of genes are passes over the genes
    best_epoch: int
    stopped: str  # "finished", "early stopping" or "interrupted"
    seconds: float
    cells_per_second: float

    @property
    def epochs(self) -> int:
        return len(self.history)


def fit(
    module: nn.Module,
    cells: Cells,
    settings: Settings,
    *,
    keep: np.ndarray | None = None,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    loader: Loader | None = None,
) -> Record:
    """Train `module` on `cells` in place and leave it in evaluation mode with the best weights found.

    Parameters
    ----------
    module
        A module with `phases()`.
    cells
        Checked data.
    settings
        Resolved settings.
    keep
        Cells (n,) that are never held out; none for None.
    checkpoint_dir
        Folder for checkpoints; none are written without it.
    resume
        Go on from the checkpoint in `checkpoint_dir` if there is one.
    progress
        Show a progress bar.
    loader
        Where training batches come from, in the place of `cells`, which are then held out or give start values.

    Raises
    ------
    TrainingError
        If the loss stops being finite.
    """
    return _Loop(module, cells, settings, keep, checkpoint_dir, loader).run(resume=resume, progress=progress)


class _Loop:
    def __init__(
        self,
        module: nn.Module,
        cells: Cells,
        settings: Settings,
        keep: np.ndarray | None,
        checkpoint_dir: Path | None,
        loader: Loader | None,
    ) -> None:
        self.module, self.cells, self.settings, self.folder = module, cells, settings, checkpoint_dir
        self.loader, self.device = loader, torch.device(settings.device)
        self.processes = Processes.join(self.device)
        self.train_rows, self.validation_rows = hold_out(len(cells), settings.train_size, settings.seed, keep)
        assert settings.batch_size is not None
        windows = Windows.of(cells, settings.batch_size, settings.buffer_gb)
        source = CellsOnDevice.of(cells, self.device) if fits(cells, self.device) else cells
        self.feed: Feed | LoaderFeed
        if loader is None:
            self.feed = Feed(source, self.train_rows, settings.batch_size, settings.seed, windows, self.processes)
            self.processes.check_batches(self.feed.batches(0))
        else:
            self.processes.require_one("a loader")
            self.feed = LoaderFeed(loader)
        self.held_out: Source
        self.held_out, self.held_out_rows = source, self.validation_rows
        if not cells.in_memory and len(self.validation_rows):
            self.held_out, self.held_out_rows = held_out_in_memory(
                cells, self.validation_rows, settings.seed, settings.buffer_gb
            )
        self.state = RunState()
        self.best_weights: dict[str, Tensor] = {}
        self.clock = 0.0
        self.n_planned = 0  # epochs, in all phases

    # --- outline ---

    def run(self, *, resume: bool, progress: bool) -> Record:
        with environment(self.settings), self.processes.together():
            torch.manual_seed(self.processes.seed(self.settings.seed))
            self.module.to(self.device).train()
            self.processes.agree(self.module)
            phases = cast(Trainable, self.module).phases()
            assert self.settings.max_epochs is not None
            plan = epochs_per_phase(phases, self.settings.max_epochs, len(self.train_rows))
            self.n_planned = sum(plan)
            self.checkpoints = Checkpoints(self.folder, self._identity(phases), self.processes, self.device)
            checkpoint = self.checkpoints.read(resume)
            stopped = "finished"
            self.clock = time.perf_counter()
            try:
                quiet = not (progress and self.processes.is_first)
                with closing(self.feed), tqdm(total=sum(plan), disable=quiet, unit="epoch", desc="training") as bar:
                    stopped = self._phases(phases, plan, checkpoint, bar)
            except KeyboardInterrupt:
                stopped = "interrupted"
                logger.warning(
                    "interrupted after %d epochs; the model keeps what it has learned.", len(self.state.rows)
                )
                if self.best_weights:
                    self.module.load_state_dict(self.best_weights)
            self._tick()
            self.module.eval()
            for parameter in self.module.parameters():
                parameter.grad = None
                parameter.requires_grad_(True)
        state = self.state
        return Record(
            settings=self.settings,
            history=pd.DataFrame(state.rows),
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
            n_planned=self.n_planned,
            best_epoch=state.best_epoch if state.best_epoch >= 0 else len(state.rows) - 1,
            stopped=stopped,
            seconds=state.seconds,
            cells_per_second=state.cells_visited / max(state.seconds, 1e-9),
        )

    def _identity(self, phases: list[Phase]) -> dict[str, Any]:
        if self.folder is None:
            return {}
        return identity(self.module, phases, self.cells, self.settings) | {
            "windows": None if self.feed.windows is None else list(self.feed.windows),
            "batches of the loader": len(self.feed.batches(0)) if self.loader else None,
        }

    def _phases(self, phases: list[Phase], plan: list[int], checkpoint: Checkpoint | None, bar: tqdm) -> str:
        stopped = "finished"
        start = checkpoint.facts["run"]["phase"] if checkpoint else 0
        for index in range(start, len(phases)):
            optimizers = _optimizers(phases[index])
            if checkpoint is not None:
                self.state, self.best_weights = self.checkpoints.restore(
                    checkpoint, self.module, optimizers, self.settings.seed
                )
                bar.update(len(self.state.rows))
                checkpoint = None
            else:
                self.state.phase, self.state.epoch, self.state.step = index, 0, 0
                self.state.best, self.state.best_epoch, self.best_weights = math.inf, -1, {}
            stopped = self._epochs(phases[index], plan[index], optimizers, bar)
            bar.total -= plan[index] - self.state.epoch
            if self.best_weights:
                self.module.load_state_dict(self.best_weights)
        return stopped

    def _epochs(self, phase: Phase, n_epochs: int, optimizers: dict[str, Adam], bar: tqdm) -> str:
        state, low = self.state, self.settings.precision == "bfloat16"
        wide = self.device.type == "cuda" or phase.large_products
        torch.set_float32_matmul_precision("medium" if low and wide else "highest")  # `environment` restores it
        patience = early_stopping_patience(n_epochs)
        first_considered = math.ceil(phase.warmup * n_epochs)
        while state.epoch < n_epochs:
            waited = len(state.rows) - 1 - state.best_epoch if self.best_weights else 0
            if self.settings.early_stopping and waited >= patience:
                return "early stopping"
            self._epoch(phase, n_epochs, optimizers)
            if phase.turn is not None:
                self._turn(phase.turn, (state.epoch + 1) / n_epochs, optimizers["turn"])
            row = self._finish_epoch(phase, n_epochs, considered=state.epoch >= first_considered)
            if len(state.rows) == 2:  # the first one also compiles
                self._estimate(row["seconds"] - state.rows[0]["seconds"], self.n_planned - 2)
            bar.update()
            bar.set_postfix_str(_summary(row), refresh=False)
            state.epoch, state.step, state.sums, state.n_seen = state.epoch + 1, 0, {}, 0
            self._checkpoint_if_due(optimizers)
        return "finished"

    def _estimate(self, seconds: float, n_epochs: int) -> None:
        """Say how long a long run will take, from the seconds of an epoch."""
        minutes = seconds * n_epochs / 60
        if minutes >= LONG_RUN_MINUTES:
            logger.warning(
                "training will take about %.0f minutes for %d more epochs of %d cells; Ctrl-C keeps the model so far.",
                minutes, n_epochs, len(self.train_rows),
            )  # fmt: skip

    # --- one epoch ---

    def _epoch(self, phase: Phase, n_epochs: int, optimizers: dict[str, Adam]) -> None:
        state, settings, optimizer = self.state, self.settings, optimizers["phase"]
        assert settings.batch_size is not None
        assert settings.learning_rate is not None
        feed = self.feed
        if phase.n_items is not None:
            rows = np.arange(phase.n_items)
            feed = Feed(Items(), rows, settings.batch_size, settings.seed, processes=self.processes)
        self._train_only(phase.parameters)
        for first, stop, batches, source in feed.stretches(len(state.rows), state.step):
            per_epoch = len(batches)
            part = self.processes.part
            ahead: Callable[[], Batch | Tensor] = partial(source.take, part(batches[min(first, per_epoch - 1)]))
            for step in range(first, stop):
                progress = (state.epoch * per_epoch + step) / (n_epochs * per_epoch)
                batch = ahead().to(self.device)
                loss = phase.loss(batch, progress)
                objective = loss.objective
                self._guard(loss, objective.item(), phase, step)
                if step + 1 < stop:  # while the gradients go back
                    ahead = threads.start(partial(source.take, part(batches[step + 1])))
                if self.processes.size > 1:
                    loss.share(len(batches[step]), self.processes.size).backward()
                    self.processes.sum_gradients(optimizer.parameters)
                else:
                    objective.backward()
                if settings.gradient_clip is not None:
                    nn.utils.clip_grad_norm_(optimizer.parameters, settings.gradient_clip)
                optimizer.step(settings.learning_rate * one_cycle(progress))
                optimizer.clear_gradients()
                n_batch = loss.n_cells if self.processes.size == 1 else len(batches[step])
                self._add(loss, objective.item(), n_batch)
                state.step = step + 1
                if step + 1 < per_epoch:
                    self._checkpoint_if_due(optimizers)

    def _turn(self, turn: Turn, progress: float, optimizer: Adam) -> None:
        state, settings = self.state, self.settings
        assert settings.batch_size is not None
        assert settings.learning_rate is not None
        inputs = inputs_of(turn, self.module, self.cells, self.train_rows, self.device)
        if inputs:
            self._train_only(turn.parameters)
            loss = pass_over(
                turn, inputs, optimizer, learning_rate=settings.learning_rate * one_cycle(progress),
                batch_size=settings.batch_size, seed=(settings.seed, len(state.rows)),
            )  # fmt: skip
            state.sums[turn.name] = loss * state.n_seen
            self.processes.agree(self.module)

    def _train_only(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let gradients pass through all parameters, and stay in these alone."""
        chosen = set(map(id, parameters))
        for parameter in self.module.parameters():
            parameter.requires_grad_(id(parameter) in chosen)

    def _add(self, loss: Loss, objective: float, n_batch: int) -> None:
        state, n_cells = self.state, loss.n_cells
        means = {name: value.item() for name, value in loss.dataset.items()} | {"loss": objective}
        sums = {name: float(value) for name, value in loss.terms.items()}
        for name, value in (sums | {name: mean * n_cells for name, mean in means.items()}).items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.n_seen += n_cells
        state.cells_visited += n_batch

    def _guard(self, loss: Loss, objective: float, phase: Phase, step: int) -> None:
        if math.isfinite(objective):
            return
        terms = {name: value.item() for name, value in (loss.terms | dict(loss.dataset)).items()}
        culprit = next((name for name, value in terms.items() if not math.isfinite(value)), "objective")
        raise TrainingError(
            f"the loss stopped being finite in phase '{phase.name}', epoch {self.state.epoch + 1}, step {step + 1}: "
            f"the {culprit} term is {terms.get(culprit, objective)}; the learning rate of "
            f"{self.settings.learning_rate:g} is the likely cause, so try a third of it, or gradient_clip=10."
        )

    def _finish_epoch(self, phase: Phase, n_epochs: int, considered: bool) -> dict[str, Any]:
        state = self.state
        row: dict[str, Any] = {"epoch": len(state.rows) + 1, "phase": phase.name}
        sums = self.processes.sum_of(state.sums | {"n_seen": state.n_seen}, self.device)
        row |= {f"train_{name}": sums[name] / sums["n_seen"] for name in state.sums}
        if len(self.validation_rows) and phase.n_items is None:
            terms, of_data_set = self.validate(phase)
            elbo = sum(terms.values())
            row["validation_negative_elbo"] = elbo
            row |= {f"validation_{name}": value for name, value in (terms | of_data_set).items()}
            objective = elbo + sum(of_data_set.values())
            if considered and objective < state.best:
                state.best, state.best_epoch = objective, len(state.rows)
                self.best_weights = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        assert self.settings.learning_rate is not None
        row["learning_rate"] = self.settings.learning_rate * one_cycle((state.epoch + 1) / n_epochs)
        self._tick()
        row["seconds"] = state.seconds
        state.rows.append(row)
        return row

    @torch.no_grad()
    def validate(self, phase: Phase) -> tuple[dict[str, float], dict[str, float]]:
        """Terms of the negative ELBO per held-out cell, KL weight 1, and of the data set; always the same noise."""
        terms, of_data_set, n = dict[str, float](), dict[str, float](), len(self.held_out_rows)
        spread = n >= self.processes.size  # otherwise every process looks at all of them
        held_out = self.processes.part(self.held_out_rows) if spread else self.held_out_rows
        self.module.eval()
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(self.processes.seed(self.settings.seed) if spread else self.settings.seed)
            for start in range(0, len(held_out), VALIDATION_BATCH):
                rows = held_out[start : start + VALIDATION_BATCH]
                loss = phase.loss(self.held_out.take(rows).to(self.device), 1.0)
                for name, value in loss.terms.items():
                    terms[name] = terms.get(name, 0.0) + float(value) / n
                for name, value in loss.dataset.items():
                    of_data_set[name] = of_data_set.get(name, 0.0) + float(value) * len(rows) / n
        self.module.train()
        n_times = 1 if spread else self.processes.size
        return tuple(  # type: ignore[return-value]
            {name: value / n_times for name, value in self.processes.sum_of(one, self.device).items()}
            for one in (terms, of_data_set)
        )

    def _checkpoint_if_due(self, optimizers: dict[str, Adam]) -> None:
        self.checkpoints.write_if_due(self._state_now, self.module, self.best_weights, optimizers)

    def _state_now(self) -> RunState:
        self._tick()
        return self.state

    def _tick(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self.clock
        self.clock = now


def _optimizers(phase: Phase) -> dict[str, Adam]:
    """Those of a phase and of its turn."""
    turn = {} if phase.turn is None else {"turn": Adam(phase.turn.parameters)}
    return {"phase": Adam(phase.parameters)} | turn


def epochs_per_phase(phases: list[Phase], max_epochs: int, n_train: int) -> list[int]:
    """Share out the steps of so many epochs; every phase gets at least one epoch of its own."""
    shares = sum(phase.share for phase in phases)
    lengths = [n_train if phase.n_items is None else phase.n_items for phase in phases]
    return [
        max(1, round(max_epochs * phase.share / shares * n_train / n)) for phase, n in zip(phases, lengths, strict=True)
    ]


def early_stopping_patience(n_epochs: int) -> int:
    """Epochs without improvement before training stops: a third of the planned ones.

    Fewer would end runs in the noise of high learning rates, before the schedule has lowered them.
    """
    return max(5, n_epochs // 3)


def _summary(row: dict[str, Any]) -> str:
    parts = [f"loss {row['train_loss']:.1f}"]
    if "validation_negative_elbo" in row:
        parts.append(f"held-out {row['validation_negative_elbo']:.1f}")
    return ", ".join(parts)
