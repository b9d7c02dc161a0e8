"""Genes x factors: how much each factor moves each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lucidcell.models.count_model import CountModel
    from lucidcell.models.ldvae import LDVAE

MOST_CELLS = 5000
CELLS_AT_A_TIME = 256


def mean_jacobian(model: CountModel, seed: int = 0) -> pd.DataFrame:
    """Mean over cells of d log rho_g / d z_d, (G, D): the change of log expression per unit of a factor.

    Over at most 5,000 cells of the training data, drawn with `seed`; one forward-mode derivative for each factor.
    `attrs` say how the table was derived.
    """
    import torch
    from torch.func import jvp

    cells = model.cells_of(None)
    if len(cells) > MOST_CELLS:
        chosen = np.random.default_rng(seed).choice(len(cells), MOST_CELLS, replace=False)
        cells = cells.select(np.sort(chosen))
    vae, n_latent = model.vae, model.vae.config.n_latent
    total = torch.zeros(cells.n_genes, n_latent, dtype=torch.float64)
    with torch.no_grad():
        for batch in model.batches(cells, CELLS_AT_A_TIME):
            z, design = vae.link(vae.encode(batch).mu), vae.design(batch)
            for d in range(n_latent):
                direction = torch.zeros_like(z)
                direction[:, d] = 1.0
                slope = jvp(lambda point, design=design: vae.decode(point, design), (z,), (direction,))[1]
                total[:, d] += slope.sum(0)
    table = pd.DataFrame(
        (total / len(cells)).numpy(), index=pd.Index(model.schema.gene_names, name="gene"), columns=model.factor_names
    )
    table.attrs = {
        "how": f"mean Jacobian of log expression over {len(cells)} cells",
        "unit": "change of log expression per unit of the factor",
        "sign": "positive: the gene rises with the factor",
        "rotation": "none",
    }
    return table


def linear_loadings(model: LDVAE, rotate: str | None, center: bool) -> pd.DataFrame:
    """Weights of a linear decoder, (G, D); see `LDVAE.get_loadings`."""
    raw = model.loadings_of_decoder()
    rotation = model.rotation(rotate)
    values = raw.to_numpy() if rotation is None else raw.to_numpy() @ rotation
    if center:
        values = centred(values, model.mean_expression())
    names = list(raw.columns) if rotate is None else rotated_names(len(raw.columns))
    table = pd.DataFrame(values, index=raw.index, columns=names)
    folded = ", batch-norm folded in" if model.config.use_batch_norm else ""
    table.attrs = {
        "how": f"weights of the linear decoder{folded}{', centred' if center else ''}",
        "unit": "change of the gene's logit per unit of the factor",
        "sign": "positive: the gene rises with the factor" + ("" if center else ", against genes with lower loadings"),
        "rotation": rotate or "none",
    }
    return table


def centred(loadings: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Loadings (G, D) minus each factor's mean, genes weighted by mean expression (G,).

    A constant added to all loadings of a factor changes no expression, as the softmax takes it out again.
    """
    return loadings - weights @ loadings / weights.sum()


def rotated_names(n_factors: int) -> list[str]:
    """R1 ... RD."""
    return [f"R{d + 1}" for d in range(n_factors)]
