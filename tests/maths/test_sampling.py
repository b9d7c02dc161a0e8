from __future__ import annotations

import numpy as np

from lucidcell.maths.sampling import some_rows


def test_rows_are_seeded_sorted_and_without_repeats() -> None:
    rows = some_rows(1000, 100)
    assert len(set(rows)) == 100
    assert list(rows) == sorted(rows)
    np.testing.assert_array_equal(rows, some_rows(1000, 100))
    assert abs(rows.mean() - 500) < 100
    np.testing.assert_array_equal(some_rows(5, 100), range(5))


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    assert set(some_rows(1000, 30)) < set(some_rows(1000, 300))
