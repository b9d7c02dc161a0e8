"""Cells x genes: expression as the model sees it, free of library size and, if asked, of batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from lucidcell.cells.covariates import category_text
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.random import draws, seeded

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.cells.cells import Cells
    from lucidcell.models.factor_model import FactorModel


def batch_codes(model: FactorModel, transform_batch: str | Sequence[str] | None) -> list[int | None]:
    """Codes of the batches to decode as; None keeps each cell's own."""
    if transform_batch is None:
        return [None]
    given = [transform_batch] if isinstance(transform_batch, str | int | float) else list(transform_batch)
    names = [category_text(name) for name in given]
    known = list(model.schema.batch_categories)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SettingError(f"transform_batch names {unknown}, which are no batches of this model: {', '.join(known)}.")
    return [known.index(name) for name in names]


def gene_positions(model: FactorModel, gene_list: Sequence[str] | None) -> np.ndarray:
    """Positions of genes by name; all of them for None."""
    if gene_list is None:
        return np.arange(model.schema.n_genes)
    position = {name: g for g, name in enumerate(model.schema.gene_names)}
    wanted = [gene_list] if isinstance(gene_list, str) else list(gene_list)
    unknown = [name for name in wanted if name not in position]
    if unknown:
        raise DataError(f"{len(unknown)} of {len(wanted)} genes are not in the model, such as {unknown[:3]}.")
    return np.array([position[name] for name in wanted], dtype=int)


def as_batch(batch: Batch, code: int | None) -> Batch:
    """The same cells as if they came from the batch with this code."""
    return batch if code is None else batch._replace(batch=torch.full_like(batch.batch, code))


def sampled_rho(model: FactorModel, batch: Batch, codes: Sequence[int | None], *, use_mean: bool) -> Tensor:
    """rho (B, G) averaged over the batches in `codes`, at the mean of q(z | x) or at one draw."""
    vae = model.vae
    posterior = vae.encode(batch)
    z = vae.link(posterior.mu) if use_mean else vae.sample_z(posterior)
    rhos = [vae.expression(z, vae.design(as_batch(batch, code))) for code in codes]
    return torch.stack(rhos).mean(0)


def normalized_expression(
    model: FactorModel,
    cells: Cells,
    *,
    transform_batch: str | Sequence[str] | None,
    gene_list: Sequence[str] | None,
    library_size: float | str,
    n_samples: int,
    return_mean: bool,
    batch_size: int | None,
    seed: int,
) -> np.ndarray:
    """Expression (n, genes), or (n_samples, n, genes) where the samples are not averaged."""
    if isinstance(library_size, str) and library_size != "latent":
        raise SettingError(f"library_size is {library_size!r}; it must be a number or 'latent'.")
    codes, genes = batch_codes(model, transform_batch), gene_positions(model, gene_list)
    found = []
    with seeded(seed):
        for batch in model.batches(cells, batch_size):
            drawn = []
            for _ in draws(n_samples):
                rho = sampled_rho(model, batch, codes, use_mean=n_samples == 1)[:, genes]
                size = latent_sizes(model, batch) if library_size == "latent" else float(library_size)
                drawn.append((rho * size).numpy())
            found.append(np.mean(drawn, axis=0) if return_mean else np.stack(drawn))
    return np.concatenate(found, axis=0 if return_mean else 1)


def latent_sizes(model: FactorModel, batch: Batch) -> Tensor:
    """Library size of each cell, (B, 1): the median of q(l | x), or the observed one where it is not latent."""
    posterior = model.vae.encode(batch)
    return (batch.library if posterior.library_mu is None else posterior.library_mu.exp())[:, None]


def likelihood_parameters(
    model: FactorModel, batch: Batch, codes: Sequence[int | None], *, use_mean: bool
) -> dict[str, Tensor]:
    """Parameters of p(x | z, l) of a batch, each (B, G): mean and, where there are, theta and dropout probability."""
    vae = model.vae
    posterior = vae.encode(batch)
    z = vae.link(posterior.mu) if use_mean else vae.sample_z(posterior)
    library = latent_sizes(model, batch) if use_mean else vae.sample_log_library(posterior, batch).exp()[:, None]
    return parameters_at(model, batch, z, library, codes)


def parameters_at(
    model: FactorModel, batch: Batch, z: Tensor, library: Tensor, codes: Sequence[int | None]
) -> dict[str, Tensor]:
    """The same at given z (B, D) and library sizes (B, 1)."""
    vae, config = model.vae, model.vae.config
    designs = [vae.design(as_batch(batch, code)) for code in codes]
    rho = torch.stack([vae.decode(z, design).exp() for design in designs]).mean(0)
    parameters = {"mean": rho * library}
    if config.gene_likelihood != "poisson":
        groups = [vae.group(as_batch(batch, code)) for code in codes]
        theta = vae.log_theta.exp()
        thetas = [theta.expand(batch.n_cells, -1) if group is None else theta[group] for group in groups]
        parameters["theta"] = torch.stack(thetas).mean(0)
    if config.gene_likelihood == "zinb":
        parameters["dropout"] = torch.stack([vae.dropout(z, design) for design in designs]).mean(0)
    return parameters


def sample_counts(parameters: dict[str, Tensor]) -> Tensor:
    """One draw of counts, (B, G), from the likelihood with these parameters; uses torch's global stream."""
    mean = parameters["mean"]
    if "theta" in parameters:
        theta = parameters["theta"]
        mean = torch._standard_gamma(theta.contiguous()) * (mean / theta)
    counts = torch.poisson(mean)
    if "dropout" in parameters:
        counts *= torch.rand_like(counts) >= parameters["dropout"]
    return counts


def predictive_draws(
    model: FactorModel,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    *,
    transform_batch: str | Sequence[str] | None = None,
    n_samples: int = 1,
    seed: int = 0,
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches with counts drawn from the posterior predictive distribution, (n_samples, B, G)."""
    codes = batch_codes(model, transform_batch)
    with seeded(seed):
        for batch in model.batches(model.cells_of(adata, indices), 256):
            parameters = (likelihood_parameters(model, batch, codes, use_mean=False) for _ in draws(n_samples))
            yield batch, torch.stack([sample_counts(one) for one in parameters])


def gene_correlation(
    model: FactorModel,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    *,
    n_samples: int,
    transform_batch: str | Sequence[str] | None,
    correlation_type: str,
    rna_size_factor: float,
    seed: int,
) -> pd.DataFrame:
    """Gene x gene correlation of expression drawn from the posterior, library size and Poisson noise removed."""
    if correlation_type not in ("pearson", "spearman"):
        raise SettingError(f"correlation_type is {correlation_type!r}; it must be 'pearson' or 'spearman'.")
    codes, drawn = batch_codes(model, transform_batch), []
    with seeded(seed):
        for batch in model.batches(model.cells_of(adata, indices), 256):
            for _ in draws(n_samples):
                parameters = likelihood_parameters(model, batch, codes, use_mean=False)
                mean = parameters["mean"] / parameters["mean"].sum(1, keepdim=True) * rna_size_factor
                if "theta" in parameters:
                    theta = parameters["theta"].contiguous()
                    mean = torch._standard_gamma(theta) * (mean / theta)
                drawn.append(mean.numpy())
    values = np.concatenate(drawn)
    if correlation_type == "spearman":
        from scipy.stats import rankdata

        values = rankdata(values, axis=0).astype(np.float32)
    names = list(model.schema.gene_names)
    return pd.DataFrame(np.corrcoef(values, rowvar=False), index=names, columns=names)
