"""Mutual nearest neighbours: pairs by brute force, the smoothed correction by loops, and what it must not do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lucidcell import comparators
from lucidcell.comparators.mnn import _correction, mutual_pairs
from lucidcell.errors import SettingError


@pytest.fixture
def two(rng):
    return rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) + [0.5, 0, 0]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pairs_by_loops(reference: np.ndarray, new: np.ndarray, k: int) -> set[tuple[int, int]]:
    distances = cdist(reference, new)
    to_new, to_reference = distances.argsort(1)[:, :k], distances.argsort(0)[:k].T
    return {(i, j) for i in range(len(reference)) for j in range(len(new)) if j in to_new[i] and i in to_reference[j]}


@pytest.mark.parametrize("k", [1, 5, 20])
def test_pairs_are_mutual(two, k):
    here, there = mutual_pairs(*two, k)
    assert set(zip(here.tolist(), there.tolist(), strict=True)) == pairs_by_loops(*two, k)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_correction_is_the_kernel_average_of_the_differences(two, sigma):
    reference, new = two
    pairs = sorted(pairs_by_loops(reference, new, 4))
    paired = sorted({j for _, j in pairs})
    shift = {j: np.mean([reference[i] - new[j] for i, other in pairs if other == j], axis=0) for j in paired}

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / sigma**2))

    crowd = {j: sum(kernel(new[j], new[other]) for other in paired) for j in paired}
    for cell, found in zip(new, _correction(reference, new, 4, sigma), strict=True):
        weights = np.array([kernel(cell, new[j]) / crowd[j] for j in paired])
        wanted = (weights[:, None] * np.array([shift[j] for j in paired])).sum(0) / weights.sum()
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_far_away_cells_are_moved_like_the_nearest_pair(two):
    """With a narrow kernel every weight would underflow without care."""
    moved = _correction(two[0], np.r_[two[1], [[1e3, 0, 0]]], 3, 0.01)
    assert np.isfinite(moved).all()


def test_a_pure_shift_is_undone(rng):
    """The shift is at right angles to what varies, as the method assumes."""
    reference = rng.normal(size=(200, 4)) * [100, 100, 0, 0]
    moved = reference + [0, 0, 3.0, -2.0]
    np.testing.assert_allclose(moved + _correction(reference, moved, 1, 10.0), reference, atol=1e-9)


def test_the_order_of_batches(counts):
    by_size = comparators.mnn(counts.x, counts.batch, n_components=5)
    np.testing.assert_array_equal(
        comparators.mnn(counts.x, counts.batch, n_components=5, order=["first", "second"]), by_size
    )
    other = comparators.mnn(counts.x, counts.batch, n_components=5, order=["second", "first"])
    assert np.abs(other - by_size).max() > 0.01
    with pytest.raises(SettingError, match="order is \\['first'\\], and the batches are \\['first', 'second'\\]"):
        comparators.mnn(counts.x, counts.batch, order=["first"])
    with pytest.raises(SettingError, match="k=121 must be 1 to 120"):
        comparators.mnn(counts.x, counts.batch, k=121)
