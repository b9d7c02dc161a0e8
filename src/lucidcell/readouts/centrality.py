"""Central genes, read off a trained model or a network.

Source: Choi, Li, Quon 2023, Genome Biology 24:29 (siVAE). All functions take plain tables, of any method.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_rows, gene_values, square_weights
from lucidcell.errors import DataError, SettingError

Centrality = Literal["explained", "mse"]


def degree_centrality(observed: Any, reconstructed: Any, how: Centrality = "explained") -> pd.Series:
    """How well a model reconstructs each gene: genes that many others depend on are kept best.

    Parameters
    ----------
    observed, reconstructed
        Cells x genes, (n, G), on the same scale and with the same genes in the same order.
    how
        "explained": 1 - MSE / Var over cells, at most 1 and the same for any scale of a gene. "mse": -MSE, the negative
        reconstruction error of siVAE's paper, which ranks alike where all genes have variance 1.

    Returns
    -------
    "centrality" of each gene; higher is more central. A gene that is the same in all cells has nothing to explain and
    0 by "explained".

    Raises
    ------
    DataError
        If the tables do not fit, hold NaN, or name a gene twice.
    SettingError
        If `how` is neither.
    """
    if how not in get_args(Centrality):
        raise SettingError(f"how is {how!r}; it must be one of {', '.join(get_args(Centrality))}.")
    x, genes = gene_values(observed, "the observed values")
    x_hat, others = gene_values(reconstructed, "the reconstructed values")
    if x.shape != x_hat.shape:
        raise DataError(f"the observed values have shape {x.shape} and the reconstructed {x_hat.shape}: pass the same.")
    if isinstance(observed, pd.DataFrame) and isinstance(reconstructed, pd.DataFrame) and not genes.equals(others):
        n_other = int((genes != others).sum())
        raise DataError(
            f"{n_other} of {len(genes)} genes of the two tables differ: pass the same genes in the same order."
        )
    names = genes if isinstance(observed, pd.DataFrame) else others
    mse = ((x - x_hat) ** 2).mean(0)
    if how == "mse":
        return pd.Series(-mse, names, name="centrality")
    varied = np.ptp(x, axis=0) > 0
    explained = np.where(varied, 1 - mse / np.where(varied, x.var(0), 1), 0.0)
    return pd.Series(explained, names, name="centrality")


def distance_centrality(loadings: Any, *, reproduce: Literal["reference"] | None = None) -> pd.Series:
    """Distance ||v_g|| of each gene's loadings from the origin: a centrality that needs no reconstruction.

    In siVAE's space of genes, those that vary alone lie near the origin and those of a community far from it (Figure
    4b), so that far genes are central. The reference code's "DistanceFromCenter" is -||v_g||, which ranks them last.

    Parameters
    ----------
    loadings
        Genes x factors, (G, D).
    reproduce
        "reference" for the sign of the reference code.

    Returns
    -------
    "centrality" of each gene.

    Raises
    ------
    DataError
        If the loadings are no matrix of finite numbers, or name a gene twice.
    SettingError
        If `reproduce` is another.
    """
    if reproduce not in (None, "reference"):
        raise SettingError(f"reproduce is {reproduce!r}; it must be 'reference' or None.")
    v, genes = gene_rows(loadings, "the loadings")
    return pd.Series(np.linalg.norm(v, axis=1) * (1 if reproduce is None else -1), genes, name="centrality")


def weight_centrality(weights: pd.DataFrame | np.ndarray) -> pd.Series:
    """Mean weight of each gene's edges to all others: the centrality of an inferred network in siVAE's paper.

    Parameters
    ----------
    weights
        Genes x genes, symmetric, of `infer_network` or another tool; the diagonal does not count.

    Returns
    -------
    "centrality" of each gene.

    Raises
    ------
    DataError
        If the weights are no square matrix of finite numbers, or name a gene twice.
    """
    w, genes = square_weights(weights)
    return pd.Series((w.sum(1) - np.diag(w)) / (len(w) - 1), genes, name="centrality")
