"""What the counts of a group say beyond the decoder: how far off its mean may be, and how it is put right.

The decoder is one set of weights, fitted to noisy counts; the posterior of z does not know how far its means are off.
In group A let every expected count of gene g be off by one unknown factor F. With m_i = E[x_i] and v_i = Var[x_i] under
the fitted likelihood and w_i = m_i / v_i, sum_i w_i (x_i - F m_i) = 0 is the quasi-likelihood equation of F (Wedderburn
1974), and with a prior of mean 1 that is worth three counts

    F ~ Gamma(shape = 3 + sum_i w_i x_i, rate = 3 + sum_i w_i m_i).

Where the group has many counts, F follows them; where it has few, F stays near 1 and is as uncertain as they leave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lucidcell.readouts.expression import latent_sizes, parameters_at

if TYPE_CHECKING:
    from lucidcell.models.factor_model import FactorModel
    from lucidcell.readouts.scale_samples import Draws

CELLS_AT_A_TIME = 256
PRIOR_COUNT = 3.0  # how many counts the decoder's word is worth


class Correction(NamedTuple):
    """Gamma law of the factor of each gene: shape and rate, each (G,)."""

    shape: np.ndarray
    rate: np.ndarray

    def draw(self, genes: slice, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, genes) float64; the same numbers however the genes are divided into blocks."""
        shape = self.shape[genes, None]
        return (rng.standard_gamma(shape, (len(shape), n)) / self.rate[genes, None]).T


def correction(model: FactorModel, draws: Draws) -> Correction:
    """Law of the factors for a group, at its draws of z and each cell in its own batch."""
    observed, expected = np.zeros(model.schema.n_genes), np.zeros(model.schema.n_genes)
    with torch.no_grad():
        for start in range(0, len(draws.rows), CELLS_AT_A_TIME):
            rows = slice(start, start + CELLS_AT_A_TIME)
            batch = draws.cells.take(draws.rows[rows])
            parameters = parameters_at(model, batch, draws.z[rows], latent_sizes(model, batch), [None])
            mean, variance = moments(parameters)
            weight = mean / variance
            observed += (weight * batch.counts.dense()).sum(0).double().numpy()
            expected += (weight * mean).sum(0).double().numpy()
    share = draws.n_cells / len(draws.rows)  # a cell drawn ten times is still one cell
    return Correction(PRIOR_COUNT + share * observed, PRIOR_COUNT + share * expected)


def moments(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the counts under the likelihood with these parameters, each (B, G)."""
    mean = parameters["mean"]
    variance = mean
    if "theta" in parameters:
        variance = variance + mean.square() / parameters["theta"]
    if "dropout" in parameters:
        kept = 1 - parameters["dropout"]
        mean, variance = kept * mean, kept * (variance + parameters["dropout"] * mean.square())
    tiny = torch.finfo(mean.dtype).tiny
    return mean.clamp_min(tiny), variance.clamp_min(tiny)
