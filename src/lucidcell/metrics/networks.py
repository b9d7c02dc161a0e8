"""How good a network of genes is: true centrality, and neighbourhoods that predict and agree.

Source: Choi, Li, Quon 2023, Genome Biology 24:29 (siVAE), Figure 5. The variance of a gene explained by a prediction is

    1 - Var(x - x_hat) / Var(x)        over all cells, each predicted by a fit without its fold

which is negative where the prediction is worse than none. Such values are kept and not cut at 0: cutting would turn the
noise of thousands of unrelated genes into explained variance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_positions, gene_values
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.binning import equal_frequency_bins
from lucidcell.maths.shared_rows import each_row
from lucidcell.readouts.arguments import is_whole, require_jobs, require_whole
from lucidcell.readouts.mutual_information import standardized

_WIDTH = 32  # genes at a time, so that their cells stay in the cache


def true_centrality(
    values: Any,
    n_bins: int = 20,
    n_folds: int = 5,
    genes: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    n_jobs: int = 1,
) -> pd.Series:
    """Share of the variance of all other genes that one gene predicts, mean over them: siVAE's ground truth.

    The paper trains a network for each gene (`true_centrality_mlp`). A function of one number needs none: here a gene
    is cut into bins of equally many cells, and the others are predicted by their means in a bin.

    Parameters
    ----------
    values
        Cells x genes, (n, G), log-normalised: a DataFrame, an array or a sparse matrix.
    n_bins
        Bins of a gene. Equal values share a bin: the zeros of a gene are one.
    n_folds
        Folds of the cross-validation, drawn at random.
    genes
        The genes whose centrality is wanted, by default all; each is asked to predict all genes of the table.
    seed
        Of the folds.
    n_jobs
        Threads; -1 for all cores. The result does not depend on it.

    Returns
    -------
    "centrality" of each gene, at most 1. Genes that are the same in all cells are not predicted, and predict nothing:
    theirs is 0 or a little less.

    Raises
    ------
    DataError
        If the values are no matrix of finite numbers, name a gene twice, or hold fewer than 2 genes that vary.
    SettingError
        If a number has no meaning.
    """
    require_whole(n_bins, "n_bins", 2)
    require_jobs(n_jobs)
    x, names, queries = query_data(values, genes)
    fold = folds(len(x), n_folds, seed)
    from lucidcell.maths.network_kernels import bin_errors

    if n_bins * n_folds > np.iinfo(np.int16).max:
        raise SettingError(f"n_bins={n_bins} with n_folds={n_folds} are too many parts: 20 bins and 5 folds are usual.")
    strata = equal_frequency_bins(x[:, queries], n_bins) + n_bins * fold[:, None]
    strata = np.ascontiguousarray(strata.T.astype(np.int16))
    z = standardized(x)
    explained = np.zeros((len(queries), len(names)))
    for start in range(0, len(names), _WIDTH):
        block = np.ascontiguousarray(z[:, start : start + _WIDTH])
        error = np.empty((len(queries), block.shape[1]))
        each_row(bin_errors, strata, n_folds, n_bins, block, error, n_jobs=n_jobs)
        explained[:, start : start + _WIDTH] = -error / len(z)
    return mean_over_others(explained, z, names, queries)


def neighborhood_overlap(neighbors_a: pd.DataFrame, neighbors_b: pd.DataFrame) -> float:
    """Mean Jaccard index of the neighbours of a gene in two tables, over the genes that both have; 0 to 1.

    Parameters
    ----------
    neighbors_a, neighbors_b
        Columns gene and neighbor, of `gene_neighbors`, `network_neighbors` or another tool.

    Raises
    ------
    DataError
        If a table lacks a column, or they have no gene in common.
    """
    a, b = neighbor_sets(neighbors_a, "neighbors_a"), neighbor_sets(neighbors_b, "neighbors_b")
    found = []
    for gene in _shared(a, b):
        one, other = set(a[gene]), set(b[gene])
        found.append(len(one & other) / len(one | other))
    return float(np.mean(found))


def neighborhood_correlation(values: Any, neighbors_a: pd.DataFrame, neighbors_b: pd.DataFrame) -> float:
    """Mean Pearson correlation of the neighbours of a gene in one table with those in another, over the shared genes.

    Of all pairs, 20 x 20 in the paper; a gene that is in both lists counts with its correlation of 1 with itself. A
    gene that is the same in all cells has correlation 0 with every other.

    Parameters
    ----------
    values
        Cells x genes, (n, G).
    neighbors_a, neighbors_b
        As in `neighborhood_overlap`.

    Raises
    ------
    DataError
        If a table lacks a column, they have no gene in common, or a neighbour is not in the values.
    """
    x, names = gene_values(values, "the values")
    a, b = neighbor_sets(neighbors_a, "neighbors_a"), neighbor_sets(neighbors_b, "neighbors_b")
    z = standardized(x)
    found = []
    for gene in _shared(a, b):
        one, other = (
            z[:, gene_positions(near[gene], names, f"neighbors of {gene!r}")].mean(1) for near in (a, b)
        )  # the mean over pairs of products is the product of the means
        found.append(one @ other / len(z))
    return float(np.mean(found))


def neighbor_sets(neighbors: pd.DataFrame, name: str) -> dict[Hashable, list[Hashable]]:
    """The neighbours of each gene, in the order of the table.

    Raises
    ------
    DataError
        If it is no table of genes and neighbours.
    """
    if not isinstance(neighbors, pd.DataFrame) or not {"gene", "neighbor"} <= set(neighbors.columns):
        have = list(neighbors.columns) if isinstance(neighbors, pd.DataFrame) else type(neighbors).__name__
        raise DataError(
            f"{name} is {have}: pass a table with the columns gene and neighbor, such as of gene_neighbors."
        )
    return {gene: list(rows) for gene, rows in neighbors.groupby("gene", sort=False, observed=True)["neighbor"]}


def folds(n_cells: int, n_folds: int, seed: int) -> np.ndarray:
    """The fold of each cell, (n,), drawn at random, of sizes that differ by 1 at most.

    Raises
    ------
    SettingError
        If the cells cannot be parted so.
    """
    require_whole(seed, "seed", 0)
    if not is_whole(n_folds) or not 2 <= n_folds <= n_cells:
        raise SettingError(
            f"n_folds is {n_folds!r}; with {n_cells} cells it must be a whole number from 2 to {n_cells}."
        )
    return np.random.default_rng(seed).permutation(n_cells) % n_folds


def query_data(values: Any, genes: Sequence[Hashable] | None) -> tuple[np.ndarray, pd.Index, np.ndarray]:
    """Cells x genes, all genes, and the positions of those asked for.

    Raises
    ------
    DataError
        If the values are no matrix of finite numbers, fewer than 2 genes vary, or a gene asked for is unknown.
    """
    x, names = gene_values(values, "the values")
    n_varied = int((np.ptp(x, axis=0) > 0).sum())
    if n_varied < 2:
        raise DataError(
            f"{n_varied} of {len(names)} genes vary over the cells, and at least 2 are needed: pass others."
        )
    return x, names, np.arange(len(names)) if genes is None else gene_positions(genes, names, "genes")


def mean_over_others(explained: np.ndarray, z: np.ndarray, names: pd.Index, queries: np.ndarray) -> pd.Series:
    """Mean of (Q, G) over the genes that vary over the cells, z (n, G), without the query itself."""
    counted = np.tile(z.any(axis=0), (len(queries), 1))
    counted[np.arange(len(queries)), queries] = False
    mean = np.where(counted, explained, 0.0).sum(1) / counted.sum(1)
    return pd.Series(mean, names[queries], name="centrality")


def _shared(a: dict[Hashable, list[Hashable]], b: dict[Hashable, list[Hashable]]) -> list[Hashable]:
    shared = [gene for gene in a if gene in b]
    if not shared:
        raise DataError(f"the {len(a)} and {len(b)} genes of the two tables have none in common: use the same names.")
    return shared
