"""Posterior predictive checks: does data drawn from the model look like the data it was fitted to?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.readouts.expression import predictive_draws

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.factor_model import FactorModel


class _Moments:
    """Running mean, coefficient of variation and zero fraction of every gene."""

    def __init__(self, n_genes: int) -> None:
        self.n, self.sum, self.squares, self.zeros = 0, np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)

    def add(self, counts: np.ndarray) -> None:
        self.n += len(counts)
        self.sum += counts.sum(0, dtype=float)
        self.squares += np.square(counts, dtype=float).sum(0)
        self.zeros += (counts == 0).sum(0)

    def table(self, name: str) -> dict[str, np.ndarray]:
        mean = self.sum / self.n
        variance = np.maximum(self.squares / self.n - mean**2, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            cv = np.where(mean > 0, np.sqrt(variance) / mean, np.nan)
        return {f"mean_{name}": mean, f"cv_{name}": cv, f"zero_fraction_{name}": self.zeros / self.n}


def predictive_check(
    model: FactorModel,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    n_samples: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean, coefficient of variation and zero fraction of each gene over cells, observed and drawn from the model.

    One row for each gene, columns mean_, cv_ and zero_fraction_, each _observed and _expected.
    """
    observed, expected = _Moments(model.schema.n_genes), _Moments(model.schema.n_genes)
    for batch, draws in predictive_draws(model, adata, indices, n_samples=n_samples, seed=seed):
        observed.add(batch.counts.dense().numpy())
        for draw in draws:
            expected.add(draw.numpy())
    columns = observed.table("observed") | expected.table("expected")
    return pd.DataFrame(columns, index=pd.Index(model.schema.gene_names, name="gene"))
