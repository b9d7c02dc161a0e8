"""How well the model fits cells: ELBO, reconstruction error, importance-sampled likelihood. Nats per cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from lucidcell.maths.likelihoods import gaussian_log_prob
from lucidcell.readouts.random import draws, seeded

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.models.factor_model import FactorModel


class Fit(NamedTuple):
    """Per cell, (n,): expected log-likelihood under q(z | x), and KL divergence."""

    log_likelihood: np.ndarray
    kl: np.ndarray

    @property
    def elbo(self) -> np.ndarray:
        return self.log_likelihood - self.kl


def fit_of_cells(
    model: FactorModel,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    n_samples: int = 1,
    seed: int = 0,
) -> Fit:
    """Terms of the ELBO (KL weight 1), the likelihood averaged over `n_samples` draws of z."""
    vae, likelihoods, divergences = model.vae, [], []
    with seeded(seed):
        for batch in model.batches(model.cells_of(adata, indices)):
            posterior = vae.encode(batch)
            total = torch.zeros(batch.n_cells)
            divergence = torch.zeros(batch.n_cells)
            for _ in draws(n_samples):
                log_library = vae.sample_log_library(posterior, batch)
                z = posterior.mu + posterior.sigma * torch.randn_like(posterior.sigma)
                total += vae.log_likelihood(batch, vae.logits(vae.link(z), vae.design(batch)), log_library).per_cell
                divergence += model.divergence(batch, posterior, z)
            likelihoods.append((total / n_samples).numpy())
            divergences.append((divergence / n_samples).numpy())
    return Fit(np.concatenate(likelihoods), np.concatenate(divergences))


def marginal_log_likelihood(
    model: FactorModel,
    adata: AnnData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    n_samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """log p(x) of each cell, (n,), by importance sampling from q(z | x): a tighter bound than the ELBO."""
    found = []
    with seeded(seed):
        for batch in model.batches(model.cells_of(adata, indices)):
            weights = torch.stack([_log_importance(model, batch) for _ in draws(n_samples, "n_mc_samples")])
            found.append((torch.logsumexp(weights, dim=0) - math.log(n_samples)).numpy())
    return np.concatenate(found)


def _log_importance(model: FactorModel, batch: Batch) -> Tensor:
    """log p(x, z, l) - log q(z, l | x) at one draw; the densities of z are those of the Gaussian before any softmax."""
    vae = model.vae
    posterior = vae.encode(batch)
    z = posterior.mu + posterior.sigma * torch.randn_like(posterior.sigma)
    log_library = vae.sample_log_library(posterior, batch)
    log_q = gaussian_log_prob(z, posterior.mu, posterior.sigma).sum(1)
    logits = vae.logits(vae.link(z), vae.design(batch))
    total = vae.log_likelihood(batch, logits, log_library).per_cell + model.log_prior(z) - log_q
    if posterior.library_mu is not None and posterior.library_sigma is not None:
        prior = vae.library_prior[batch.batch]
        total += gaussian_log_prob(log_library, prior[:, 0], prior[:, 1])
        total -= gaussian_log_prob(log_library, posterior.library_mu, posterior.library_sigma)
    return total
