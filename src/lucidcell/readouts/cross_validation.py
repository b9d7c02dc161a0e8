"""How well a model does on cells that it has not seen: fitted to all folds but one, judged on that one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.cells.covariates import encode
from lucidcell.comparators.knn import knn
from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.metrics.annotation import accuracy, weighted_accuracy
from lucidcell.readouts.arguments import is_whole, require_jobs, require_whole
from lucidcell.readouts.many_fits import side_by_side
from lucidcell.readouts.refits import own_folder, template, training_arguments
from lucidcell.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.cells import Cells
    from lucidcell.cells.schema import Schema
    from lucidcell.models.factor_model import FactorModel

N_NEIGHBORS = 15


def cross_validate(
    model_class: type[FactorModel],
    adata: AnnData | Sequence[AnnData] | dict[str, AnnData],
    *,
    folds: int | ArrayLike = 5,
    folder: str | Path | None = None,
    n_jobs: int = -1,
    training: dict[str, Any] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> pd.DataFrame:
    """Fit a model to the cells outside each fold, and judge it on those of the fold.

    Parameters
    ----------
    model_class, adata, folder, n_jobs, training, **arguments
        As in `stability`.
    folds
        A number: cells are dealt out at random, those of each label alike. Or a value for every cell, such as
        `adata.obs["donor"]`, each of which is left out in turn.
    seed
        Of the deal and of training.

    Returns
    -------
    DataFrame with one row for each fold: fold, n_train, n_test, elbo (nats per cell of the fold, KL weight 1),
    reconstruction_error (negative E log p(x | z), nats per cell); and if the model has a `labels_key`, accuracy and
    weighted_accuracy (mean over types) of the fold's cells with a finest label, by `predict` of a model that has it,
    otherwise by the vote of 15 neighbours among the cells of the fit, in the latent space. Continuous covariates are
    scaled by all cells.

    Raises
    ------
    DataError
        If cells have no fold, or a fold's batch or category of a covariate is in no other fold.
    FileError
        If the folder cannot be used, or the file of an earlier fold is damaged.
    SettingError
        If an argument has no meaning, or the folder holds fits of other data or settings.
    TrainingError
        If a fit fails twice.
    """
    require_jobs(n_jobs)
    require_whole(seed, "seed", 0)
    untrained, training = template(model_class, adata, arguments), training_arguments(training)
    cells = untrained._own_cells("fit it")
    part, names = _parts(folds, cells, seed)
    for code, name in enumerate(names):
        _check_seen(cells, part == code, name)
    more = {"folds": zlib.crc32(part.tobytes()), "seed": seed}
    place = None if folder is None else own_folder(folder, untrained, training=training, **more)
    about = type(untrained), dict(vars(untrained.config)), untrained.schema

    def arguments_of(code: int) -> tuple[Any, ...]:
        file = None if place is None else place / f"fold{code}.json"
        return *about, cells, part == code, training | {"seed": seed}, file

    found = side_by_side(_judge, [f"fold {name}" for name in names], arguments_of, n_jobs=n_jobs, folder=place)
    return pd.DataFrame([{"fold": name} | scores for name, scores in zip(names, found, strict=True)])


def _parts(folds: int | ArrayLike, cells: Cells, seed: int) -> tuple[np.ndarray, list[str]]:
    """Code of each cell's fold (n,), and the names of the folds."""
    if is_whole(folds):
        if not 2 <= folds <= len(cells):
            raise SettingError(f"folds is {folds}; it must be from 2 to {len(cells)}, the number of cells.")
        order = np.random.default_rng(seed).permutation(len(cells))
        order = order[np.argsort(cells.label[order], kind="stable")]
        part = np.empty(len(cells), np.int64)
        part[order] = np.arange(len(cells)) % folds
        return part, [str(k + 1) for k in range(folds)]
    if np.shape(folds) != (len(cells),):
        raise SettingError(
            f"folds has shape {np.shape(folds)}; it must be a number of folds, or one value for each of the "
            f"{len(cells)} cells."
        )
    part, names = encode(folds if isinstance(folds, pd.Series) else pd.Series(np.asarray(folds), name="folds"))
    if n_without := int((part < 0).sum()):
        raise DataError(f"{n_without} of {len(part)} cells have no fold; give each a value, or leave these cells out.")
    if len(names) < 2:
        raise DataError(f"all cells are of fold {names[0]!r}, and at least 2 folds are needed.")
    return part, list(names)


def _check_seen(cells: Cells, held_out: np.ndarray, name: str) -> None:
    """Refuse to judge cells of a batch or category that no cell of the fit has."""
    codes, schema = cells.batch, cells.schema
    unseen = np.setdiff1d(codes[held_out], codes[~held_out])
    if len(unseen):
        raise DataError(
            f"fold {name!r} has the cells of batch {schema.batch_categories[int(unseen[0])]!r}, which is in no other "
            "fold, so that its effect is not learnt: leave batch_key out, or choose other folds."
        )
    n_one_hot = sum(len(one) for one in schema.categorical_covariates.values())
    seen = [cells.covariates[rows, :n_one_hot].any(0) for rows in (held_out, ~held_out)]
    if (seen[0] & ~seen[1]).any():
        raise DataError(
            f"fold {name!r} has a category of {', '.join(schema.categorical_covariates)} that is in no other fold, so "
            "that its effect is not learnt: leave the covariate out, or choose other folds."
        )


def _judge(
    model_class: type[FactorModel],
    config: dict[str, Any],
    schema: Schema,
    cells: Cells,
    held_out: np.ndarray,
    training: dict[str, Any],
    file: Path | None,
) -> dict[str, float]:
    if file is not None and file.exists():
        try:
            return dict(json.loads(file.read_text()))
        except (OSError, ValueError) as error:
            raise FileError(f"{file} cannot be read ({error}); delete it, and it is made again.") from error
    fit = cells.select(np.flatnonzero(~held_out))
    model = model_class._restore(config, schema, fit)
    model.train(**({"progress": False, "num_threads": 1} | training))
    z = np.asarray(model.get_latent_representation())
    model.cells = cells.select(np.flatnonzero(held_out))
    found = {
        "n_train": int((~held_out).sum()),
        "n_test": int(held_out.sum()),
        "elbo": float(model.get_elbo()),
        "reconstruction_error": float(model.get_reconstruction_error()),
    }
    found |= _agreement(model, z, fit) if schema.n_labels else {}
    if file is not None:
        write_atomically(file, json.dumps(found).encode())
    return found


def _agreement(model: FactorModel, z: np.ndarray, fit: Cells) -> dict[str, float]:
    """With the labels of the fold, whose cells are now the model's own."""
    test = model._own_cells("judge it")
    names = np.array(test.schema.label_categories)
    fine = np.setdiff1d(np.arange(len(names)), test.schema.label_parents)  # without labels of whole groups
    known, labelled = np.isin(test.label, fine), np.isin(fit.label, fine)
    if not known.any() or not labelled.any():
        return {"accuracy": np.nan, "weighted_accuracy": np.nan}
    if hasattr(model, "predict"):
        predicted = np.asarray(model.predict())[known]
    else:
        k = min(N_NEIGHBORS, int(labelled.sum()))
        here = np.asarray(model.get_latent_representation())[known]
        predicted = knn(z[labelled], names[fit.label[labelled]], here, k=k).labels
    truth = names[test.label[known]]
    return {"accuracy": accuracy(truth, predicted), "weighted_accuracy": weighted_accuracy(truth, predicted)}
