"""Whether two `Cells` hold the same."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from lucidcell.cells.cells import Cells

OF_CELLS = ("library", "batch", "label", "covariates", "cell_names", "present")
ARRAYS = ("counts.indptr", "counts.indices", "counts.values", *OF_CELLS)


def assert_same_cells(one: Cells, other: Cells) -> None:
    """All arrays, values and types."""
    for name in ARRAYS:
        a, b = attrgetter(name)(one), attrgetter(name)(other)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)
