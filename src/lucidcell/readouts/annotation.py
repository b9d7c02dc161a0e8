"""Types of the cells, as the classifier q(c | z) of scANVI has them at the mean of q(z | x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import SettingError

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.scanvi import SCANVI


class Predictions(NamedTuple):
    """The likeliest type of each of n cells, at one level of the taxonomy."""

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


def predict(
    model: SCANVI,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    *,
    soft: bool,
    level: int | str | None,
    batch_size: int | None,
) -> pd.Series | pd.DataFrame:
    """Types, or with `soft` their probabilities, with the names of the cells; see `SCANVI.predict`."""
    index = pd.Index(model.cells_of(adata, indices).cell_names)
    probabilities = np.exp(label_log_probabilities(model, adata, indices, batch_size))
    if soft:
        names, values = at_level(model, probabilities, level)
        return pd.DataFrame(values, index=index, columns=list(names))
    return pd.Series(most_likely(model, probabilities, level).names, index=index, name="prediction")


def annotation_table(model: SCANVI, adata: AnnData | None = None) -> pd.DataFrame:
    """One row per cell: cell, prediction, and confidence, the probability of the predicted type."""
    found = most_likely(model, np.exp(label_log_probabilities(model, adata)))
    cells = model.cells_of(adata).cell_names
    return pd.DataFrame({"cell": cells, "prediction": found.names, "confidence": found.confidence})


def write(model: SCANVI, adata: AnnData) -> None:
    """Write prediction and confidence of each cell into obs; see `SCANVI.write`."""
    table = annotation_table(model, adata)
    names = [name for name in model.taxonomy.leaf_names if name in set(table["prediction"])]
    adata.obs[f"{model.name}_prediction"] = pd.Categorical(table["prediction"], categories=names)
    adata.obs[f"{model.name}_confidence"] = table["confidence"].to_numpy()
