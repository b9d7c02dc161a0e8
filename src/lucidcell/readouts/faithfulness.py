"""Does a table of genes x factors say what drives the factors? Genes are switched off, and the factors move or do not.

For a factor d, genes are ranked by the absolute value of their number in the table. In every cell the first k of them
are switched off in the encoder's input (deletion), or all but the first k (insertion), and the factor moves by

    m(k) = sqrt(mean over cells of (z_d without - z_d)^2) / sd(z_d).

Off is a count of 0 with the library as it was, or the gene's mean for data that are no counts. The same is done for
random rankings in which each gene is replaced by one of equal mean expression. With D and I the means of m over k on a
logarithmic grid, for deletion and insertion,

    faithfulness_d = [log2(D / D_random) + log2(I_random / I)] / 2

is 0 for a table no better than chance, and 1 for one whose genes move the factor, and restore it, twice as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import DataError, SettingError
from lucidcell.maths.chain import after_first
from lucidcell.maths.sampling import some_rows
from lucidcell.readouts.arguments import require_whole

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.models.factor_model import FactorModel

MOST_CELLS = 1000
GENES_OF_A_BIN = 50  # among which a random gene of equal expression is drawn
GRID = (1, 2, 5)  # times powers of ten


def faithfulness(
    model: FactorModel,
    table: pd.DataFrame | None = None,
    adata: AnnData | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_random: int = 19,
    seed: int = 0,
) -> pd.DataFrame:
    """How much more a factor's top genes move it than random genes of equal expression do, factor by factor.

    Parameters
    ----------
    model
        A trained model.
    table
        Genes x factors, (G, D): loadings, attributions, or any other numbers for the model's own factors; None for
        `model.readable_loadings()`. If its `attrs` name a rotation, it is the rotated factors that must move.
    adata, indices
        Cells; for None at most 1,000 of the training data.
    n_random
        Random rankings for each factor.
    seed
        Of the random rankings.

    Returns
    -------
    DataFrame, one row per factor: "faithfulness" (in powers of two; 0 for random, higher is better), "deletion" and
    "insertion" (mean movement of the factor in standard deviations; high and low are good), "deletion_random",
    "insertion_random", and "p_value": the share of rankings, the table's among them, that are at least as faithful.

    Raises
    ------
    DataError
        If the table is not of this model's genes and factors, or holds NaN.
    SettingError
        If `n_random` is no whole number of at least 1.
    """
    curves = faithfulness_curves(model, table, adata, indices=indices, n_random=n_random, seed=seed)
    means = curves.groupby(["factor", "ranking", "curve"], sort=False)["movement"].mean().unstack("curve")
    rows = []
    for factor, one in means.groupby(level="factor", sort=False):
        one = one.droplevel("factor").clip(lower=1e-12)
        of_table, random = one.loc[0], one.drop(index=0)
        middle = np.exp(np.log(random).mean())
        scores = (np.log2(one["deletion"] / middle["deletion"]) + np.log2(middle["insertion"] / one["insertion"])) / 2
        rows.append(
            {
                "factor": factor,
                "faithfulness": scores.loc[0],
                "deletion": of_table["deletion"],
                "deletion_random": middle["deletion"],
                "insertion": of_table["insertion"],
                "insertion_random": middle["insertion"],
                "p_value": float((scores >= scores.loc[0]).mean()),
            }
        )
    return pd.DataFrame(rows).set_index("factor")


def faithfulness_curves(
    model: FactorModel,
    table: pd.DataFrame | None = None,
    adata: AnnData | None = None,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    n_random: int = 19,
    seed: int = 0,
) -> pd.DataFrame:
    """The curves behind `faithfulness`, arguments as there.

    Returns
    -------
    DataFrame with the columns "factor", "ranking" (0 for the table's, 1 to `n_random` for random ones), "curve"
    ("deletion" or "insertion"), "n_genes" (k) and "movement" (m(k), in standard deviations of the factor).
    """
    require_whole(n_random, "n_random", 1)
    numbers = _checked(model, model.readable_loadings() if table is None else table)
    rotation = _rotation(model, numbers)
    rng = np.random.default_rng(seed)
    frames = []
    with torch.no_grad():
        switch = Switch(model, adata, indices, rotation)
        bins = expression_bins(switch.mean)
        for d, factor in enumerate(numbers.columns):
            order = rng.permutation(len(numbers))  # of genes with the same number
            order = order[np.argsort(-np.abs(numbers.iloc[order, d].to_numpy()), kind="stable")]
            for ranking in range(n_random + 1):
                genes = order if ranking == 0 else matched_ranking(order, bins, rng)
                found = switch.movements(genes, d)
                frames.append(found.assign(factor=factor, ranking=ranking))
    curves = pd.concat(frames, ignore_index=True)
    return curves[["factor", "ranking", "curve", "n_genes", "movement"]]


def expression_bins(mean: np.ndarray) -> np.ndarray:
    """Number of the bin of each gene, (G,): bins of about 50 genes of similar mean expression."""
    n_bins = max(1, len(mean) // GENES_OF_A_BIN)
    rank = np.empty(len(mean), int)
    rank[np.argsort(mean, kind="stable")] = np.arange(len(mean))
    return rank * n_bins // len(mean)


def matched_ranking(order: np.ndarray, bins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random ranking in which each place has a gene of the same bin as in `order`."""
    result = np.empty_like(order)
    of_place = bins[order]
    for one in np.unique(bins):
        result[of_place == one] = rng.permutation(np.flatnonzero(bins == one))
    return result


class Switch:
    """The encoder of a model over some cells, in which genes can be switched off."""

    def __init__(
        self,
        model: FactorModel,
        adata: AnnData | None,
        indices: Sequence[int] | np.ndarray | None,
        rotation: np.ndarray | None,
    ) -> None:
        vae, cells = model.vae, model.cells_of(adata, indices)
        if indices is None:
            cells = cells.select(some_rows(len(cells), MOST_CELLS))
        batch = cells.take(np.arange(len(cells)))
        x, covariates = vae.dense_inputs(batch)
        self.vae, self.chain = vae, vae.encoder_chain(covariates)
        self.rotation = None if rotation is None else torch.from_numpy(rotation).to(x.dtype)
        off = vae.switched_off()
        self.change = x - off
        self.mean = batch.counts.dense().abs().mean(0).numpy()
        first = self.chain[0]
        self.on_sums, self.off_sums = (inputs @ first.weight.t() + first.shift for inputs in (x, off.expand_as(x)))
        self.z = self._factors(self.on_sums)
        self.grid = [k for power in (10**p for p in range(8)) for k in (power * g for g in GRID) if k < x.shape[1]]

    def movements(self, genes: np.ndarray, d: int) -> pd.DataFrame:
        """Deletion and insertion of genes in this order."""
        weight, moved = self.chain[0].weight, torch.zeros_like(self.on_sums)
        rows, before = [], 0
        for k in self.grid:
            new = torch.from_numpy(genes[before:k])
            moved, before = moved + self.change[:, new] @ weight[:, new].t(), k
            rows.append(("deletion", k, self._movement(self.on_sums - moved, d)))
            rows.append(("insertion", k, self._movement(self.off_sums + moved, d)))
        return pd.DataFrame(rows, columns=["curve", "n_genes", "movement"])

    def _movement(self, sums: Tensor, d: int) -> float:
        spread = self.z[:, d].std().clamp(min=1e-12)
        return float((self._factors(sums)[:, d] - self.z[:, d]).square().mean().sqrt() / spread)

    def _factors(self, sums: Tensor) -> Tensor:
        z = self.vae.link(after_first(self.chain, sums))
        return z if self.rotation is None else z @ self.rotation


def _checked(model: FactorModel, table: pd.DataFrame) -> pd.DataFrame:
    rotated = table.attrs.get("rotation", "none") != "none" and len(table.columns) == len(model.factor_names)
    if list(table.columns) != model.factor_names and not rotated:
        raise DataError(
            f"the table has the columns {', '.join(map(str, table.columns[:5]))}, and the model the factors "
            f"{', '.join(model.factor_names[:5])}; give a table of this model, all factors in their order."
        )
    if not table.index.is_unique or set(table.index) != set(model.schema.gene_names):
        raise DataError(
            f"the table has {len(table)} rows, and they are not the {model.schema.n_genes} genes of the model."
        )
    table = table.loc[list(model.schema.gene_names)]
    if n_bad := int((~np.isfinite(table.to_numpy(float))).sum()):
        raise DataError(f"the table holds {n_bad} values that are NaN or infinite; every gene needs a number.")
    return table


def _rotation(model: FactorModel, table: pd.DataFrame) -> np.ndarray | None:
    name = table.attrs.get("rotation", "none")
    if name == "none":
        return None
    try:
        return model.rotation(name)
    except SettingError as error:
        raise DataError(f"the table's factors are rotated by {name!r}, which this model cannot do: {error}") from error
