"""Small planted embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest


class Planted(NamedTuple):
    x: np.ndarray  # (n, D)
    batch: np.ndarray
    labels: np.ndarray


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def planted(rng: np.random.Generator) -> Planted:
    """400 cells of 4 types in 3 unequal batches; types overlap a little, batches are shifted a little."""
    labels = rng.choice(["a", "b", "c", "d"], 400)
    batch = rng.choice(["one", "two", "three"], 400, p=[0.5, 0.3, 0.2])
    x = rng.normal(size=(400, 5))
    x[:, :2] += 2.0 * np.array([[0, 0], [0, 2], [2, 0], [2, 2]])[np.searchsorted(["a", "b", "c", "d"], labels)]
    x[:, 2] += 0.8 * (batch == "two")
    return Planted(x, batch, labels)
