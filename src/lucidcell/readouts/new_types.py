"""Cell types that no label names: clusters of unlabelled cells that lie apart from all labelled ones.

A classifier gives every cell one of the labels it knows. Xu et al. (2021, Mol. Syst. Biol. 17, e9620, Discussion)
observed that a type without a label mixes little with the labelled data in latent space, and advise to look closely at
such clusters. Here, for each cluster of unlabelled cells:

    p       share of labelled cells among the neighbours of its cells, each weighted as if labelled and unlabelled cells
            were equally many
    mixing  entropy of p in bits: 1 where labelled cells are as frequent as everywhere, 0 where there are none near
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import xlogy

from lucidcell.errors import DataError, SettingError
from lucidcell.maths.sampling import some_rows
from lucidcell.metrics.neighbors import nearest_neighbors
from lucidcell.readouts.annotation import label_probabilities, most_likely
from lucidcell.readouts.latent import latent_mean

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.scanvi import SCANVI

logger = logging.getLogger("lucidcell")

N_NEIGHBORS = 15
LEAST_MIXING = 0.3  # docs/annotation.md says what this finds and misses on real data
CELLS_OF_A_CLUSTER = 150  # that k-means aims at; small, so that a rare type is not drowned in its neighbours
MOST_CLUSTERS = 50
FEWEST_CELLS = 20  # of a cluster that is worth a warning
DRAWS = 1000  # for the mean of a logistic-normal latent
MOST_CELLS = 10_000  # with, and as many without a label, so that the search for neighbours stays a matter of seconds


def find_new_types(
    model: SCANVI,
    adata: AnnData | None = None,
    *,
    clusters: np.ndarray | pd.Series | None = None,
    k: int = N_NEIGHBORS,
    least_mixing: float = LEAST_MIXING,
    seed: int = 0,
) -> pd.DataFrame:
    """`unmixed_clusters` of the latent space of a model, on at most 10,000 cells with and 10,000 without a label."""
    cells = model.cells_of(adata)
    if clusters is not None and len(clusters) != len(cells):
        raise DataError(f"clusters has {len(clusters)} entries for {len(cells)} cells: pass one for each cell.")
    labelled = cells.label >= 0
    groups = [np.flatnonzero(labelled), np.flatnonzero(~labelled)]
    rows = np.sort(np.concatenate([group[some_rows(len(group), MOST_CELLS)] for group in groups]))
    return unmixed_clusters(
        latent_mean(model, model.cells_of(adata, rows), DRAWS, None, seed),
        labelled[rows],
        None if clusters is None else np.asarray(clusters)[rows],
        predictions=most_likely(model, label_probabilities(model, adata, rows)).names,
        k=k,
        least_mixing=least_mixing,
        seed=seed,
    )


def unmixed_clusters(
    latent: np.ndarray,
    labelled: np.ndarray,
    clusters: np.ndarray | pd.Series | None = None,
    *,
    predictions: np.ndarray | None = None,
    k: int = N_NEIGHBORS,
    least_mixing: float = LEAST_MIXING,
    seed: int = 0,
) -> pd.DataFrame:
    """Clusters of unlabelled cells, the least mixed with labelled cells first; logs a warning for suspicious ones.

    Parameters
    ----------
    latent
        Cells in latent space, (n, D).
    labelled
        Which cells have a label, (n,) booleans.
    clusters
        Cluster of each cell (n,); by default k-means of the unlabelled cells, about 150 in a cluster and at most 50
        clusters.
    predictions
        Predicted label of each cell (n,); if given, the table names the most frequent one of each cluster.
    k
        Neighbours looked at.
    least_mixing
        Clusters of at least 20 cells whose mixing is lower are suspicious.
    seed
        Of k-means.

    Returns
    -------
    One row per cluster (its index) with unlabelled cells: n_cells (unlabelled), mixing (0 to 1), suspicious, and with
    `predictions` prediction and prediction_share.

    Raises
    ------
    DataError
        If no cell is labelled, or all are, or the arrays differ in length.
    SettingError
        If `least_mixing` is not between 0 and 1, or there are fewer than k other cells.
    """
    labelled = np.asarray(labelled, bool)
    if not 0 <= least_mixing <= 1:
        raise SettingError(f"least_mixing is {least_mixing!r}; it must be between 0 and 1.")
    if labelled.all() or not labelled.any():
        raise DataError(
            f"{labelled.sum()} of {len(labelled)} cells have a label; mixing compares cells with and without one."
        )
    given = {"labelled": labelled, "clusters": clusters, "predictions": predictions}
    for name, values in given.items():
        if values is not None and len(values) != len(latent):
            raise DataError(f"{name} has {len(values)} entries for {len(latent)} cells: pass one for each cell.")
    near = labelled[nearest_neighbors(latent, k).indices[~labelled]].mean(1)  # share of labelled cells
    found = _k_means(latent[~labelled], seed) if clusters is None else np.asarray(clusters)[~labelled]
    grouped = pd.Series(near).groupby(pd.Series(found, name="cluster"))
    table = pd.DataFrame({"n_cells": grouped.size(), "mixing": _mixing(grouped.mean(), labelled.mean())})
    table["suspicious"] = (table["mixing"] < least_mixing) & (table["n_cells"] >= FEWEST_CELLS)
    if predictions is not None:
        shares = pd.crosstab(found, np.asarray(predictions)[~labelled].astype(object), normalize="index")
        table["prediction"], table["prediction_share"] = shares.idxmax(axis=1), shares.max(axis=1)
    table = table.sort_values("mixing", kind="stable")
    _warn(table, least_mixing)
    return table


def _mixing(near: pd.Series, overall: float) -> pd.Series:
    """Entropy in bits of the share of labelled cells among neighbours, relative to their share overall."""
    weight, other = near / overall, (1 - near) / (1 - overall)
    p = weight / (weight + other)
    return -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / np.log(2)


def _k_means(points: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    n_clusters = int(np.clip(len(points) // CELLS_OF_A_CLUSTER, 1, MOST_CLUSTERS))
    return np.asarray(KMeans(n_clusters, n_init=3, random_state=seed).fit_predict(points))


def _warn(table: pd.DataFrame, least_mixing: float) -> None:
    for cluster, row in table[table["suspicious"]].iterrows():
        named = ""
        if "prediction" in row:
            named = f", {row['prediction_share']:.0%} of them predicted {row['prediction']!r},"
        logger.warning(
            "cluster %s of %d unlabelled cells%s mixes little with labelled cells (%.2f, below %g): it may be a type "
            "that no label names, so look at its genes before you trust its predictions.",
            cluster, row["n_cells"], named, row["mixing"], least_mixing,
        )  # fmt: skip
