"""Harmony (Korsunsky et al. 2019) through harmonypy, which the extra `benchmark` installs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.comparators.pca import pca
from lucidcell.errors import SettingError
from lucidcell.metrics.checks import groups


def harmony(counts: Any, batch: ArrayLike, *, n_components: int = 50, seed: int = 0) -> np.ndarray:
    """Principal components corrected by Harmony with its own defaults, (n, n_components).

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    batch
        Batch of each cell, (n,).
    n_components
        Principal components.
    seed
        Of components and clusters.

    Raises
    ------
    DataError
        If the counts or batches cannot be used.
    SettingError
        If harmonypy is not installed, or there are too few cells or genes.
    """
    if find_spec("harmonypy") is None:
        raise SettingError("harmony needs harmonypy, which is not installed: pip install harmonypy.")
    import harmonypy

    x = pca(counts, n_components=n_components, seed=seed)
    batches = groups(batch, "batch", len(x), at_least=2)
    table = pd.DataFrame({"batch": batches.codes.astype(str)})
    corrected = harmonypy.run_harmony(x, table, "batch", verbose=False, random_state=seed, ncores=1).Z_corr
    return np.asarray(corrected, np.float64)
