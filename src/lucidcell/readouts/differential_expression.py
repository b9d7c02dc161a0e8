"""Differential expression: which genes differ between two groups of cells, by how much, and how sure that is.

With e_g the expression of a cell decoded in every batch that both groups have, averaged over these batches (weights w):

    vanilla   K_g = log p(H1) / p(H2),   H1: e_g(a) > e_g(b),   over all pairs of draws for cells a and b of the groups;
              `batch_average="probability"` is the integral as printed, sum_s w_s P(f_g(z_a, s) > f_g(z_b, s))
    change    the posterior of LFC_g = log2 (mean_A e_g + c) / (mean_B e_g + c), and from it P(|LFC_g| > delta)

In "change" the group means are draws: a Bayesian bootstrap over the draws of e of the group's cells, times the factor
by which the group's counts say that the decoder is off (`count_corrections`). The LFC of all genes are then seen
together (`shrinkage`). `calibrate=False` leaves out the last two; with `pairs=True`, random pairs of cells take the
place of the group means, as in scvi-tools.

Reference: Lopez et al. (2018), Nature Methods 15, 1053; Boyeau et al. (2019), bioRxiv 794289; Xu et al. (2021), Mol.
Syst. Biol. 17, e9620. docs/differential_expression.md says where we differ, and what that changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.errors import SettingError
from lucidcell.readouts import effect_sizes
from lucidcell.readouts.fold_changes import change
from lucidcell.readouts.groups import Comparison, GroupNames, Selection, by_group, by_selection, groups_of
from lucidcell.readouts.scale_samples import Batches, Draws, DrawZ, draw, expression_blocks, shared_batches

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.cells import Cells
    from lucidcell.models.factor_model import FactorModel

PSEUDO_MEAN = 1e-3  # default pseudocount, in counts per cell of median library
NORMALISED_TO = 1e4  # counts per cell, of raw_normalized_mean
CHOICES = {
    "mode": ("change", "vanilla"),
    "batch_average": ("expression", "probability"),
    "batch_weights": ("empirical", "uniform"),
    "scanvi_latent": ("aggregate", "prior", "cells", None),
}


@dataclass(frozen=True)
class Settings:
    """What is tested, and how; as in `FactorModel.differential_expression`."""

    mode: str = "change"
    delta: float = 0.25
    fdr: float = 0.05
    pairs: bool = False
    calibrate: bool = True
    batch_correction: bool = True
    batch_average: str = "expression"
    batch_weights: str = "empirical"
    n_samples_overall: int = 5000
    pseudocounts: float | None = None
    scanvi_latent: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(map(str, allowed))}."
                )
        if not 0 < self.fdr < 1:
            raise SettingError(f"fdr is {self.fdr!r}; it must lie between 0 and 1.")
        if not 0 <= self.delta < np.inf:
            raise SettingError(f"delta is {self.delta!r}; it must be a finite number of at least 0.")
        if self.n_samples_overall < 2:
            raise SettingError(f"n_samples_overall is {self.n_samples_overall!r}; it must be at least 2.")
        if self.pseudocounts is not None and not 0 < self.pseudocounts < 1:
            raise SettingError(
                f"pseudocounts is {self.pseudocounts!r}; it is added to shares of a cell's counts, so it must lie "
                "between 0 and 1, such as 1e-6."
            )
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.mode == "vanilla" and self.pairs:
            raise SettingError("pairs=True is for mode='change'; mode='vanilla' always compares pairs of cells.")
        if self.mode == "change" and self.batch_average == "probability":
            raise SettingError(
                "batch_average='probability' is for mode='vanilla'; mode='change' averages expression over batches."
            )
        if self.mode == "change" and self.delta == 0 and (self.pairs or not self.calibrate):
            raise SettingError(
                "delta=0 asks whether a change is exactly 0, to which only calibrate=True without pairs gives a "
                "probability: pass a delta above 0."
            )


def differential_expression(
    model: FactorModel,
    adata: AnnData | None,
    groupby: str | None,
    group1: GroupNames,
    group2: str | None,
    idx1: Selection | None,
    idx2: Selection | None,
    settings: Settings,
) -> pd.DataFrame:
    """One row for each gene and comparison; see `FactorModel.differential_expression`."""
    cells = model.cells_of(adata)
    if idx1 is not None:
        if groupby is not None or group1 is not None or group2 is not None:
            raise SettingError("idx1 was given together with groupby, group1 or group2: give one or the other.")
        law = model.law_of_z(settings.scanvi_latent, None)
        return compare(model, cells, [by_selection(len(cells), adata, idx1, idx2)], settings, law)
    if idx2 is not None:
        raise SettingError("idx2 was given without idx1: give both, or idx1 alone to compare it with all other cells.")
    groups = model.own_groups(adata) if groupby is None else groups_of(cells, adata, groupby)
    law = model.law_of_z(settings.scanvi_latent, groups)
    table = compare(model, cells, by_group(groups, group1, group2), settings, law)
    table.attrs["groupby"] = groups.key
    return table


def compare(
    model: FactorModel, cells: Cells, comparisons: list[Comparison], settings: Settings, draw_z: DrawZ
) -> pd.DataFrame:
    """Table of several comparisons of cells, one below the other, at draws of z from the law `draw_z`."""
    table = pd.concat([_one_comparison(model, cells, one, settings, draw_z) for one in comparisons])
    table.attrs = {"mode": settings.mode, "delta": settings.delta, "fdr": settings.fdr, "seed": settings.seed}
    return table


def _one_comparison(
    model: FactorModel, cells: Cells, comparison: Comparison, settings: Settings, draw_z: DrawZ
) -> pd.DataFrame:
    batches = shared_batches(cells, comparison, settings.batch_weights, settings.batch_correction)
    draws = [
        draw(cells, rows, settings.n_samples_overall, settings.seed, draw_z)
        for rows in (comparison.rows1, comparison.rows2)
    ]
    pseudocount = (
        PSEUDO_MEAN / float(np.median(cells.library)) if settings.pseudocounts is None else settings.pseudocounts
    )
    vanilla = settings.mode == "vanilla"
    columns = (_vanilla if vanilla else _change)(model, draws, batches, settings, pseudocount)
    table = pd.DataFrame(
        columns | _observed(cells, comparison), index=pd.Index(model.schema.gene_names, name="gene")
    ).assign(
        comparison=f"{comparison.group1} vs {comparison.group2}", group1=comparison.group1, group2=comparison.group2
    )
    if vanilla:
        return table.sort_values(["bayes_factor", "lfc_mean"], ascending=False, kind="stable")
    return table.sort_values(["lfc_sure", "proba_de", "lfc_mean"], key=np.abs, ascending=False, kind="stable")


def _vanilla(
    model: FactorModel, draws: list[Draws], batches: Batches, settings: Settings, pseudocount: float
) -> dict[str, np.ndarray]:
    """Probability of higher expression in group 1, and its Bayes factor."""
    scales, higher = np.zeros((2, model.schema.n_genes)), np.zeros(model.schema.n_genes)
    average = settings.batch_average == "expression"
    weights = (1.0,) if average else batches.weights
    for genes, (first, second) in expression_blocks(model, draws, batches, average=average):
        for weight, one, other in zip(weights, first, second, strict=True):
            higher[genes] += weight * effect_sizes.probability_higher(one, other)
            scales[:, genes] += weight * np.stack([one.mean(0, dtype=float), other.mean(0, dtype=float)])
    return {
        "proba_m1": higher,
        "proba_m2": 1 - higher,
        "bayes_factor": effect_sizes.bayes_factor(higher, 1 - higher, effect_sizes.SMALLEST_FROM_DRAWS),
        "lfc_mean": effect_sizes.log_fold_change(scales[0], scales[1], pseudocount),
        "scale1": scales[0],
        "scale2": scales[1],
    }


def _change(
    model: FactorModel, draws: list[Draws], batches: Batches, settings: Settings, pseudocount: float
) -> dict[str, np.ndarray]:
    """Posterior of the log fold change, and of its being larger than delta."""
    found = change(
        model,
        draws,
        batches,
        delta=settings.delta,
        pseudocount=pseudocount,
        pairs=settings.pairs,
        calibrate=settings.calibrate,
        seed=settings.seed,
    )
    computed = settings.calibrate and not settings.pairs
    smallest = effect_sizes.SMALLEST if computed else effect_sizes.SMALLEST_FROM_DRAWS
    return {
        "proba_de": found.probability,
        "proba_not_de": found.complement,
        "bayes_factor": effect_sizes.bayes_factor(found.probability, found.complement, smallest),
        "is_de": effect_sizes.expected_fdr(found.complement) <= settings.fdr,
        "lfc_sure": effect_sizes.surely(found.low, found.high),
        "lfc_mean": found.mean,
        "lfc_median": found.median,
        "lfc_std": found.sd,
        "lfc_low": found.low,
        "lfc_high": found.high,
        "scale1": found.scales[0],
        "scale2": found.scales[1],
    }


def _observed(cells: Cells, comparison: Comparison) -> dict[str, np.ndarray]:
    """What was counted in each group: mean, fraction of cells that have the gene, mean at 10,000 counts per cell."""
    found: dict[str, np.ndarray] = {}
    for side, rows in (("1", comparison.rows1), ("2", comparison.rows2)):
        sums = dict.fromkeys(("raw_mean", "non_zeros_proportion", "raw_normalized_mean"), np.zeros(cells.n_genes))
        for block in cells.counts.select(rows).blocks():
            per_count = np.repeat(NORMALISED_TO / np.maximum(block.sums(), 1), block.lengths())
            values = (block.values, block.values > 0, block.values * per_count)
            for name, value in zip(sums, values, strict=True):
                sums[name] = sums[name] + np.bincount(block.indices, value, cells.n_genes)
        found |= {name + side: total / len(rows) for name, total in sums.items()}
    return dict(sorted(found.items(), key=lambda item: item[0][:-1]))
