"""Scanorama (Hie, Bryson and Berger 2019) through its own package, which the extra `benchmark` installs."""

from __future__ import annotations

import random
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize, require_components
from lucidcell.errors import SettingError
from lucidcell.metrics.checks import groups


def scanorama(counts: Any, batch: ArrayLike, *, n_components: int = 50, seed: int = 0) -> np.ndarray:
    """Cells in Scanorama's joint space with its own defaults, (n, n_components).

    Parameters
    ----------
    counts
        Raw counts, (n, G), sparse or dense.
    batch
        Batch of each cell, (n,).
    n_components
        Dimensions of the embedding.
    seed
        Of everything random in it.

    Raises
    ------
    DataError
        If the counts or batches cannot be used.
    SettingError
        If scanorama is not installed, or there are too few cells or genes.
    """
    if find_spec("scanorama") is None:
        raise SettingError("scanorama needs the package scanorama, which is not installed: pip install scanorama.")
    x = log_normalize(counts)
    batches = groups(batch, "batch", x.shape[0], at_least=2)
    require_components(n_components, x.shape)
    rows = [np.flatnonzero(batches.codes == code) for code in range(len(batches.names))]
    genes = [str(i) for i in range(x.shape[1])]
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (it seeds both, and we put them back)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # it reports on genes
            warnings.simplefilter("ignore")  # of its dependencies
            from scanorama import integrate

            parts, _ = integrate(
                [x[of_batch] for of_batch in rows], [genes] * len(rows), dimred=n_components, verbose=False, seed=seed
            )
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
    embedding = np.empty((x.shape[0], n_components))
    for of_batch, part in zip(rows, parts, strict=True):
        embedding[of_batch] = part
    return embedding
