"""Statistics on draws of expression: group means, log fold changes, Bayes factors, Bayesian false discovery rate."""

from __future__ import annotations

import numpy as np

SMALLEST_FROM_DRAWS = 1e-8  # a probability in a Bayes factor; what draws can tell, and as in the paper's software
SMALLEST = 1e-300  # where the probability is computed
INTERVAL = (0.025, 0.975)


def bootstrap_weights(n_draws: int, n_cells: int, n_profiles: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of a Bayesian bootstrap (Rubin 1981) over cells of which several draws each are at hand.

    Dirichlet(a, ..., a) over the draws with a = cells / draws: the weights of one cell's draws then add up to what a
    Dirichlet(1, ..., 1) over the cells gives it.

    Parameters
    ----------
    n_draws
        Draws N of expression.
    n_cells
        Different cells behind them.
    n_profiles
        Weightings R wanted.
    rng
        Generator.

    Returns
    -------
    (R, N) float32, rows sum to 1.
    """
    weights = rng.standard_gamma(n_cells / n_draws, (n_profiles, n_draws))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def log_fold_change(first: np.ndarray, second: np.ndarray, pseudocount: float) -> np.ndarray:
    """log2 of (first + pseudocount) / (second + pseudocount)."""
    return np.log2(first + pseudocount) - np.log2(second + pseudocount)


def probability_higher(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """P(a > b) for each gene over all pairs of draws, from (N, G) and (M, G); ties count as not higher. (G,)."""
    found = np.empty(first.shape[1])
    for g in range(first.shape[1]):
        ordered = np.sort(second[:, g])
        found[g] = np.searchsorted(ordered, np.sort(first[:, g]), side="left").mean(dtype=float)
    return found / len(second)


def bayes_factor(probability: np.ndarray, complement: np.ndarray, smallest: float) -> np.ndarray:
    """Natural log of probability / complement, to both of which `smallest` is added."""
    return np.log(probability + smallest) - np.log(complement + smallest)


def expected_fdr(complement: np.ndarray) -> np.ndarray:
    """Mean probability of being wrong over a gene and all that are surer, (G,): the Bayesian counterpart of a q-value.

    Parameters
    ----------
    complement
        Probability (G,) of being wrong.
    """
    order = np.argsort(complement, kind="stable")
    found = np.empty(len(order))
    found[order] = np.cumsum(complement[order]) / np.arange(1, len(order) + 1)
    return found


def surely(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The value nearest to zero in each interval from `low` to `high`, (G,): 0 where the interval holds 0."""
    return np.where(low > 0, low, np.where(high < 0, high, 0.0))
