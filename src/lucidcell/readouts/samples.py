"""Cells drawn from a model of normalised expression or counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import linear

from lucidcell.errors import SettingError
from lucidcell.readouts.arguments import require_whole
from lucidcell.readouts.expression import parameters_at, sample_counts
from lucidcell.readouts.random import seeded

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.models.vae import GaussianModel

SOURCES = ("posterior", "prior")


def sample(model: GaussianModel, adata: AnnData | None, n_cells: int | None, *, of: str, seed: int) -> pd.DataFrame:
    """Cells x genes drawn from the model; see `SIVAE.sample`.

    Raises
    ------
    SettingError
        If an argument has no meaning.
    """
    if of not in SOURCES:
        raise SettingError(f"of is {of!r}; it must be one of {', '.join(SOURCES)}.")
    if n_cells is not None:
        require_whole(n_cells, "n_cells", 1)
    cells = model.cells_of(adata)
    if n_cells is not None:
        cells = cells.select(np.random.default_rng(seed).integers(0, len(cells), n_cells))
    with seeded(seed), torch.no_grad():
        drawn = [_draw(model, batch, of) for batch in model.batches(cells)]
    names = pd.Index(cells.cell_names) if n_cells is None else None
    return pd.DataFrame(torch.cat(drawn).numpy(), names, list(model.schema.gene_names))


def _draw(model: GaussianModel, batch: Batch, of: str) -> Tensor:
    module, design = model.module, model.module.design(batch)
    posterior = module.encode(batch)
    z = module.sample_z(posterior) if of == "posterior" else torch.randn_like(posterior.mu)
    if module.softmax:
        return sample_counts(parameters_at(model, batch, z, batch.library[:, None], [None]))
    logits = module.logits(z, design)
    mean = linear(*logits)
    return mean + module.sd(logits.inputs)[:, None] * torch.randn_like(mean)
