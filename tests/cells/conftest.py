from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def counts() -> np.ndarray:
    """37 x 23 counts, none of the rows and columns empty."""
    rng = np.random.default_rng(3)
    values = rng.poisson(0.6, (37, 23))
    values[:, 0] += 1
    values[0] += 1
    return values


@pytest.fixture
def adata(counts: np.ndarray) -> ad.AnnData:
    """The counts with two batches, three labels, and a covariate of either kind."""
    n, g = counts.shape
    rng = np.random.default_rng(4)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical(rng.choice(["d2", "d1"], n), categories=["d2", "d1", "unused"]),
            "cell_type": rng.choice(["B", "T", "Unknown"], n),
            "sex": rng.choice([True, False], n),
            "age": rng.normal(50, 10, n),
            "size": rng.uniform(0.5, 2, n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    return ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(g)])
    )


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a real data file, or a skip where these files are not at hand."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not in ../shared/data")
        return path

    return find
