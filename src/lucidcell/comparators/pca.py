"""Principal components of log-normalised counts: no correction at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from lucidcell.comparators.expression import log_normalize, principal_components


def pca(counts: Any, *, n_components: int = 50, seed: int = 0) -> np.ndarray:
    """Cells by their principal components, (n, n_components).

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    n_components
        Dimensions of the embedding.
    seed
        Of the solver's start.

    Raises
    ------
    DataError
        If the counts cannot be used.
    SettingError
        If there are too few cells or genes.
    """
    return principal_components(log_normalize(counts), n_components, seed)
