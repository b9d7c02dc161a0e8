"""The same model fitted many times: other seeds, other numbers of factors, resampled cells. In parallel, and resumable.

joblib runs the fits, so that a user's own backend (Dask, Ray) takes over through `joblib.parallel_config`. Each fit has
one thread, and its result is a small file in `folder`, written atomically; what is there already is not fitted again.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import SettingError
from lucidcell.readouts.arguments import is_whole, require_jobs
from lucidcell.readouts.latent import latent_distribution
from lucidcell.readouts.loadings import centred
from lucidcell.readouts.many_fits import noted_folder, side_by_side
from lucidcell.readouts.shares import UNUSED_KL, mean_kl
from lucidcell.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.cells.schema import Schema
    from lucidcell.models.factor_model import FactorModel

HELD_OUT = "validation_negative_elbo"  # column of the history


@dataclass(frozen=True)
class Task:
    """One fit: the seed of training, the number of factors if it is varied, and the seed of resampled cells."""

    seed: int
    n_latent: int | None = None
    resample: int | None = None  # seed of a bootstrap sample of the cells; None: all cells once

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [f"seed{self.seed}"]
        parts += [] if self.n_latent is None else [f"factors{self.n_latent}"]
        parts += [] if self.resample is None else [f"resample{self.resample}"]
        return "_".join(parts)


@dataclass(frozen=True)
class Fit:
    """What is kept of a fitted model."""

    task: Task
    loadings: pd.DataFrame  # genes x factors, rotated where the decoder is linear
    validation_negative_elbo: float  # nats per held-out cell, KL weight 1
    n_used: int  # factors with a KL divergence of at least 0.05 nats per cell

    @classmethod
    def of(cls, task: Task, stored: Checkpoint) -> Fit:
        values = stored.tensors["loadings"].numpy()
        table = pd.DataFrame(values, pd.Index(stored.facts["genes"], name="gene"), stored.facts["factors"])
        return cls(task, table, stored.facts["validation_negative_elbo"], stored.facts["n_used"])


def template(model_class: type[FactorModel], adata: Any, arguments: Mapping[str, Any]) -> FactorModel:
    """An untrained model: its settings and checked cells are what every fit starts from."""
    make: Callable[..., FactorModel] = model_class
    return make(adata, **arguments)


def refit(
    model: FactorModel,
    tasks: Sequence[Task],
    *,
    training: Mapping[str, Any] | None,
    folder: str | Path | None,
    n_jobs: int,
) -> list[Fit]:
    """All fits of an untrained model, in the order of the tasks.

    Raises
    ------
    SettingError
        If an argument has no meaning, or the folder holds fits of other data or settings.
    """
    training = training_arguments(training)
    require_jobs(n_jobs)
    place = None if folder is None else own_folder(folder, model, training=training)
    about = type(model), dict(vars(model.config)), model.schema, model._own_cells("fit it")
    return side_by_side(
        _fit, [task.name for task in tasks], lambda i: (*about, tasks[i], training, place),
        n_jobs=n_jobs, folder=place,
    )  # fmt: skip


def training_arguments(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of `train` but the seed.

    Raises
    ------
    SettingError
        If they are none, or have a seed.
    """
    if training is None:
        return {}
    if not isinstance(training, Mapping):
        raise SettingError(f"training is {training!r}; it must be a dict with arguments of train().")
    if "seed" in training:
        raise SettingError("training has a seed, and the seeds of the fits are an argument of their own: leave it out.")
    return dict(training)


def whole_numbers(values: int | Sequence[int], name: str, smallest: int, at_least: int = 1) -> list[int]:
    """A list of different whole numbers; a single number n stands for 0 ... n - 1.

    Raises
    ------
    SettingError
        If it is none.
    """
    listed = list(range(values)) if is_whole(values) else []
    if isinstance(values, Sequence | np.ndarray):
        listed = list(values)
    good = all(is_whole(one) and one >= smallest for one in listed)
    if not good or len(set(listed)) < len(listed) or len(listed) < at_least:
        raise SettingError(
            f"{name} is {values!r}; it must be at least {at_least} different whole numbers from {smallest} on."
        )
    return [int(one) for one in listed]


def own_folder(folder: str | Path, model: FactorModel, *, training: Mapping[str, Any], **more: int) -> Path:
    """`folder` for fits of an untrained model, with its note: see `noted_folder`."""
    cells = model._own_cells("fit it")
    checksum = cells.counts.checksum()
    for array in (cells.batch, cells.label, cells.covariates, cells.library):
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    note = {
        "model": type(model).__name__, "version": version("lucidcell"),
        "data": [checksum, len(cells), zlib.crc32("\n".join(model.schema.gene_names).encode())],
        "config": {key: repr(value) for key, value in sorted(vars(model.config).items())},
        "training": {key: repr(value) for key, value in sorted(training.items())}, **more,
    }  # fmt: skip
    return noted_folder(folder, note)


def _fit(
    model_class: type[FactorModel],
    config: dict[str, Any],
    schema: Schema,
    cells: Cells,
    task: Task,
    training: dict[str, Any],
    folder: Path | None,
) -> Fit:
    place = None if folder is None else folder / task.name
    stored = None if place is None else Checkpoint.read(place)
    if stored is not None:
        return Fit.of(task, stored)
    if task.n_latent is not None:
        config = config | {"n_latent": task.n_latent}
    if task.resample is not None:  # as many cells, drawn with replacement
        cells = cells.select(np.sort(np.random.default_rng(task.resample).integers(0, len(cells), len(cells))))
    model = model_class._restore(config, schema, cells)
    model.train(**({"progress": False, "num_threads": 1} | training | {"seed": task.seed}))
    table = comparable_loadings(model)
    facts = {
        "genes": list(table.index),
        "factors": list(table.columns),
        "validation_negative_elbo": float(model.history[HELD_OUT].min()) if HELD_OUT in model.history else math.nan,
        "n_used": _n_used(model),
    }
    made = Checkpoint({"loadings": torch.from_numpy(table.to_numpy())}, facts)
    if place is not None:
        made.write(place)
    return Fit.of(task, made)


def comparable_loadings(model: FactorModel) -> pd.DataFrame:
    """Loadings in the model's readable rotation, centred, times the root of mean expression; genes x factors.

    The squares of a column add up to the variance that the factor gives the linear predictor, genes weighted by their
    expression, so that two such columns can be correlated without the noise of genes that are hardly ever seen.
    """
    table, expression = model.readable_loadings(), model.mean_counts()
    on_simplex = model.vae.config.latent_distribution == "ln"
    values = centred(table.to_numpy(), expression, on_simplex=on_simplex) * np.sqrt(expression)[:, None]
    return pd.DataFrame(values, table.index, table.columns)


def _n_used(model: FactorModel) -> int:
    mean, variance = latent_distribution(model, None, None, None)
    return int((mean_kl(mean, variance, model.prior_sd) >= UNUSED_KL).sum())
