"""The same model fitted many times: other seeds, other numbers of factors, resampled cells. In parallel, and resumable.

joblib runs the fits, so that a user's own backend (Dask, Ray) takes over through `joblib.parallel_config`. Each fit has
one thread, and its result is a small file in `folder`, written atomically; what is there already is not fitted again.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import FileError, SettingError
from lucidcell.plots.factors import UNUSED_KL
from lucidcell.readouts.loadings import centred
from lucidcell.training.checkpoint import Checkpoint, write_atomically

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.count_model import CountModel

HELD_OUT = "validation_negative_elbo"  # column of the history


@dataclass(frozen=True)
class Task:
    """One fit: the seed of training, the number of factors if it is varied, and the seed of resampled cells."""

    seed: int
    n_latent: int | None = None
    resample: int | None = None  # seed of a bootstrap sample of the cells; None: all cells once


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


def refit(
    model_class: type[CountModel],
    adata: AnnData,
    tasks: Sequence[Task],
    *,
    arguments: Mapping[str, Any],
    training: Mapping[str, Any],
    folder: str | Path | None,
    n_jobs: int,
) -> list[Fit]:
    """All fits, in the order of the tasks.

    Raises
    ------
    SettingError
        If the folder holds fits of other data or settings.
    """
    from joblib import Parallel, delayed

    place = None if folder is None else _own_folder(Path(folder), model_class, adata, arguments, training)
    return list(
        Parallel(n_jobs=n_jobs)(
            delayed(_fit)(model_class, adata, task, dict(arguments), dict(training), place) for task in tasks
        )
    )


def whole_numbers(values: int | Sequence[int], name: str, smallest: int, at_least: int = 1) -> list[int]:
    """A list of different whole numbers; a single number n stands for 0 ... n - 1.

    Raises
    ------
    SettingError
        If it is none.
    """
    listed = list(range(values)) if isinstance(values, int | np.integer) else list(values)
    good = all(isinstance(one, int | np.integer) and not isinstance(one, bool) and one >= smallest for one in listed)
    if not good or len(set(listed)) < len(listed) or len(listed) < at_least:
        raise SettingError(
            f"{name} is {values!r}; it must be at least {at_least} different whole numbers from {smallest} on."
        )
    return [int(one) for one in listed]


def _own_folder(
    folder: Path,
    model_class: type[CountModel],
    adata: AnnData,
    arguments: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Path:
    """`folder`, made if need be, with a note of what its fits are of."""
    names = hashlib.sha256("\n".join([*map(str, adata.obs_names), *map(str, adata.var_names)]).encode()).hexdigest()
    note = {
        "model": model_class.__name__, "cells and genes": names,
        "arguments": {key: repr(value) for key, value in sorted(arguments.items())},
        "training": {key: repr(value) for key, value in sorted(training.items())},
    }  # fmt: skip
    file = folder / "fits.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(file.read_text()) if file.exists() else None
    except (OSError, ValueError) as error:
        raise FileError(f"{file} cannot be used ({error}); choose another folder.") from error
    if found is not None and found != note:
        differing = [key for key in note if not isinstance(found, dict) or found.get(key) != note[key]]
        raise SettingError(
            f"{folder} holds fits with other {', '.join(differing)}; choose another folder, or empty it."
        )
    write_atomically(file, json.dumps(note, indent=1).encode())
    return folder


def _fit(
    model_class: type[CountModel],
    adata: AnnData,
    task: Task,
    arguments: dict[str, Any],
    training: dict[str, Any],
    folder: Path | None,
) -> Fit:
    parts = [f"seed{task.seed}"]
    parts += [] if task.n_latent is None else [f"factors{task.n_latent}"]
    parts += [] if task.resample is None else [f"resample{task.resample}"]
    place = None if folder is None else folder / "_".join(parts)
    stored = None if place is None else Checkpoint.read(place)
    if stored is not None:
        return Fit.of(task, stored)
    if task.n_latent is not None:
        arguments = arguments | {"n_latent": task.n_latent}
    if task.resample is not None:
        adata = _resampled(adata, task.resample)
    make: Callable[..., CountModel] = model_class
    model = make(adata, **arguments)
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


def comparable_loadings(model: CountModel) -> pd.DataFrame:
    """Loadings in the model's readable rotation, centred, times the root of mean expression; genes x factors.

    The squares of a column add up to the variance that the factor gives the linear predictor, genes weighted by their
    expression, so that two such columns can be correlated without the noise of genes that are hardly ever seen.
    """
    table = model.readable_loadings()
    expression = model.mean_counts()
    values = centred(table.to_numpy(), expression) * np.sqrt(expression)[:, None]
    return pd.DataFrame(values, table.index, table.columns)


def _n_used(model: CountModel) -> int:
    mu, variance = model.get_latent_representation(return_dist=True)
    kl = 0.5 * (variance + mu**2 - 1 - np.log(variance))
    return int((kl.mean(0) >= UNUSED_KL).sum())


def _resampled(adata: AnnData, seed: int) -> AnnData:
    """As many cells, drawn with replacement."""
    rows = np.sort(np.random.default_rng(seed).integers(0, adata.n_obs, adata.n_obs))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Observation names are not unique", UserWarning)
        drawn = adata[rows].copy()
    drawn.obs_names = [f"{name}_{i}" for i, name in enumerate(drawn.obs_names)]
    return drawn
