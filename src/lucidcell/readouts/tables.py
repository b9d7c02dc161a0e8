"""The tables of a run folder, and the same read-outs written back to an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.errors import DataError
from lucidcell.readouts.latent import latent_distribution
from lucidcell.readouts.markers import markers
from lucidcell.readouts.shares import mean_kl
from lucidcell.readouts.uncorrected import uncorrected

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.factor_model import FactorModel


def run_tables(model: FactorModel) -> dict[str, pd.DataFrame]:
    """Tables of the model's own cells, by file name: cells, latent, loadings, factors and genes.

    With several batches also uncorrected, with several labels markers.
    """
    cells = model.cells_of(None)
    loadings = model.readable_loadings()
    latent = pd.DataFrame(model.get_latent_representation(rotate=model.readable_rotation), columns=loadings.columns)
    tables = {
        "cells": _cell_table(model),
        "latent": latent.assign(cell=cells.cell_names)[["cell", *loadings.columns]],
        "loadings": _with_index(loadings),
        "factors": _factor_table(model, latent),
        "genes": _with_index(model.gene_table()),
    }
    if cells.schema.n_batches > 1 and cells.schema.counts:
        tables["uncorrected"] = uncorrected(cells)
    found = markers(model)
    return tables if found is None else tables | {"markers": found}


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    flat = table.reset_index()
    flat.attrs = table.attrs
    return flat


def _cell_table(model: FactorModel) -> pd.DataFrame:
    cells = model.cells_of(None)
    batches, labels = np.array(cells.schema.batch_categories), np.array([*cells.schema.label_categories, ""])
    return pd.DataFrame(
        {
            "cell": cells.cell_names,
            "batch": batches[cells.batch],
            "label": labels[cells.label],
            "total_counts": cells.counts.sums(),
        }
    )


def _factor_table(model: FactorModel, latent: pd.DataFrame) -> pd.DataFrame:
    """Per factor: variance of its posterior mean over cells, and mean KL from the prior in nats (0: not used).

    Of a linear decoder also its share, and drop-one share, of the linear predictor's variance.
    """
    mu, variance = latent_distribution(model, None, None, None)
    rotation = model.rotation(model.readable_rotation)
    if rotation is not None:
        mu, variance = mu @ rotation, variance @ rotation**2
    table = pd.DataFrame(
        {
            "factor": list(latent.columns),
            "z_variance": latent.to_numpy(float).var(0),
            "kl": mean_kl(mu, variance, model.prior_sd),
        }
    )
    shares = model.readable_shares(latent)
    return table if shares is None else table.assign(share=shares["share"], drop_one=shares["drop_one"])


def as_anndata(name: str, tables: dict[str, pd.DataFrame]) -> AnnData:
    """The read-outs of the model called `name` as an AnnData without X."""
    import anndata as ad

    latent, loadings = tables["latent"], tables["loadings"]
    obs = tables["cells"].astype({"batch": "category", "label": "category"}).set_index("cell")
    obs.index = obs.index.astype(str)
    if "annotation" in tables:
        of_types = tables["annotation"].drop(columns="cell")
        obs = obs.assign(**{f"{name}_{column}": values.array for column, values in of_types.items()})
    var = tables["genes"].set_index("gene")
    result = ad.AnnData(obs=obs, var=var)
    factors = list(tables["factors"]["factor"])
    result.obsm[f"X_{name}"] = latent[factors].to_numpy(np.float32)
    result.varm[f"{name}_loadings"] = loadings[factors].to_numpy(np.float32)
    if "topics" in tables:
        result.obsm[f"{name}_topics"] = tables["topics"].drop(columns="cell").to_numpy(np.float32)
        result.varm[f"{name}_topic_genes"] = tables["topic_genes"].drop(columns="gene").to_numpy(np.float32)
    return result


def write(model: FactorModel, adata: AnnData) -> None:
    """Write the read-outs into `adata`; see `FactorModel.write`."""
    if adata.is_view:
        raise DataError("this AnnData is a view; write into its copy: adata = adata.copy().")
    latent = model.get_latent_representation(adata, rotate=model.readable_rotation)
    loadings = model.readable_loadings()
    genes = loadings.reindex([str(name) for name in adata.var_names])
    adata.obsm[f"X_{model.name}"] = latent
    adata.varm[f"{model.name}_loadings"] = genes.to_numpy(np.float32)
    adata.uns[model.name] = {
        "class": type(model).__name__,
        "factors": np.array(loadings.columns, dtype=object),
        "loadings": {key: str(value) for key, value in loadings.attrs.items()},
        "config": {key: value for key, value in vars(model.config).items() if value is not None},
    }
