"""Shrinkage of many effects: against numerical integration, scipy's optimiser and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from lucidcell.readouts.effect_sizes import expected_fdr
from lucidcell.readouts.shrinkage import NULL_WEIGHT, Posterior, _grid, _mixture, shrink


def planted(n: int, share: float, seed: int):
    rng = np.random.default_rng(seed)
    effects = np.where(rng.random(n) < share, rng.normal(0, 1.2, n), 0.0)
    errors = rng.uniform(0.05, 0.6, n)
    return effects, effects + errors * rng.standard_normal(n), errors


@pytest.fixture
def posterior() -> Posterior:
    weights = np.array([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0], [0.0, 0.5, 0.5]])
    means = np.array([[0.0, 1.0, -0.5], [0.0, 0.3, 0.1], [0.0, 4.0, 5.0]])
    return Posterior(weights, means, np.array([[0.0, 0.4, 1.0], [0.0, 0.2, 0.1], [0.0, 0.5, 0.2]]))


def test_moments_and_probabilities_of_a_mixture_by_integration(posterior):
    for g in range(3):

        def density(x, g=g):
            return sum(
                posterior.weights[g, k] * norm.pdf(x, posterior.means[g, k], posterior.sds[g, k]) for k in (1, 2)
            )

        def integral(f, low=-12.0, high=12.0):
            return quad(f, low, high, points=[0, 0.3, 1, 4, 5], limit=200)[0]

        mean = integral(lambda x: x * density(x))
        assert posterior.mean[g] == pytest.approx(mean, abs=1e-8)
        second = integral(lambda x: x * x * density(x))
        assert posterior.sd[g] == pytest.approx(np.sqrt(second - mean**2), abs=1e-8)
        inside = posterior.weights[g, 0] + integral(density, -0.25, 0.25)
        assert posterior.within(0.25)[g] == pytest.approx(inside, abs=1e-8)
        assert posterior.outside(0.25)[g] == pytest.approx(1 - inside, abs=1e-8)
        below = integral(density, -12.0, 0.4) + posterior.weights[g, 0]
        assert posterior.below(0.4)[g] == pytest.approx(below, abs=1e-8)


def test_tiny_probabilities_keep_their_digits():
    far = Posterior(np.array([[0.0, 1.0]]), np.array([[0.0, 20.0]]), np.array([[0.0, 1.0]]))
    assert far.within(0.25)[0] == pytest.approx(np.exp(norm.logcdf(-19.75)) - np.exp(norm.logcdf(-20.25)), rel=1e-9)
    mirrored = Posterior(far.weights, -far.means, far.sds)
    assert mirrored.within(0.25)[0] == far.within(0.25)[0]


def test_quantiles_invert_the_distribution_and_respect_the_mass_at_zero(posterior):
    for p in (0.025, 0.2, 0.5, 0.975):
        found = posterior.quantile(p)
        assert (posterior.below(found + 1e-9) >= p - 1e-9).all()
        assert (posterior.below(found - 1e-6) <= p + 1e-9).all()
    assert posterior.quantile(0.5)[1] == 0.0  # nine tenths of its mass are there


def test_the_prior_is_the_best_there_is():
    """EM against scipy's optimiser on the same penalised likelihood."""
    _, estimates, errors = planted(300, 0.3, 0)
    taus = _grid(estimates, errors)[::4]
    variances = taus**2 + errors[:, None] ** 2
    density = norm.pdf(estimates[:, None], 0, np.sqrt(variances))

    def objective(logits):
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        return -(np.log(density @ weights).sum() + NULL_WEIGHT * np.log(weights[0]))

    best = min(
        minimize(objective, start, method="BFGS").fun for start in (np.zeros(len(taus)), np.arange(len(taus)) * -0.5)
    )
    assert objective(np.log(_mixture(density) + 1e-300)) == pytest.approx(best, abs=0.02)


def test_planted_effects_are_estimated_better_and_the_nulls_are_counted():
    effects, estimates, errors = planted(4000, 0.2, 1)
    found = shrink(estimates, errors)
    raw, shrunken = np.abs(estimates - effects).mean(), np.abs(found.mean - effects).mean()
    assert shrunken < 0.6 * raw
    assert 0.78 < found.null.mean() < 0.9  # 0.8 were planted; rather over- than underestimated
    covered = (found.quantile(0.025) <= effects) & (effects <= found.quantile(0.975))
    assert 0.93 < covered.mean() <= 1
    assert 0.93 < covered[found.null < 0.01].mean() < 0.97
    assert (np.sign(found.mean) == np.sign(estimates)).all()
    assert (np.abs(found.mean) <= np.abs(estimates)).all()


@pytest.mark.parametrize("delta", [0.0, 0.25])
def test_expected_and_true_false_discoveries_agree(delta):
    shares = []
    for seed in range(10):
        effects, estimates, errors = planted(1000, 0.2, seed)
        called = expected_fdr(shrink(estimates, errors).within(delta)) <= 0.1
        assert called.sum() > 50
        shares.append((np.abs(effects[called]) <= delta).mean())
    assert 0.03 < np.mean(shares) <= 0.1 + 2 * np.std(shares) / np.sqrt(10)


def test_mirrored_estimates_have_mirrored_effects():
    _, estimates, errors = planted(200, 0.3, 2)
    there, back = shrink(estimates, errors), shrink(-estimates, errors)
    np.testing.assert_array_equal(there.mean, -back.mean)
    np.testing.assert_array_equal(there.within(0.25), back.within(0.25))
    np.testing.assert_allclose(there.quantile(0.025), -back.quantile(0.975), atol=1e-9)


def test_nothing_but_noise_is_shrunk_to_nothing():
    rng = np.random.default_rng(3)
    errors = rng.uniform(0.1, 1, 500)
    found = shrink(errors * rng.standard_normal(500), errors)
    assert np.abs(found.mean).max() < 0.3
    assert (expected_fdr(found.within(0.0)) > 0.05).all()


def test_estimates_of_exactly_zero_are_no_trouble():
    found = shrink(np.zeros(5), np.full(5, 0.1))
    np.testing.assert_array_equal(found.mean, 0)
    assert np.isfinite(found.quantile(0.975)).all()
