"""ComBat (Johnson, Li and Rabinovic 2007) through scanpy, then principal components."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize, principal_components
from lucidcell.errors import DataError
from lucidcell.metrics.checks import groups


def combat(counts: Any, batch: ArrayLike, *, n_components: int = 50, seed: int = 0) -> np.ndarray:
    """Principal components of expression after ComBat, (n, n_components).

    Genes that do not vary within some batch stay as they are, as in the R package sva.

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    batch
        Batch of each cell, (n,); each batch needs two cells.
    n_components, seed
        Of the principal components.

    Raises
    ------
    DataError
        If the counts or batches cannot be used.
    SettingError
        If there are too few cells or genes.
    """
    import anndata
    import scanpy as sc

    logged = log_normalize(counts)
    batches = groups(batch, "batch", logged.shape[0], at_least=2)
    if batches.sizes.min() < 2:
        alone = batches.names[batches.sizes.argmin()]
        raise DataError(f"batch {alone!r} holds a single cell, and ComBat needs two: leave it out.")
    x = logged.toarray()
    varies = np.all([x[batches.codes == code].std(0) > 1e-12 for code in range(len(batches.names))], axis=0)
    if not varies.any():
        raise DataError(f"none of the {x.shape[1]} genes varies in every batch, so ComBat has nothing to adjust.")
    cells = anndata.AnnData(
        x[:, varies],
        obs=pd.DataFrame({"batch": pd.Categorical(batches.codes)}, index=np.arange(len(x)).astype(str)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scanpy, about its own future
        x[:, varies] = sc.pp.combat(cells, key="batch", inplace=False)
    return principal_components(x, n_components, seed)
