"""Mutual information of every pair of genes, in nats.

    gaussian    -1/2 log(1 - r^2), r Pearson's correlation; exact where two genes are jointly normal
    spearman    the same with Spearman's correlation: the default of the R package minet, which siVAE's paper used
    binned      of genes cut into bins of equally many cells, sum p log(p / (p_i p_j)), with the correction of its bias
                by Miller and Madow: each entropy gains (bins in use - 1) / 2n

Source: Meyer, Lafitte, Bontempi 2008, BMC Bioinformatics 9:461 (minet).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.gene_values import gene_values
from lucidcell.errors import SettingError
from lucidcell.maths.binning import equal_frequency_bins
from lucidcell.maths.shared_rows import each_row
from lucidcell.readouts.arguments import require_jobs, require_whole

Estimator = Literal["gaussian", "spearman", "binned"]
LARGEST_R2 = 0.999999  # of genes that are copies of each other, so that information stays finite; minet's
MOST_BINS = 256  # a bin is one byte


def mutual_information(
    values: Any, *, estimator: Estimator = "gaussian", n_bins: int | None = None, n_jobs: int = 1
) -> pd.DataFrame:
    """Mutual information of every pair of genes.

    Parameters
    ----------
    values
        Cells x genes, (n, G), log-normalised: a DataFrame, an array or a sparse matrix.
    estimator
        See the top of this file. "binned" sees relations that are not monotone, and needs more cells.
    n_bins
        Bins of a gene, for "binned"; by default sqrt(n / 5), 5 cells in a cell of the table of two genes (at least 2).
        Equal values share a bin, so that a gene with many zeros has fewer.
    n_jobs
        Threads, for "binned"; -1 for all cores.

    Returns
    -------
    Genes x genes, symmetric, at least 0, the diagonal 0. A gene that is the same in all cells has 0 with every other.

    Raises
    ------
    DataError
        If the values are no matrix of finite numbers, or name a gene twice.
    SettingError
        If the estimator or a number is none of those above.
    """
    x, genes = gene_values(values, "the values")
    return pd.DataFrame(information_of(x, estimator, n_bins, n_jobs), genes, genes)


def information_of(x: np.ndarray, estimator: Estimator, n_bins: int | None, n_jobs: int) -> np.ndarray:
    """Mutual information of the columns of (n, G), (G, G); the arguments are those of `mutual_information`."""
    if estimator not in get_args(Estimator):
        raise SettingError(f"estimator is {estimator!r}; it must be one of {', '.join(get_args(Estimator))}.")
    require_jobs(n_jobs)
    if n_bins is not None:
        if estimator != "binned":
            raise SettingError(f"n_bins is {n_bins!r} and estimator {estimator!r}: only 'binned' has bins.")
        require_whole(n_bins, "n_bins", 2)
        if n_bins > MOST_BINS:
            raise SettingError(f"n_bins is {n_bins}; it can be {MOST_BINS} at most; sqrt(cells / 5) is enough.")
    if estimator == "binned":
        wanted = min(MOST_BINS, max(2, int(np.sqrt(len(x) / 5)))) if n_bins is None else n_bins
        return _binned(x, wanted, n_jobs)
    if estimator == "spearman":
        from scipy.stats import rankdata

        x = rankdata(x, axis=0)
    r2 = np.minimum(correlation(x) ** 2, LARGEST_R2)
    np.fill_diagonal(r2, 0.0)
    return -0.5 * np.log1p(-r2)


def correlation(x: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the columns of (n, G), (G, G); 0 for a column that is the same in all rows."""
    z = standardized(x)
    return z.T @ z / len(z)


def standardized(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; a column that is the same in all rows is 0."""
    centred = x - x.mean(0)
    centred[:, np.ptp(x, axis=0) == 0] = 0.0
    sd = centred.std(0)
    scaled: np.ndarray = centred / np.where(sd > 0, sd, 1)
    return scaled


def _binned(x: np.ndarray, n_bins: int, n_jobs: int) -> np.ndarray:
    from lucidcell.maths.network_kernels import binned_information

    codes = np.ascontiguousarray(equal_frequency_bins(x, n_bins).T.astype(np.uint8))
    n = np.arange(len(x) + 1.0)
    out = np.zeros((len(codes), len(codes)))
    each_row(binned_information, codes, n_bins, n * np.log(np.maximum(n, 1)), out, n_jobs=n_jobs)
    return out + out.T
