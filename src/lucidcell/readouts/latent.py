"""Cells x factors: the latent representation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lucidcell.readouts.random import draws, seeded

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.cells import Cells
    from lucidcell.models.factor_model import FactorModel


def latent_distribution(
    model: FactorModel, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of q(z | x), each (n, D), before the softmax of a logistic-normal latent."""
    return distribution_of_cells(model, model.cells_of(adata, indices), batch_size)


def distribution_of_cells(
    model: FactorModel, cells: Cells, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The same for cells that have been read."""
    means, variances = [], []
    with torch.no_grad():
        for batch in model.batches(cells, batch_size):
            posterior = model.vae.encode(batch)
            means.append(posterior.mu.numpy())
            variances.append(posterior.sigma.square().numpy())
    return np.concatenate(means), np.concatenate(variances)


def latent_mean(model: FactorModel, cells: Cells, mc_samples: int, batch_size: int | None, seed: int) -> np.ndarray:
    """Posterior mean of the latent factors, (n, D); of a logistic normal by Monte Carlo."""
    mu, variance = distribution_of_cells(model, cells, batch_size)
    if model.vae.config.latent_distribution == "normal":
        return mu
    total = np.zeros_like(mu)
    with seeded(seed):
        loc, scale = torch.from_numpy(mu), torch.from_numpy(variance).sqrt()
        for _ in draws(mc_samples, "mc_samples"):
            total += model.vae.link(loc + scale * torch.randn_like(scale)).numpy()
    return total / mc_samples


def latent_samples(
    model: FactorModel,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    n_samples: int,
    batch_size: int | None,
    seed: int,
    *,
    linked: bool = True,
) -> np.ndarray:
    """Draws from q(z | x), (n, D), or (n_samples, n, D) for more than one; after the softmax if `linked`."""
    link = model.vae.link if linked else torch.nn.Identity()
    mu, variance = latent_distribution(model, adata, indices, batch_size)
    with seeded(seed):
        loc, scale = torch.from_numpy(mu), torch.from_numpy(variance).sqrt()
        drawn = [link(loc + scale * torch.randn_like(scale)).numpy() for _ in draws(n_samples)]
    return drawn[0] if n_samples == 1 else np.stack(drawn)


def latent_library(model: FactorModel, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Library size of each cell, (n,): the median of q(l | x), or the observed one where it is not latent."""
    sizes = []
    with torch.no_grad():
        for batch in model.batches(model.cells_of(adata, indices)):
            posterior = model.vae.encode(batch)
            latent = posterior.library_mu
            sizes.append(batch.library.numpy() if latent is None else latent.exp().numpy())
    return np.concatenate(sizes)
