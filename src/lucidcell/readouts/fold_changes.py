"""The posterior of log fold changes: of the means of two groups, or of random pairs of their cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lucidcell.readouts import effect_sizes
from lucidcell.readouts.count_corrections import Correction, correction
from lucidcell.readouts.scale_samples import Batches, Draws, expression_blocks
from lucidcell.readouts.shrinkage import shrink

if TYPE_CHECKING:
    from lucidcell.models.factor_model import FactorModel

GROUP_MEANS = 1000  # draws of each group mean


class Change(NamedTuple):
    """Posterior of the log2 fold change of each gene, each (G,)."""

    probability: np.ndarray  # of |LFC| > delta
    complement: np.ndarray
    mean: np.ndarray
    median: np.ndarray
    sd: np.ndarray
    low: np.ndarray  # ends of the 95 % credible interval
    high: np.ndarray
    scales: np.ndarray  # (2, G): mean expression of each group


@dataclass(frozen=True)
class GroupMean:
    """Draws of the mean expression of one group."""

    weights: np.ndarray  # (R, N) of the draws of its cells
    correction: Correction | None
    rng: np.random.Generator

    def draw(self, expression: np.ndarray, genes: slice) -> np.ndarray:
        """(R, genes), from the expression (N, genes) of the group's draws; genes must come in order."""
        means = self.weights @ expression
        return means if self.correction is None else means * self.correction.draw(genes, len(means), self.rng)


def change(
    model: FactorModel,
    draws: list[Draws],
    batches: Batches,
    *,
    delta: float,
    pseudocount: float,
    pairs: bool,
    calibrate: bool,
    seed: int,
) -> Change:
    """Posterior of the change from the second to the first of two groups.

    Parameters
    ----------
    model, draws, batches
        The model, the draws of the two groups, and the batches to decode as.
    delta
        Smallest absolute log2 fold change that counts.
    pseudocount
        Added to both means, as a share of a cell's counts.
    pairs
        Compare random pairs of cells; otherwise group means.
    calibrate
        Correct group means by the counts, and see the log fold changes of all genes together.
    seed
        Of the draws of group means.
    """
    n_genes = model.schema.n_genes
    groups = [] if pairs else [_group_mean(model, one, calibrate=calibrate, seed=seed) for one in draws]
    scales, summary = np.zeros((2, n_genes)), np.zeros((6, n_genes))
    for genes, ((first,), (second,)) in expression_blocks(model, draws, batches, average=True):
        scales[:, genes] = first.mean(0, dtype=float), second.mean(0, dtype=float)
        means = (
            [first, second] if pairs else [one.draw(e, genes) for one, e in zip(groups, (first, second), strict=True)]
        )
        lfc = effect_sizes.log_fold_change(means[0], means[1], pseudocount)
        summary[:, genes] = _describe(lfc, delta)
    probability, mean, median, sd, low, high = summary
    if pairs or not calibrate:
        return Change(probability, 1 - probability, mean, median, sd, low, high, scales)
    posterior = shrink(mean, sd)
    probability, complement = posterior.outside(delta), posterior.within(delta)
    low, median, high = (posterior.quantile(p) for p in (effect_sizes.INTERVAL[0], 0.5, effect_sizes.INTERVAL[1]))
    return Change(probability, complement, posterior.mean, median, posterior.sd, low, high, scales)


def _group_mean(model: FactorModel, draws: Draws, *, calibrate: bool, seed: int) -> GroupMean:
    rng = draws.generator(seed, 1)
    weights = effect_sizes.bootstrap_weights(len(draws.rows), draws.n_cells, GROUP_MEANS, rng)
    return GroupMean(weights, correction(model, draws) if calibrate else None, rng)


def _describe(lfc: np.ndarray, delta: float) -> np.ndarray:
    """P(|LFC| > delta), mean, median, standard deviation and interval of each column, (6, genes)."""
    low, median, high = np.quantile(lfc, (effect_sizes.INTERVAL[0], 0.5, effect_sizes.INTERVAL[1]), axis=0)
    return np.stack([(np.abs(lfc) > delta).mean(0), lfc.mean(0), median, lfc.std(0), low, high])
