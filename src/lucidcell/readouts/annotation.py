"""Types of the cells, as the classifier q(c | z) of scANVI has them at the mean of q(z | x)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import xlogy

from lucidcell.errors import SettingError
from lucidcell.maths.sampling import some_rows
from lucidcell.readouts.calibration import FEWEST_CELLS, Calibration, calibrate, declined, tempered, weights_of
from lucidcell.readouts.cross_fit import cross_fitted_log_probabilities, number_of_turns

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.scanvi import SCANVI

logger = logging.getLogger("lucidcell")

MOST_CELLS = 20_000  # over which the frequencies of types are averaged
UNKNOWN = "unknown"  # prediction for a cell of which the model is not sure enough


class Predictions(NamedTuple):
    """A type of each of n cells."""

    names: np.ndarray  # (n,) of str objects
    confidence: np.ndarray  # (n,) float64: its probability


def label_log_probabilities(
    model: SCANVI,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """log q(c | z) at the mean of q(z | x), (n, C) float64, for the leaves in the order of `model.taxonomy`."""
    found = []
    with torch.no_grad():
        for batch in model.batches(model.cells_of(adata, indices), batch_size):
            found.append(model.module.log_q_leaves(model.vae.encode(batch).mu).double())
    return torch.log_softmax(torch.cat(found), dim=1).numpy()  # what single precision left of a sum of 1


def label_probabilities(
    model: SCANVI,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    calibrated: bool = True,
    batch_size: int | None = None,
) -> np.ndarray:
    """Probabilities of the leaves, (n, C): at the model's temperature, if it has one and unless `calibrated` is off."""
    log_probabilities = label_log_probabilities(model, adata, indices, batch_size)
    if calibrated and model.calibration is not None:
        log_probabilities = tempered(log_probabilities, model.calibration.temperature)
    return np.exp(log_probabilities)


def calibrate_model(model: SCANVI) -> Calibration:
    """Calibrate a model that was trained just now.

    On the labelled cells that were held out of its training; where these are too few, on all labelled cells, whose
    probabilities are then of classifiers that had not seen them, if only the classifier learned from labels.
    """
    taxonomy, label = model.taxonomy, model.cells_of(None).label
    leaf_of_node = np.full(len(taxonomy.names) + 1, -1)  # the last, also -1, for cells without a label
    leaf_of_node[taxonomy.leaves] = np.arange(len(taxonomy.leaves))
    leaf = leaf_of_node[label]
    source, rows = "labelled cells that were held out", model.validation_indices
    rows = rows[leaf[rows] >= 0]
    if len(rows) >= FEWEST_CELLS:
        log_probabilities = label_log_probabilities(model, indices=rows)
    elif model.config.training == "alternate" and number_of_turns(model):
        source, known = "labelled cells that could be left out in turn", np.flatnonzero(label >= 0)
        others_are_known = np.bincount(label[known], minlength=len(taxonomy.names))[label[known]] > 1
        judged = (leaf[known] >= 0) & others_are_known
        rows = known[judged]
        if len(rows) >= FEWEST_CELLS:
            log_probabilities = cross_fitted_log_probabilities(model, known)[judged]
    if len(rows) < FEWEST_CELLS:
        found = declined(len(rows), source)
        logger.warning("%s", found.declined)
        return found
    weights = weights_of(leaf[rows], _frequencies(model))
    return calibrate(log_probabilities, leaf[rows], taxonomy.leaf_names, source=source, weights=weights)


def _frequencies(model: SCANVI) -> np.ndarray:
    """Mean probability of each leaf, (C,), over the cells without a label; over all if every cell has one."""
    unlabelled = np.flatnonzero(model.cells_of(None).label < 0)
    rows = unlabelled[some_rows(len(unlabelled), MOST_CELLS)] if len(unlabelled) else None
    return np.exp(label_log_probabilities(model, indices=rows)).mean(0)


def level_of(model: SCANVI, level: int | str | None) -> int:
    """Number of a level that is given as a number, as a column of labels, or as None for the finest.

    Raises
    ------
    SettingError
        If there is no such level.
    """
    n_levels, keys = model.taxonomy.n_levels, model.schema.labels_keys[-model.taxonomy.n_levels :]
    if isinstance(level, str):
        if level not in keys or len(keys) < n_levels:
            raise SettingError(
                f"level is {level!r}; give a number from 0 to {n_levels - 1}, or a column of labels_key."
            )
        return keys.index(level)
    return n_levels - 1 if level is None else level


def level_names(model: SCANVI) -> list[str]:
    """What the levels are called, coarse to fine: the columns of labels if these are the levels, else "level_0", ..."""
    keys, n_levels = model.schema.labels_keys, model.taxonomy.n_levels
    return list(keys) if len(keys) == n_levels else [f"level_{number}" for number in range(n_levels)]


