"""Consistency with another view of the cells: loops, hand values, ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import knn_purity, neighbor_error, neighbor_overlap, second_view_curve


def error_by_loops(x: np.ndarray, view: np.ndarray, k: int) -> float:
    found = []
    for row, distances in enumerate(cdist(x, x)):
        distances[row] = np.inf
        average = view[distances.argsort()[:k]].mean(0)
        found.append(((view[row] - average) ** 2).sum())
    return float(np.mean(found))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_error_is_that_of_loops(planted, k):
    view = planted.x[:, :3] ** 2
    assert neighbor_error(planted.x, view, k=k) == pytest.approx(error_by_loops(planted.x, view, k))


def test_hand_value():
    """Neighbours of 0, 1 and 5 on a line: 1, 0 and 1; the view is 3, 5, 9."""
    assert neighbor_error([[0.0], [1.0], [5.0]], [[3.0], [5.0], [9.0]], k=1) == pytest.approx((4 + 4 + 16) / 3)


def test_ends(planted, rng):
    assert neighbor_overlap(planted.x, 2 * planted.x) == 1.0
    assert neighbor_error(planted.x, np.ones((400, 2))) == 0.0
    unrelated = rng.normal(size=(400, 4))
    # an independent cell and the mean of k independent others: variance 1 + 1 / k in each column
    assert neighbor_error(planted.x, unrelated, k=50) == pytest.approx(4 * (1 + 1 / 50), rel=0.05)
    share = 50 / 399
    assert neighbor_overlap(planted.x, unrelated, k=50) == pytest.approx(share / (2 - share), rel=0.1)


def test_the_curve_is_the_single_values(planted, monkeypatch):
    monkeypatch.setattr("lucidcell.metrics.second_view._BLOCK_ENTRIES", 2000)
    view = planted.x[:, 1:4]
    curve = second_view_curve(planted.x, view, [5, 20, 60])
    for row in curve.itertuples():
        assert row.error == pytest.approx(neighbor_error(planted.x, view, k=row.k))
        assert row.overlap == pytest.approx(knn_purity(view, planted.x, k=row.k))
    assert second_view_curve(planted.x, view)["k"].iloc[-1] == 350


def test_order_does_not_matter(planted, rng):
    order = rng.permutation(400)
    view = planted.x[:, :2]
    whole = second_view_curve(planted.x, view, [7, 30])
    moved = second_view_curve(planted.x[order], view[order], [7, 30])
    np.testing.assert_allclose(moved, whole, rtol=1e-9)


def test_errors(planted):
    with pytest.raises(DataError, match="the view has 399 rows for 400 cells"):
        neighbor_error(planted.x, planted.x[:-1])
    with pytest.raises(SettingError, match="k=400"):
        neighbor_error(planted.x, planted.x, k=400)
