"""How much of each gene the embedding of the cells tells: siVAE's degree centrality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from lucidcell.cells.batch import TARGET_SUM
from lucidcell.errors import SettingError
from lucidcell.readouts.centrality import distance_centrality

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.models.sivae import SIVAE
    from lucidcell.models.topic_model import TopicModel
    from lucidcell.models.vae import GaussianModel

HOW = ("explained", "mse", "distance")
CELLS_AT_A_TIME = 256


def degree_centrality_of(model: SIVAE, adata: AnnData | None, how: str) -> pd.Series:
    """Degree centrality of each gene, (G,); see `SIVAE.get_degree_centrality`."""
    if how not in HOW:
        raise SettingError(f"how is {how!r}; it must be one of {', '.join(HOW)}.")
    if how == "distance":
        return distance_centrality(model.get_loadings())
    errors, variances, _ = _errors(model, adata)
    values = -errors if how == "mse" else _explained(errors, variances)
    return pd.Series(values, pd.Index(model.schema.gene_names, name="gene"), name="centrality")


def explained_variance(model: GaussianModel, adata: AnnData | None) -> np.ndarray:
    """1 - MSE / variance of each gene over cells, (G,), at the means of their posteriors; 0 where nothing varies."""
    return _explained(*_errors(model, adata)[:2])


def _explained(errors: np.ndarray, variances: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variances > 0, 1 - errors / variances, 0.0)


def gene_moments(model: TopicModel) -> pd.DataFrame:
    """Mean and standard deviation of each gene's log-normalised expression, and the share of its variance explained."""
    errors, variances, means = _errors(model, None)
    names = pd.Index(model.schema.gene_names, name="gene")
    return pd.DataFrame(
        {"mean": means, "sd": np.sqrt(variances), "explained": _explained(errors, variances)}, index=names
    )


def _errors(model: GaussianModel | TopicModel, adata: AnnData | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squared error, variance and mean of each gene over cells, (G,).

    Of x for a Gaussian, else of log-normalised counts.
    """
    n = 0
    errors, total, squares = (torch.zeros(model.schema.n_genes, dtype=torch.float64) for _ in range(3))
    with torch.no_grad():
        for batch in model.batches(model.cells_of(adata), CELLS_AT_A_TIME):
            x, expected = _observed_and_expected(model, batch)
            n += len(x)
            errors += (x - expected).square().sum(0)
            total += x.sum(0)
            squares += x.square().sum(0)
    mean = total / n
    variance = (squares / n - mean.square()).clamp(min=0)
    variance[variance < 1e-12 * (1 + mean.square())] = 0
    return (errors / n).numpy(), variance.numpy(), mean.numpy()


def _observed_and_expected(model: GaussianModel | TopicModel, batch: Batch) -> tuple[Tensor, Tensor]:
    from lucidcell.models.vae import VAEModule

    module = model.vae
    z, design = module.link(module.encode(batch).mu), module.design(batch)
    if not module.softmax:
        assert isinstance(module, VAEModule)
        return module.target(batch).double(), module.decode(z, design).double()
    share = batch.counts.dense() / batch.library[:, None].clamp(min=1e-12)
    return (TARGET_SUM * share).log1p().double(), (TARGET_SUM * module.expression(z, design)).log1p().double()
