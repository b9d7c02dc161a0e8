"""How much each factor says: shares of variance, and how factors go together.

The linear predictor of gene g in cell n is y_ng = sum_d z_nd W_gd. Centred with the genes' mean expression rho, W_gd is
the slope of log rho_g in z_d, and with C the covariance of the scores over cells

    share_d = sum_g rho_g W_gd (C W_g)_d / sum_g rho_g W_g' C W_g         sums to 1
    drop_one_d = 1 - sum_g rho_g W_g' C' W_g / sum_g rho_g W_g' C W_g     C': row and column d of C are zero

Where factors are correlated a share can be negative, and the drop-one shares need not sum to 1: both are reported as
they are. The eigenvalues that the paper of the LDVAE orders factors by belong to no factor; see `spectrum`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.loadings import centred

ORDERS = ("share", "drop_one", "z_variance")
UNUSED_KL = 0.05  # nats; a factor below it tells the decoder next to nothing about a cell


def mean_kl(mean: np.ndarray, variance: np.ndarray, prior_sd: float = 1.0) -> np.ndarray:
    """KL divergence of each factor from N(0, prior_sd^2), mean over cells, (D,), from q's (n, D)."""
    ratio = variance / prior_sd**2
    found: np.ndarray = (0.5 * (ratio + (mean / prior_sd) ** 2 - 1 - np.log(ratio))).mean(0)
    return found


def factor_shares(
    scores: pd.DataFrame,
    loadings: pd.DataFrame,
    expression: pd.Series | np.ndarray,
    *,
    on_simplex: bool = False,
    order: str | None = None,
) -> pd.DataFrame:
    """Share of each factor in the variance of the linear predictor.

    Parameters
    ----------
    scores
        Cells x factors.
    loadings
        Genes x factors, the same columns; W.
    expression
        Mean expression of each gene, (G,), up to a constant: the weights rho.
    on_simplex
        Whether the scores of a cell sum to 1, as those of a logistic normal; then a vector added to all factors only
        moves the intercept, and each gene's mean over factors is taken off first.
    order
        Sort by "share", "drop_one" or "z_variance", largest first; None keeps the order of the factors.

    Returns
    -------
    DataFrame with one row for each factor: factor, share, drop_one, z_variance (variance of the scores over cells).
    Shares are NaN where the linear predictor is the same in all cells.

    Raises
    ------
    DataError
        If the tables do not belong together.
    SettingError
        If the order is unknown.
    """
    if order not in (None, *ORDERS):
        raise SettingError(f"order is {order!r}; it must be one of {', '.join(ORDERS)}, or None.")
    if list(scores.columns) != list(loadings.columns):
        raise DataError(
            f"scores have the factors {list(scores.columns)[:3]}... and loadings {list(loadings.columns)[:3]}...: pass "
            "tables of the same factors in the same order, rotated alike."
        )
    rho = np.asarray(expression, float)
    if rho.shape != (len(loadings),) or not (rho >= 0).all() or not rho.sum() > 0:
        raise DataError(f"expression has shape {rho.shape} for {len(loadings)} genes: pass one number >= 0 for each.")
    w, z = loadings.to_numpy(float), scores.to_numpy(float)
    w = centred(w, rho, on_simplex=on_simplex)
    gram = (w * rho[:, None]).T @ w  # (D, D): sum_g rho_g W_gd W_ge
    covariance = np.atleast_2d(np.cov(z, rowvar=False)) if len(z) > 1 else np.zeros_like(gram)
    parts = gram * covariance
    total = parts.sum() if parts.sum() > 0 else np.nan
    table = pd.DataFrame(
        {
            "factor": list(scores.columns),
            "share": parts.sum(1) / total,
            "drop_one": (2 * parts.sum(1) - np.diag(parts)) / total,
            "z_variance": np.diag(covariance),
        }
    )
    return table if order is None else table.sort_values(order, ascending=False, kind="stable", ignore_index=True)


def factor_covariance(scores: pd.DataFrame) -> pd.DataFrame:
    """Covariance of the factors over cells, (D, D)."""
    return pd.DataFrame(np.atleast_2d(np.cov(scores.to_numpy(float), rowvar=False)), scores.columns, scores.columns)


def factor_correlation(scores: pd.DataFrame) -> pd.DataFrame:
    """Correlation of the factors over cells, (D, D); NaN for a factor that is the same in all cells."""
    covariance = factor_covariance(scores)
    sd = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return covariance / np.outer(sd, sd)


def spectrum(scores: pd.DataFrame) -> np.ndarray:
    """Square roots of the eigenvalues of the factors' correlation, as shares of their sum, largest first, (D,).

    This is what the LDVAE's paper calls variance explained. Eigenvalues belong to directions and not to factors, and
    scaling has taken the variance of the factors away, so it orders nothing; the last one is 0 for scores on a simplex.
    Factors that are the same in all cells add zeros.
    """
    correlation = factor_correlation(scores).to_numpy()
    varied = np.isfinite(np.diag(correlation))
    values = np.linalg.eigvalsh(correlation[np.ix_(varied, varied)])[::-1]
    roots = np.sqrt(np.clip(np.append(values, np.zeros((~varied).sum())), 0, None))
    return roots / roots.sum()
