"""Gene networks of populations (donors, cell lines), and how they differ with a phenotype (siVAE, Fig. 6).

Each population's cells are split into bins of equal size, each bin is fitted by a siVAE of its own, and the bins' gene
embeddings become networks:

    edge (f, g)   ||v_f - v_g|| is below the `quantile` of all pairs; the genes are the union of every bin's
                  `n_top_genes` most central ones, so all networks have the same genes and as many edges
    similarity    Weisfeiler-Lehman kernel between networks, averaged over the pairs of bins of two populations
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from lucidcell.cells.covariates import some
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.arguments import require_jobs, require_whole
from lucidcell.readouts.centrality import distance_centrality
from lucidcell.readouts.population_bins import FittedBin, fit_bins, mean_expression, own_folder, split
from lucidcell.readouts.population_graphs import network, principal_components, similarity, top_genes
from lucidcell.readouts.population_results import PopulationNetworks
from lucidcell.readouts.population_tests import phenotype_of_column, series_of

if TYPE_CHECKING:
    from anndata import AnnData

Centrality = Literal["explained", "distance"]


def population_networks(
    adata: AnnData,
    *,
    by: str = "donor",
    phenotype: str | Mapping[Any, Any] | pd.Series | None = None,
    bin_size: int = 1000,
    layer: str | None = None,
    model_arguments: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    n_bins_max: int | None = None,
    centrality: Centrality = "explained",
    quantile: float = 0.01,
    n_top_genes: int = 100,
    folder: str | Path | None = None,
    n_jobs: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> PopulationNetworks:
    """Fit a siVAE to bins of every population's cells, and compare the gene networks that they imply.

    Parameters
    ----------
    adata
        Cells of all populations.
    by
        Column of obs with the population of each cell.
    phenotype
        Column of obs, constant within populations, or a dict or Series from populations to values. Missing values are
        allowed.
    bin_size
        Cells of every fit. What is left over of a population is not used, nor is a population with fewer cells.
    layer
        Where the counts are; X by default.
    model_arguments
        Of `SIVAE`, such as `{"n_latent": 20}`.
    training
        Of `train`, such as `{"max_epochs": 100}`.
    n_bins_max
        Bins of a population at most.
    centrality
        "explained": share of a gene's variance that its model explains; "distance": length of its loadings.
    quantile
        Share of the pairs of genes that are edges.
    n_top_genes
        Most central genes of each bin whose union are the networks' genes.
    folder
        Keeps the result of every fit, so that a run that was cut off goes on where it stopped.
    n_jobs
        Fits at the same time, of one thread each; -1 for one on every core.
    seed
        Of the bins and of every fit.
    progress
        Show a progress bar.

    Raises
    ------
    DataError
        If fewer than two populations have a bin, or a population has several phenotypes.
    SettingError
        If an argument has no meaning, or the folder holds fits of other data or settings.
    """
    model_arguments, training = _checked(model_arguments, "model_arguments"), _checked(training, "training")
    require_whole(bin_size, "bin_size", 2)
    require_whole(n_top_genes, "n_top_genes", 2)
    require_whole(seed, "seed", 0)
    if n_bins_max is not None:
        require_whole(n_bins_max, "n_bins_max", 1)
    require_jobs(n_jobs)
    if centrality not in get_args(Centrality):
        raise SettingError(f"centrality is {centrality!r}; it must be {' or '.join(map(repr, get_args(Centrality)))}.")
    if isinstance(quantile, bool) or not isinstance(quantile, float | int) or not 0 < quantile < 1:
        raise SettingError(f"quantile is {quantile!r}; it must be between 0 and 1.")
    for key in (by, phenotype) if isinstance(phenotype, str) else (by,):
        if key not in adata.obs:
            raise DataError(f"obs has no column {key!r}; it has {some(list(adata.obs.columns))}.")
    bins, populations, dropped = split(adata.obs[by], bin_size=bin_size, n_bins_max=n_bins_max, seed=seed)
    values = None
    if isinstance(phenotype, str):
        values = phenotype_of_column(adata.obs[phenotype], adata.obs[by], populations)
    elif phenotype is not None:
        values = series_of(phenotype, populations)
    expression = mean_expression(adata, layer, bins, populations)
    settings = {"by": by, "bin_size": bin_size, "layer": layer, "seed": seed, "model": model_arguments}
    place = None
    if folder is not None:
        place = own_folder(folder, settings | {"training": training}, expression.checksum)
    fits = fit_bins(
        adata, bins, layer=layer, model_arguments=model_arguments, training=training, seed=seed, place=place,
        n_jobs=n_jobs, progress=progress,
    )  # fmt: skip
    of_bin = [one.population for one in bins]
    central = pd.DataFrame({b: _centrality(fit, centrality) for b, fit in enumerate(fits)})
    table = pd.DataFrame({"population": of_bin, "bin": [one.number for one in bins]})
    table = table.assign(n_cells=[len(one.rows) for one in bins], mean_centrality=central.mean())
    genes = top_genes(central, n_top_genes)
    adjacency = [
        network(fit.loadings.loc[genes].to_numpy(), quantile, fit.centrality.loc[genes].notna().to_numpy())
        for fit in fits
    ]
    kernel = similarity(adjacency, of_bin, populations)
    return PopulationNetworks(
        bins=table,
        dropped=dropped,
        centrality=central.T.groupby(of_bin).mean().T[populations],
        mean_expression=expression.mean.loc[central.index],
        genes=genes,
        networks={
            name: [one for one, other in zip(adjacency, of_bin, strict=True) if other == name] for name in populations
        },
        kernel=kernel,
        embedding=principal_components(kernel),
        phenotype=values,
        depth=expression.depth,
    )


def _checked(arguments: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """A dict of arguments without those that are set here."""
    if arguments is not None and not isinstance(arguments, Mapping):
        raise SettingError(f"{name} is {arguments!r}; it must be a dict from names of arguments to values.")
    own = {"model_arguments": "layer", "training": "seed"}[name]
    if own in (arguments or {}):
        raise SettingError(f"{name} has a {own}, which is an argument of population_networks: pass it there.")
    return dict(arguments or {})


def _centrality(fit: FittedBin, kind: str) -> pd.Series:
    distance = distance_centrality(fit.loadings)
    return fit.centrality if kind == "explained" else distance.where(fit.centrality.notna())
