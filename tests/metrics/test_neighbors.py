"""Neighbours are exact, exclude the cell, and are refused where there are too few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import nearest_neighbors
from lucidcell.metrics.neighbors import CURVE_KS, curve_ks, neighbors_of


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_they_are_those_of_all_distances(rng, offset):
    x = rng.normal(size=(80, 4))
    distances = cdist(x, x)
    np.fill_diagonal(distances, np.inf)
    near = nearest_neighbors(x + offset, 7)
    np.testing.assert_array_equal(near.indices, distances.argsort(1)[:, :7])
    np.testing.assert_allclose(near.distances, np.sort(distances, 1)[:, :7], rtol=1e-6)


def test_a_cell_is_never_its_own_neighbour_even_among_duplicates():
    near = nearest_neighbors(np.zeros((6, 2)), 5)
    assert all(sorted([row, *found]) == [0, 1, 2, 3, 4, 5] for row, found in enumerate(near.indices.tolist()))


def test_the_first_of_many_are_those_of_a_smaller_search(rng):
    x = rng.normal(size=(50, 3))
    few, many = nearest_neighbors(x, 5), nearest_neighbors(x, 20)
    np.testing.assert_array_equal(neighbors_of(many, 5).indices, few.indices)
    np.testing.assert_array_equal(neighbors_of(x, 5).indices, few.indices)


def test_too_many_neighbours():
    x = np.eye(4)
    with pytest.raises(SettingError, match=r"k=4 neighbours are not possible with 4 cells: choose 1 to 3"):
        nearest_neighbors(x, 4)
    with pytest.raises(SettingError, match="k=0"):
        nearest_neighbors(x, 0)
    with pytest.raises(SettingError, match=r"k=3 neighbours are wanted and 2 are known"):
        nearest_neighbors(x, 2).first(3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(5), r"shape \(5,\): it must be two-dimensional"),
        (np.zeros((1, 3)), "has 1 cells, and at least 2 are needed"),
        (np.array([[0.0], [np.nan], [np.inf]]), "holds 2 NaN or infinite values"),
        (np.array([["a"], ["b"]]), "not numbers"),
    ],
)
def test_unfit_embeddings(x, message):
    with pytest.raises(DataError, match=message):
        nearest_neighbors(x, 1)


def test_the_ks_of_a_curve():
    assert curve_ks(None, 1000) == list(CURVE_KS)
    assert (CURVE_KS[0], CURVE_KS[-1]) == (10, 500)
    assert curve_ks(None, 35) == [10, 20, 30]
    assert curve_ks([5, 1, 5], 5) == [1, 5]
    with pytest.raises(SettingError, match="no k to draw a curve over"):
        curve_ks(None, 9)
    with pytest.raises(SettingError, match="from 1 to 6, and k can be 1 to 5"):
        curve_ks([1, 6], 5)