def at_level(model: SCANVI, probabilities: np.ndarray, level: int | str | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and probabilities (n, nodes) at a level; a node's is the sum over its leaves."""
    names, member = model.taxonomy.level(level_of(model, level))
    return names, probabilities @ np.equal.outer(member, np.arange(len(names))).astype(float)


def most_likely(model: SCANVI, probabilities: np.ndarray, level: int | str | None = None) -> Predictions:
    """The node at a level to which each cell's likeliest leaf belongs, so that all levels agree."""
    names, member = model.taxonomy.level(level_of(model, level))
    node = member[probabilities.argmax(1)]
    confidence = at_level(model, probabilities, level)[1][np.arange(len(node)), node]
    return Predictions(np.array(names, object)[node], confidence)


def sure_enough(
    model: SCANVI, probabilities: np.ndarray, level: int | str | None, threshold: float, unknown: str
) -> Predictions:
    """`most_likely` at the finest level, down to `level`, where it has at least the probability `threshold`.

    A cell without such a level is `unknown`, with the probability of its type at the coarsest level.

    Raises
    ------
    SettingError
        If `threshold` is not a probability, or `unknown` is a type.
    """
    if not 0 <= threshold <= 1:
        raise SettingError(f"threshold is {threshold!r}; it is the least probability of a prediction, from 0 to 1.")
    if unknown in model.taxonomy.names:
        raise SettingError(f"{unknown!r} is a type, so rejected cells cannot be called so: give another name.")
    coarsest = most_likely(model, probabilities, 0).confidence
    names, confidence = np.full(len(probabilities), unknown, object), coarsest.copy()
    for number in range(level_of(model, level) + 1):
        found = most_likely(model, probabilities, number)
        sure = found.confidence >= threshold
        names[sure], confidence[sure] = found.names[sure], found.confidence[sure]
    return Predictions(names, confidence)


def predict(
    model: SCANVI,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    *,
    soft: bool,
    level: int | str | None,
    threshold: float | None,
    unknown: str,
    calibrated: bool,
    batch_size: int | None,
) -> pd.Series | pd.DataFrame:
    """Types, or with `soft` their probabilities, with the names of the cells; see `SCANVI.predict`."""
    index = pd.Index(model.cells_of(adata, indices).cell_names)
    probabilities = label_probabilities(model, adata, indices, calibrated=calibrated, batch_size=batch_size)
    if soft:
        if threshold is not None:
            raise SettingError(
                f"threshold={threshold:g} rejects names; with soft=True there are none, so leave it out."
            )
        names, values = at_level(model, probabilities, level)
        return pd.DataFrame(values, index=index, columns=list(names))
    if threshold is None:
        found = most_likely(model, probabilities, level)
    else:
        found = sure_enough(model, probabilities, level, threshold, unknown)
    return pd.Series(found.names, index=index, name="prediction")


def annotate(
    model: SCANVI,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    threshold: float | None = None,
    unknown: str = UNKNOWN,
    calibrated: bool = True,
) -> pd.DataFrame:
    """Prediction, confidence and uncertainty of each cell, at every level; see `SCANVI.annotate`."""
    probabilities = label_probabilities(model, adata, indices, calibrated=calibrated)
    found = most_likely(model, probabilities)
    if threshold is not None:
        found = sure_enough(model, probabilities, None, threshold, unknown)
    columns: dict[str, np.ndarray | pd.Categorical] = {
        "prediction": _ordered(model, found.names),
        "confidence": found.confidence,
        "uncertainty": 1 - probabilities.max(1),
        "entropy": -xlogy(probabilities, probabilities).sum(1),
    }
    if model.taxonomy.n_levels > 1:
        for number, name in enumerate(level_names(model)):
            here = most_likely(model, probabilities, number)
            columns |= {f"prediction_{name}": _ordered(model, here.names), f"confidence_{name}": here.confidence}
    return pd.DataFrame(columns, index=pd.Index(model.cells_of(adata, indices).cell_names))


def _ordered(model: SCANVI, names: np.ndarray) -> pd.Categorical:
    """The types that occur as categories, in the order of the taxonomy; other names come last."""
    found = set(names)
    known = [name for name in model.taxonomy.names if name in found]
    return pd.Categorical(names, [*known, *sorted(found - set(known))])


def write(model: SCANVI, adata: AnnData) -> None:
    """Write prediction and confidence of each cell into obs; see `SCANVI.write`."""
    table = annotate(model, adata)
    adata.obs[f"{model.name}_prediction"] = table["prediction"].array
    adata.obs[f"{model.name}_confidence"] = table["confidence"].to_numpy()
