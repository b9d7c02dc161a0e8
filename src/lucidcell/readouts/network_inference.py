"""Gene networks from expression: CLR, MRNET, ARACNE and regression trees, the methods that siVAE is compared with.

With I the mutual information of two genes (`mutual_information.py`):

    clr      sqrt(max(0, z_i)^2 + max(0, z_j)^2), z_i = (I_ij - mean of row i) / sd of row i, without the diagonal
             Faith et al. 2007, PLoS Biology 5:e8
    mrnet    for each target i genes are taken one by one, next the one with the largest s_j = I_ij - mean of I_jk over
             the genes k taken, until s_j <= 0; the weight is the larger of s_j for target i and s_i for target j
             Meyer et al. 2007, EURASIP J. Bioinf. Syst. Biol. 79879
    aracne   I_ij, but 0 for the weakest edge of every triangle (data processing inequality, tolerance 0)
             Margolin et al. 2006, BMC Bioinformatics 7:S7; without its significance threshold
    trees    extremely randomised trees predict each gene from sqrt(G) random others at each split; the weight is the
             larger of the two shares in the reduction of variance; importances of a target sum to 1
             Huynh-Thu et al. 2010, PLoS ONE 5:e12776 (GENIE3)

siVAE's paper applied these to the data, and to cells sampled from the trained model (siVAE-GCN): pass either.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_values
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.shared_rows import each_row
from lucidcell.readouts.arguments import require_jobs, require_whole
from lucidcell.readouts.mutual_information import Estimator, information_of, standardized

Method = Literal["clr", "mrnet", "aracne", "trees"]


def infer_network(
    values: Any,
    method: Method = "clr",
    *,
    estimator: Estimator = "gaussian",
    n_bins: int | None = None,
    n_trees: int = 50,
    seed: int = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Weight of the edge between every two genes.

    Parameters
    ----------
    values
        Cells x genes, (n, G), log-normalised: a DataFrame, an array or a sparse matrix.
    method
        See the top of this file.
    estimator, n_bins
        Of mutual information, as in `mutual_information`; "trees" uses none.
    n_trees
        Trees for each gene, for "trees".
    seed
        Of the trees; the other methods draw nothing.
    n_jobs
        Threads; -1 for all cores. The result does not depend on it.

    Returns
    -------
    Genes x genes, symmetric, at least 0, the diagonal 0. A gene that is the same in all cells has no edges. The weights
    of different methods have different scales: compare their ranks.

    Raises
    ------
    DataError
        If the values are no matrix of finite numbers, name a gene twice, or have fewer than 3 genes.
    SettingError
        If the method, the estimator or a number is none of those above.
    """
    if method not in get_args(Method):
        raise SettingError(f"method is {method!r}; it must be one of {', '.join(get_args(Method))}.")
    require_whole(n_trees, "n_trees", 1)
    require_whole(seed, "seed", 0)
    require_jobs(n_jobs)
    x, genes = gene_values(values, "the values")
    if len(genes) < 3:
        raise DataError(f"the values have {len(genes)} genes, and a network needs at least 3: pass more.")
    if method == "trees":
        weights = _trees(x, n_trees, seed, n_jobs)
    else:
        information = information_of(x, estimator, n_bins, n_jobs)
        weights = network_of(information, method, n_jobs)
    return pd.DataFrame(weights, genes, genes)


def network_of(information: np.ndarray, method: Method, n_jobs: int = 1) -> np.ndarray:
    """Weights (G, G) from mutual information (G, G), symmetric with a diagonal of 0."""
    if method == "clr":
        return _clr(information)
    from lucidcell.maths.network_kernels import mrnet_scores, weakest_edges

    if method == "mrnet":
        scores = np.zeros_like(information)
        each_row(mrnet_scores, information, scores, n_jobs=n_jobs)
        return np.maximum(scores, scores.T)
    weakest = np.zeros(information.shape, bool)
    each_row(weakest_edges, information, weakest, n_jobs=n_jobs)
    return np.where(weakest | weakest.T, 0.0, information)


def _clr(information: np.ndarray) -> np.ndarray:
    """The background of a gene is its information with the others: the diagonal does not count."""
    n_others = len(information) - 1
    mean = information.sum(1) / n_others
    gap = information - mean[:, None]
    np.fill_diagonal(gap, 0.0)
    sd = np.sqrt((gap**2).sum(1) / (n_others - 1))
    z = np.maximum(gap, 0) / np.where(sd > 0, sd, np.inf)[:, None]
    weights = np.sqrt(z**2 + z.T**2)
    np.fill_diagonal(weights, 0.0)
    return weights


def _trees(x: np.ndarray, n_trees: int, seed: int, n_jobs: int) -> np.ndarray:
    from joblib import Parallel, delayed

    z = standardized(x).astype(np.float32)
    varied = np.flatnonzero(z.any(0))
    if len(varied) < 2:
        return np.zeros((x.shape[1], x.shape[1]))
    z = np.ascontiguousarray(z[:, varied])
    seeds = np.random.default_rng(seed).integers(2**31, size=len(varied))
    tasks = (delayed(_importances)(z, target, n_trees, int(s)) for target, s in enumerate(seeds))
    rows = np.stack(Parallel(n_jobs=n_jobs, prefer="threads")(tasks))
    weights = np.zeros((x.shape[1], x.shape[1]))
    weights[np.ix_(varied, varied)] = np.maximum(rows, rows.T)
    return weights


def _importances(z: np.ndarray, target: int, n_trees: int, seed: int) -> np.ndarray:
    """Importance of each gene for one, (G,), 0 for itself; they sum to 1."""
    from sklearn.ensemble import ExtraTreesRegressor

    trees = ExtraTreesRegressor(n_trees, max_features="sqrt", min_samples_leaf=5, random_state=seed)
    trees.fit(np.delete(z, target, axis=1), z[:, target])
    return np.insert(trees.feature_importances_, target, 0.0)
