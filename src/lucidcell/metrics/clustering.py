"""Clusters of an embedding, and how well they agree with known labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.errors import SettingError
from lucidcell.metrics.checks import Groups, groups, points
from lucidcell.metrics.neighbors import Embedding, neighbors_of, require_neighbors

RESOLUTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


def adjusted_rand_index(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Pairs of cells that both partitions treat alike, corrected for chance (Hubert and Arabie 1985).

    1 for equal partitions, 0 in the mean for random ones, at least -0.5.

    Parameters
    ----------
    labels, clusters
        Two partitions of the cells, (n,) each; names do not matter.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    from sklearn.metrics import adjusted_rand_score

    truth, found = _two_partitions(labels, clusters)
    return float(adjusted_rand_score(truth.codes, found.codes))


def normalized_mutual_information(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information over the arithmetic mean of the two entropies, 0 to 1; not corrected for chance.

    Parameters
    ----------
    labels, clusters
        As in `adjusted_rand_index`.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    from sklearn.metrics import normalized_mutual_info_score

    truth, found = _two_partitions(labels, clusters)
    return float(normalized_mutual_info_score(truth.codes, found.codes))


def adjusted_mutual_information(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information corrected for chance (Vinh et al. 2010): 1 for equal partitions, 0 in the mean for random.

    Parameters
    ----------
    labels, clusters
        As in `adjusted_rand_index`.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    truth, found = _two_partitions(labels, clusters)
    return float(adjusted_mutual_info_score(truth.codes, found.codes))


def clustering_accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of cells in the cluster matched to their label, under the best one-to-one matching (Hungarian); 0 to 1.

    Also called unsupervised clustering accuracy, UCA. Clusters beyond the number of labels match nothing.

    Parameters
    ----------
    labels, clusters
        As in `adjusted_rand_index`.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    from scipy.optimize import linear_sum_assignment

    truth, found = _two_partitions(labels, clusters)
    table = np.zeros((len(truth.names), len(found.names)), np.int64)
    np.add.at(table, (truth.codes, found.codes), 1)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(truth.codes))


def label_purity(embedding: Embedding, labels: ArrayLike, *, k: int = 30) -> float:
    """Share of a cell's neighbours that have its label, mean over cells; 0 to 1, higher keeps types better together.

    Parameters
    ----------
    embedding
        Cells as points, (n, D), or their neighbours.
    labels
        Cell type of each cell, (n,).
    k
        Neighbours of a cell, itself not counted.

    Raises
    ------
    DataError
        If arrays do not fit, hold NaN, or there is one label only.
    SettingError
        If k is too large.
    """
    near = neighbors_of(embedding, k)
    types = groups(labels, "labels", near.n_cells, at_least=2)
    return float((types.codes[near.indices] == types.codes[:, None]).mean())


def kmeans_clusters(embedding: ArrayLike, n_clusters: int, *, seed: int = 0) -> np.ndarray:
    """Cluster of each cell by k-means with 10 starts, (n,) int.

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    n_clusters
        How many, at most one for each cell.
    seed
        Of the starts.

    Raises
    ------
    DataError
        If the embedding is not a matrix of finite numbers.
    SettingError
        If there are fewer cells than clusters.
    """
    from sklearn.cluster import KMeans

    x = points(embedding, "the embedding")
    if not 1 <= n_clusters <= len(x):
        raise SettingError(f"n_clusters={n_clusters} is not possible with {len(x)} cells: choose 1 to {len(x)}.")
    return np.asarray(KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(x), np.int64)


def leiden_clusters(
    embedding: ArrayLike, resolutions: Sequence[float] = (1.0,), *, k: int = 15, seed: int = 0
) -> pd.DataFrame:
    """Leiden clusters of each cell at each resolution, by scanpy on igraph (extra `leiden`).

    Parameters
    ----------
    embedding
        Cells as points, (n, D).
    resolutions
        Higher ones give more clusters.
    k
        Neighbours in the graph, the cell itself counted, as in scanpy.
    seed
        Of the algorithm.

    Returns
    -------
    pandas.DataFrame
        (n, resolutions) int, a column for each resolution.

    Raises
    ------
    DataError
        If the embedding is not a matrix of finite numbers.
    SettingError
        If igraph is not installed, a resolution is not positive, or k is too large.
    """
    if find_spec("igraph") is None:
        raise SettingError("Leiden clusters need igraph, which is not installed: pip install 'lucidcell[leiden]'.")
    if not resolutions or min(resolutions) <= 0:
        raise SettingError(f"resolutions are {list(resolutions)}: give at least one, all positive.")
    import anndata
    import scanpy as sc

    x = points(embedding, "the embedding")
    require_neighbors(k, len(x), "cells")
    cells = anndata.AnnData(obs=pd.DataFrame(index=np.arange(len(x)).astype(str)), obsm={"X": x})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scanpy, about threads and its own future defaults
        sc.pp.neighbors(cells, n_neighbors=k, use_rep="X", transformer="sklearn", random_state=seed)
        for resolution in resolutions:
            sc.tl.leiden(
                cells, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed,
                key_added=str(resolution),
            )  # fmt: skip
    return pd.DataFrame({r: cells.obs[str(r)].to_numpy().astype(np.int64) for r in resolutions})


def leiden_sweep(
    embedding: ArrayLike,
    labels: ArrayLike,
    resolutions: Sequence[float] = RESOLUTIONS,
    *,
    k: int = 15,
    seed: int = 0,
) -> pd.DataFrame:
    """Agreement of Leiden clusters with labels at each resolution.

    Parameters
    ----------
    embedding, resolutions, k, seed
        As in `leiden_clusters`.
    labels
        Cell type of each cell, (n,).

    Returns
    -------
    pandas.DataFrame
        Columns resolution, n_clusters, ari, nmi, ami; a row for each resolution. The best of them is chosen with the
        labels in hand, and so flatters the embedding.

    Raises
    ------
    DataError, SettingError
        As `leiden_clusters`, and if labels do not fit.
    """
    groups(labels, "labels", len(points(embedding, "the embedding")), at_least=2)
    found = leiden_clusters(embedding, resolutions, k=k, seed=seed)
    return pd.DataFrame(
        {
            "resolution": resolution,
            "n_clusters": clusters.nunique(),
            "ari": adjusted_rand_index(labels, clusters),
            "nmi": normalized_mutual_information(labels, clusters),
            "ami": adjusted_mutual_information(labels, clusters),
        }
        for resolution, clusters in found.items()
    )


def _two_partitions(labels: ArrayLike, clusters: ArrayLike) -> tuple[Groups, Groups]:
    truth = groups(labels, "labels")
    return truth, groups(clusters, "clusters", len(truth.codes))
