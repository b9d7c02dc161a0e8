"""Counts of planted types in batches that differ by a factor for each gene."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp


class Counts(NamedTuple):
    x: sp.csr_matrix  # (n, G)
    batch: np.ndarray
    labels: np.ndarray


def draw(rng: np.random.Generator, n: int = 300, n_genes: int = 60, *, effect: float = 0.6) -> Counts:
    labels = rng.choice(["a", "b", "c"], n)
    batch = np.where(np.arange(n) < 0.6 * n, "first", "second")
    profiles = dict(zip("abc", rng.lognormal(0, 1, (3, n_genes)), strict=True))
    factor = {"first": np.ones(n_genes), "second": rng.lognormal(0, effect, n_genes)}
    means = np.stack([profiles[label] * factor[name] for label, name in zip(labels, batch, strict=True)])
    size = rng.uniform(0.5, 2, (n, 1)) * 400
    drawn = rng.poisson(size * means / means.sum(1, keepdims=True))
    return Counts(sp.csr_matrix(drawn.astype(np.float32)), batch, labels)


@pytest.fixture
def counts() -> Counts:
    return draw(np.random.default_rng(0))
