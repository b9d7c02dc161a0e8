"""Tables like those of a run folder, small and seeded."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def _without_display():
    with mpl.rc_context():
        mpl.use("agg")
        yield


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(5, 4), layout="constrained").subplots()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def history() -> pd.DataFrame:
    epoch = np.arange(1, 31)
    fit, kl = 600 + 900 * np.exp(-epoch / 2), 10 * (1 - np.exp(-epoch / 3))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "phase": "elbo",
            "train_loss": fit + np.minimum(epoch / 10, 1) * kl,
            "train_reconstruction": fit,
            "train_kl": kl,
            "validation_negative_elbo": fit + kl + 5,
            "validation_kl": kl,
        }
    )


@pytest.fixture
def genes(rng) -> pd.DataFrame:
    mean = rng.lognormal(0, 1.5, 300)
    table = {"gene": [f"gene_{g}" for g in range(300)], "mean_observed": mean, "mean_expected": mean * 1.02}
    table |= {"cv_observed": 1 / mean, "cv_expected": 1.1 / mean}
    table |= {"zero_fraction_observed": np.exp(-mean), "zero_fraction_expected": np.exp(-1.1 * mean)}
    return pd.DataFrame(table)


@pytest.fixture
def loadings(rng) -> pd.DataFrame:
    return pd.DataFrame({"gene": [f"gene_{g}" for g in range(50)], "Z1": rng.normal(size=50), "Z2": rng.random(50)})


@pytest.fixture
def factors() -> pd.DataFrame:
    return pd.DataFrame({"factor": ["Z1", "Z2", "Z3"], "z_variance": [0.9, 0.5, 0.001], "kl": [1.2, 0.4, 0.002]})
