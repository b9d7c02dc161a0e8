"""Genes x factors: how much each factor moves each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lucidcell.models.factor_model import FactorModel

MOST_CELLS = 5000
CELLS_AT_A_TIME = 256


def mean_jacobian(model: FactorModel, seed: int = 0) -> pd.DataFrame:
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
    what = "log expression" if model.of_counts else "scaled expression"
    table.attrs = {
        "how": f"mean Jacobian of {what} over {len(cells)} cells",
        "unit": f"change of {what} per unit of the factor",
        "sign": "positive: the gene rises with the factor",
        "rotation": "none",
    }
    return table


def centred(loadings: np.ndarray, weights: np.ndarray, *, on_simplex: bool = False) -> np.ndarray:
    """Loadings (G, D) without what changes no expression, genes weighted by mean expression (G,).

    A constant added to all loadings of a factor is taken out again by the softmax, so each factor's mean is taken off.
    Where the scores of a cell sum to 1, one vector added to all factors only moves the intercept, so that each gene's
    mean over factors is taken off first.
    """
    if on_simplex:
        loadings = loadings - loadings.mean(1, keepdims=True)
    return loadings - weights @ loadings / weights.sum()
