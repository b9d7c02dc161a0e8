"""Effect sizes of many genes seen together: most are near zero, and how many, and how near, can be learned.

Adaptive shrinkage (Stephens 2017, Biostatistics 18, 275). Given an estimate b_g with standard error s_g of each gene's
effect beta_g:

    b_g | beta_g ~ N(beta_g, s_g^2)
    beta_g ~ pi_0 delta_0 + sum_k pi_k N(0, tau_k^2)        tau on a fixed grid

pi maximises the likelihood of all genes (EM), with ten extra observations at zero so that the share of null genes is
rather over- than underestimated. Then each gene has a posterior: a mass at zero and a mixture of normals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

NULL_WEIGHT = 10.0  # the extra observations at zero, as in the paper's software
GRID_STEP = 2**0.5  # ratio of neighbouring tau
MOST_STEPS = 2000
TOLERANCE = 1e-6  # of the log likelihood, in nats
BISECTIONS = 60


@dataclass(frozen=True)
class Posterior:
    """Posterior of the effect of each of G genes: weights, means and standard deviations of K components.

    The first component is the mass at zero, with mean and standard deviation 0.
    """

    weights: np.ndarray  # (G, K)
    means: np.ndarray  # (G, K)
    sds: np.ndarray  # (G, K)

    @property
    def mean(self) -> np.ndarray:
        """(G,)."""
        return np.einsum("gk,gk->g", self.weights, self.means)

    @property
    def sd(self) -> np.ndarray:
        """(G,)."""
        second = np.einsum("gk,gk->g", self.weights, self.sds**2 + self.means**2)
        return np.sqrt(np.maximum(second - self.mean**2, 0))

    @property
    def null(self) -> np.ndarray:
        """Probability that the effect is exactly zero, (G,)."""
        return self.weights[:, 0]

    def below(self, x: np.ndarray | float) -> np.ndarray:
        """P(effect <= x), (G,), for one x or one of each gene."""
        return self._continuous_below(x) + self.null * (np.asarray(x) >= 0)

    def within(self, delta: float) -> np.ndarray:
        """P(|effect| <= delta), (G,), exact also where it is tiny."""
        centre, sds = -np.abs(self.means[:, 1:]), self.sds[:, 1:]  # of two small tails, not of two numbers near 1
        inside = ndtr((centre + delta) / sds) - ndtr((centre - delta) / sds)
        return self.null + np.einsum("gk,gk->g", self.weights[:, 1:], inside)

    def outside(self, delta: float) -> np.ndarray:
        """P(|effect| > delta), (G,), exact also where it is tiny."""
        means, sds = self.means[:, 1:], self.sds[:, 1:]
        tails = ndtr((means - delta) / sds) + ndtr((-means - delta) / sds)
        return np.einsum("gk,gk->g", self.weights[:, 1:], tails)

    def quantile(self, p: float) -> np.ndarray:
        """Smallest x with P(effect <= x) >= p, (G,)."""
        spread = 10 * self.sds.max(1) + 1e-12
        low, high = self.means.min(1) - spread, self.means.max(1) + spread
        at_zero = (self._continuous_below(0.0) < p) & (self.below(0.0) >= p)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            left = self.below(middle) < p
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        return np.where(at_zero, 0.0, high)

    def _continuous_below(self, x: np.ndarray | float) -> np.ndarray:
        scaled = (np.reshape(np.asarray(x, float), (-1, 1)) - self.means[:, 1:]) / self.sds[:, 1:]
        return np.einsum("gk,gk->g", self.weights[:, 1:], ndtr(scaled))


def shrink(estimates: np.ndarray, errors: np.ndarray) -> Posterior:
    """Posterior of G effects from their estimates and standard errors, both (G,), errors above 0."""
    taus = _grid(estimates, errors)
    variances = taus**2 + np.square(errors)[:, None]
    log_density = -0.5 * (np.log(variances) + np.square(estimates)[:, None] / variances)
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    weights = density * _mixture(density)
    weights /= weights.sum(1, keepdims=True)
    share = taus**2 / variances  # of an estimate that is believed
    return Posterior(weights, share * estimates[:, None], np.sqrt(share) * errors[:, None])


def _grid(estimates: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """0, then tau from a tenth of the typical error to twice the largest effect, (K,)."""
    smallest = float(np.median(errors)) / 10
    largest = max(2 * float(np.sqrt(np.maximum(np.square(estimates) - np.square(errors), 0).max())), 8 * smallest)
    n_steps = int(np.ceil(np.log(largest / smallest) / np.log(GRID_STEP)))
    return np.concatenate([[0.0], smallest * GRID_STEP ** np.arange(n_steps + 1)])


def _mixture(density: np.ndarray) -> np.ndarray:
    """Weights (K,) of the prior's components, from each gene's density under each, (G, K)."""
    n_genes, n_components = density.shape
    extra = np.zeros(n_components)
    extra[0] = NULL_WEIGHT
    weights = np.full(n_components, 1 / n_components)
    last = -np.inf
    for _ in range(MOST_STEPS):
        joint = density * weights
        total = joint.sum(1, keepdims=True)
        value = float(np.log(total).sum() + NULL_WEIGHT * np.log(weights[0]))
        if value - last < TOLERANCE:
            break
        last = value
        weights = ((joint / total).sum(0) + extra) / (n_genes + NULL_WEIGHT)
    return weights
