"""The genes as siVAE places them: loadings, and the layers of the gene decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import torch

from lucidcell.errors import SettingError
from lucidcell.readouts.arguments import is_whole

if TYPE_CHECKING:
    from lucidcell.models.sivae import SIVAE

GENES_AT_A_TIME = 4096


def gene_embedding(model: SIVAE, layer: int) -> pd.DataFrame:
    """Means of the gene embedding (G, D), or a layer of the gene decoder; see `SIVAE.get_loadings`."""
    model._check_trained()
    module = model.module
    steps = [] if model.config.linear_decoder else module.gene_decoder.steps()
    if not is_whole(layer) or not 1 <= layer <= len(steps) + 1:
        raise SettingError(f"layer is {layer!r}; this model has the layers 1 to {len(steps) + 1}.")
    found = []
    with torch.no_grad():
        for genes in torch.arange(model.schema.n_genes).split(GENES_AT_A_TIME):
            values = module.encode_genes(genes).mu
            for i, step in enumerate(steps[: layer - 1]):
                values = step(values)
                values = values.relu() if i < len(steps) - 1 else values
            found.append(values)
    table = torch.cat(found).double().numpy()
    names = model.factor_names if layer == 1 else [f"U{h + 1}" for h in range(table.shape[1])]
    index = pd.Index(model.schema.gene_names, name="gene")
    frame = pd.DataFrame(table, index=index, columns=names)
    frame.attrs = {
        "how": "posterior means of the gene embedding" if layer == 1 else f"layer {layer} of the gene decoder",
        "unit": "standard deviations of the prior" if layer == 1 else "activation",
        "sign": "positive: the gene rises with the factor" if layer == 1 else "none",
        "rotation": "none",
    }
    return frame
