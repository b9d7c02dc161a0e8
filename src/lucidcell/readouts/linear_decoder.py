"""What a linear decoder says of genes: loadings, intercept and effects, exact; rotation, shares and archetypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.errors import SettingError
from lucidcell.readouts.loadings import centred
from lucidcell.readouts.rotation import rotation_to
from lucidcell.readouts.shares import factor_shares

if TYPE_CHECKING:
    from lucidcell.models.linear_model import LinearModel


def loadings(model: LinearModel, rotate: str | None, center: bool) -> pd.DataFrame:
    """Weights of the factors, (G, D); see `LinearModel.get_loadings`."""
    table = _columns(model, 0, model.factor_names)
    rotation = model.rotation(rotate)
    if rotation is not None:
        names = [f"R{d + 1}" for d in range(len(table.columns))]
        table = pd.DataFrame(table.to_numpy() @ rotation, table.index, names)
    if center:
        table = pd.DataFrame(centred(table.to_numpy(), model.mean_expression()), table.index, table.columns)
    folded = ", batch-norm folded in" if model.module.normalised else ""
    table.attrs = {
        "how": f"weights of the linear decoder{folded}{', centred' if center else ''}",
        "unit": "change of the gene's logit per unit of the factor",
        "sign": "positive: the gene rises with the factor" + ("" if center else ", against genes with lower loadings"),
        "rotation": rotate or "none",
    }
    return table


def rotation(model: LinearModel, rotate: str) -> np.ndarray:
    """Orthogonal matrix R (D, D) of `rotate`; see `lucidcell.readouts.rotation`."""
    weights = model.mean_expression()
    raw = _columns(model, 0, model.factor_names).to_numpy()
    return rotation_to(rotate, centred(raw, weights, on_simplex=model.on_simplex), weights).astype(np.float32)


def shares(model: LinearModel, scores: pd.DataFrame, rotate: str | None, order: str | None) -> pd.DataFrame:
    """Shares of the factors with these scores (n, D), rotated alike; see `factor_shares`."""
    on_simplex = model.on_simplex and rotate is None
    table = loadings(model, rotate, False)
    return factor_shares(scores, table, model.mean_expression(), on_simplex=on_simplex, order=order)


def intercept(model: LinearModel) -> pd.Series:
    """Logit of each gene at z = 0 without batch and covariates, (G,)."""
    model._check_trained()
    bias = model.module.folded()[1]
    values = np.zeros(model.schema.n_genes) if bias is None else bias.detach().double().numpy()
    return pd.Series(values, index=pd.Index(model.schema.gene_names, name="gene"), name="intercept")


def covariate_effects(model: LinearModel) -> pd.DataFrame:
    """Genes x columns of the covariates."""
    schema = model.schema
    names = [f"{key}={one}" for key, categories in schema.categorical_covariates.items() for one in categories]
    return _columns(model, model.config.n_latent, [*names, *schema.continuous_covariates])


def batch_effects(model: LinearModel) -> pd.DataFrame:
    """Genes x batches."""
    start = model.config.n_latent + model.schema.n_covariates
    return _columns(model, start, list(model.schema.batch_categories))


def archetypes(model: LinearModel) -> pd.DataFrame:
    """Expression of the corners of the simplex, (G, D); see `LinearModel.get_archetypes`."""
    from scipy.special import softmax

    if not model.on_simplex:
        raise SettingError(
            f"archetypes are corners of a simplex, and latent_distribution is {model.config.latent_distribution!r}; "
            "train with latent_distribution='ln', or read the loadings."
        )
    offset = intercept(model) + batch_effects(model).mean(axis=1)
    return loadings(model, None, False).add(offset, axis=0).apply(softmax)


def _columns(model: LinearModel, start: int, names: list[str]) -> pd.DataFrame:
    """Columns of the folded weight W~ from `start` on, genes x names."""
    model._check_trained()
    weight = model.module.folded()[0].detach().double().numpy()[:, start : start + len(names)]
    return pd.DataFrame(weight, index=pd.Index(model.schema.gene_names, name="gene"), columns=names)
