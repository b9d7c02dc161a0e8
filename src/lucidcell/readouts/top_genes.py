"""The genes that say most about a factor."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.arguments import require_whole

SIGNS = ("positive", "negative", "both")


def gene_signal(loadings: pd.DataFrame, mean_counts: pd.Series | np.ndarray) -> pd.DataFrame:
    """Loadings x the square root of the gene's mean count: how much a gene of one cell tells about the factor.

    For Poisson counts with mean m and loading l = d log m / dz, the Fisher information about z is m l^2. By the loading
    alone, genes that are hardly ever seen lead every list, because nothing in the data holds their loadings down.

    Parameters
    ----------
    loadings
        Genes x factors.
    mean_counts
        Mean count of each gene, (G,).
    """
    counts = np.asarray(mean_counts, float)
    if counts.shape != (len(loadings),):
        raise DataError(f"mean_counts has shape {counts.shape} for {len(loadings)} genes: pass one number for each.")
    table = loadings.mul(np.sqrt(np.nan_to_num(counts)), axis=0)
    table.attrs = loadings.attrs | {"unit": "loading x square root of the mean count per cell"}
    return table


def top_genes(loadings: pd.DataFrame, n: int = 20, *, sign: str = "positive") -> pd.DataFrame:
    """The genes with the largest values of each factor.

    Parameters
    ----------
    loadings
        Genes x factors: loadings, or their `gene_signal`.
    n
        Genes for each factor, and each end.
    sign
        "positive" and "negative": the genes at one end, those beyond 0 only; "both": first the positive end, then the
        negative one.

    Returns
    -------
    DataFrame with one row for each gene: factor, sign ("+" or "-"), rank (from 1), gene, value.

    Raises
    ------
    SettingError
        If an argument has no meaning.
    """
    if sign not in SIGNS:
        raise SettingError(f"sign is {sign!r}; it must be one of {', '.join(SIGNS)}.")
    require_whole(n, "n", 1)
    ends = {"+": 1.0, "-": -1.0} if sign == "both" else {"+": 1.0} if sign == "positive" else {"-": -1.0}
    rows, genes = [], np.asarray(loadings.index)
    for factor in loadings.columns:
        values = loadings[factor].to_numpy(float)
        for mark, direction in ends.items():
            order = np.argsort(-direction * values, kind="stable")[:n]
            order = order[direction * values[order] > 0]
            rows += [(factor, mark, rank, genes[g], values[g]) for rank, g in enumerate(order, start=1)]
    return pd.DataFrame(rows, columns=["factor", "sign", "rank", "gene", "value"])
