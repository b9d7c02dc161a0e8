from __future__ import annotations

import numpy as np
import pytest

from lucidcell.errors import SettingError
from lucidcell.training.split import cut, hold_out, shuffled


@pytest.mark.parametrize("n_cells", [2, 3, 10, 101, 1000])
@pytest.mark.parametrize("train_size", [1.0, 0.9, 0.75])
def test_every_cell_trains_or_is_held_out(n_cells, train_size):
    train, held_out = hold_out(n_cells, train_size, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(n_cells))
    assert len(held_out) == round((1 - train_size) * n_cells)
    assert np.all(np.diff(train) > 0)


def test_the_split_follows_from_the_seed():
    first, second, other = hold_out(500, 0.9, 0), hold_out(500, 0.9, 0), hold_out(500, 0.9, 1)
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], other[1])


def test_cells_to_keep_train_and_the_number_held_out_stays():
    keep = np.arange(100) % 2 == 0
    train, held_out = hold_out(100, 0.9, 0, keep)
    assert len(held_out) == 10
    assert not keep[held_out].any()
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(100))


@pytest.mark.parametrize("train_size", [0, -0.5, 1.1, float("nan")])
def test_impossible_fractions_are_refused(train_size):
    with pytest.raises(SettingError, match="train_size is .*; it must be above 0 and at most 1"):
        hold_out(100, train_size, 0)


def test_a_split_that_leaves_one_cell_is_refused():
    with pytest.raises(SettingError, match="train_size=0.1 leaves 1 of 10 cells"):
        hold_out(10, 0.1, 0)


@pytest.mark.parametrize("batch_size", range(2, 41))
def test_never_a_batch_of_one_and_every_cell_once(batch_size):
    for n in range(2, 121):
        rows = np.arange(n) * 3
        batches = cut(shuffled(rows, seed=0, epoch=1), batch_size)
        sizes = [len(batch) for batch in batches]
        assert min(sizes) >= 2, (n, batch_size, sizes)
        assert max(sizes) <= max(batch_size, 3)
        np.testing.assert_array_equal(np.sort(np.concatenate(batches)), rows)


def test_the_order_follows_from_seed_and_epoch():
    def order(seed: int, epoch: int) -> np.ndarray:
        return shuffled(np.arange(100), seed, epoch)

    np.testing.assert_array_equal(order(0, 5), order(0, 5))
    assert not np.array_equal(order(0, 5), order(0, 6))
    assert not np.array_equal(order(0, 5), order(1, 5))
