"""Where training starts: the parts of a count model that the data determine before any gradient step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.models.scvi import SCVIModule

PSEUDO_COUNT = 0.1
INVERSE_THETA = (0.05, 20.0)  # bounds of the moment estimate of 1 / theta


def from_data(module: SCVIModule, cells: Cells) -> None:
    """Set decoder bias, log theta, library prior and library encoder of an untrained module from the data, in place."""
    share, factorial = moments(cells)
    with torch.no_grad():
        bias = module.gene_bias()
        if bias is not None:
            bias.copy_(torch.from_numpy(np.log(share)))
        if module.config.gene_likelihood != "poisson":
            module.log_theta.copy_(torch.from_numpy(-np.log(inverse_theta(cells, share, factorial))))
        if module.config.gene_likelihood == "zinb":
            module.dropout_logit.bias.fill_(-2.0)
        prior = library_prior(cells)
        module.library_prior.copy_(torch.from_numpy(prior))
        if not module.config.use_observed_lib_size:
            module.library_mean.bias.fill_(prior[:, 0].mean())


def moments(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Share of each gene in all counts, with a pseudo-count, and mean of x (x - 1) over cells, both (G,); one pass."""
    totals, factorial = np.full(cells.n_genes, PSEUDO_COUNT), np.zeros(cells.n_genes)
    for _, genes, x, n_genes in cells.counts.blocks():
        totals += np.bincount(genes, weights=x, minlength=n_genes)
        factorial += np.bincount(genes, weights=x.astype(float) * (x - 1.0), minlength=n_genes)
    return totals / totals.sum(), factorial / len(cells)


def inverse_theta(cells: Cells, share: np.ndarray, factorial_moment: np.ndarray) -> np.ndarray:
    """Moment estimate of 1 / theta, (G,): E[x (x - 1)] = E[mu^2] (1 + 1 / theta) with mu = library x share."""
    squared_mean = np.square(cells.library, dtype=float).mean() * share**2
    return np.clip(factorial_moment / squared_mean - 1, *INVERSE_THETA)


def library_prior(cells: Cells) -> np.ndarray:
    """Mean and standard deviation of the log library by batch, (S, 2)."""
    logs = np.log(cells.library.astype(float))
    prior = np.empty((cells.schema.n_batches, 2))
    for s in range(cells.schema.n_batches):
        values = logs[cells.batch == s]
        prior[s] = (values.mean(), max(values.std(), 0.01)) if len(values) else (logs.mean(), max(logs.std(), 0.01))
    return prior
