from __future__ import annotations

import numpy as np
import pytest

from lucidcell.errors import SettingError
from lucidcell.readouts.rotation import rotation_to, varimax


def criterion(loadings: np.ndarray, weights: np.ndarray) -> float:
    weights = weights / weights.sum()
    squares = loadings**2
    return float((weights @ (squares - weights @ squares) ** 2).sum())


def simple_structure(rng: np.random.Generator, n_genes: int = 200, n_factors: int = 5) -> np.ndarray:
    loadings = np.zeros((n_genes, n_factors))
    loadings[np.arange(n_genes), np.arange(n_genes) % n_factors] = rng.uniform(0.5, 1.5, n_genes)
    return loadings


def random_rotation(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def test_equal_weights_give_the_rotation_of_scikit_learn():
    from sklearn.decomposition._factor_analysis import _ortho_rotation

    loadings = np.random.default_rng(0).standard_normal((60, 4)) ** 3
    theirs = _ortho_rotation(loadings, method="varimax", tol=1e-12, max_iter=2000).T
    ours = loadings @ varimax(loadings)
    order = np.abs(ours.T @ theirs).argmax(1)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs[:, order]), atol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_no_small_turn_improves_the_criterion(weighted):
    rng = np.random.default_rng(1)
    loadings = simple_structure(rng) @ random_rotation(rng, 5) + 0.2 * rng.standard_normal((200, 5))
    weights = rng.lognormal(0, 2, 200) if weighted else np.ones(200)
    found = loadings @ varimax(loadings, weights)
    best = criterion(found, weights)
    assert best > 1.5 * criterion(loadings, weights)
    for i in range(5):
        for j in range(i):
            for angle in (0.02, -0.02):
                turned = found.copy()
                turned[:, i] = np.cos(angle) * found[:, i] + np.sin(angle) * found[:, j]
                turned[:, j] = np.cos(angle) * found[:, j] - np.sin(angle) * found[:, i]
                assert criterion(turned, weights) < best


def test_a_planted_simple_structure_is_found_whatever_the_rotation():
    rng = np.random.default_rng(2)
    planted = simple_structure(rng)
    for _ in range(3):
        found = planted @ random_rotation(rng, 5)
        found = found @ rotation_to("varimax", found, np.ones(200))
        matches = np.abs(np.corrcoef(found.T, planted.T)[:5, 5:]).max(1)
        assert matches.min() > 0.999


def test_genes_that_are_hardly_seen_do_not_turn_the_factors():
    rng = np.random.default_rng(3)
    planted = simple_structure(rng)
    noise = 3 * rng.standard_normal((400, 5))  # loadings of silent genes
    loadings = np.vstack([planted, noise]) @ random_rotation(rng, 5)
    weights = np.r_[np.ones(200), np.full(400, 1e-4)]
    kept = {
        "weighted": (loadings @ varimax(loadings, weights))[:200],
        "equal": (loadings @ varimax(loadings))[:200],
    }
    agreement = {name: np.abs(np.corrcoef(x.T, planted.T)[:5, 5:]).max(1).min() for name, x in kept.items()}
    assert agreement["weighted"] > 0.99
    assert agreement["equal"] < 0.9


def test_factors_come_in_order_and_point_to_their_large_loadings():
    rng = np.random.default_rng(4)
    planted = simple_structure(rng) * np.array([1.0, -3.0, 2.0, 0.5, -1.5])
    rotation = rotation_to("varimax", planted @ random_rotation(rng, 5), np.ones(200))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(5), atol=1e-9)
    found = planted @ np.eye(5)
    found = found @ rotation_to("varimax", found, np.ones(200))
    sizes = (found**2).sum(0)
    assert (np.diff(sizes) < 0).all()
    assert (np.abs(found).max(0) == found.max(0)).all()


def test_other_rotations_are_refused():
    with pytest.raises(SettingError, match="'quartimax'"):
        rotation_to("quartimax", np.eye(3), np.ones(3))
