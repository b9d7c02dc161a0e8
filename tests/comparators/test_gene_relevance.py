"""Gene Relevance against loops that follow its definition, and against derivatives that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from lucidcell.comparators.gene_relevance import gene_relevance, partial_derivatives
from lucidcell.errors import DataError, SettingError


def test_derivatives_equal_their_definition() -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(0.8, (40, 6)).astype(float)
    z = rng.normal(size=(40, 2))
    distance = ((x[:, None] - x[None]) ** 2).sum(2) + 1e9 * np.eye(40) + 1e-9 * rng.random((40, 40))
    k = 5
    found = list(partial_derivatives(x, z, k, 0.0))
    for d in range(2):
        for cell in range(40):
            nearest = np.argsort(distance[cell])[:k]
            if distance[cell][np.argsort(distance[cell])[k]] - distance[cell][nearest[-1]] < 1e-6:
                continue  # which of equally near cells is a neighbour is open
            for gene in range(6):
                quotients = [
                    (x[n, gene] - x[cell, gene]) / (z[n, d] - z[cell, d])
                    for n in nearest
                    if x[n, gene] != x[cell, gene]
                ]
                wanted = np.median(quotients) if len(quotients) >= 2 else np.nan
                assert found[d][cell, gene] == pytest.approx(wanted, rel=1e-5, nan_ok=True)


def test_smoothing_equals_its_definition() -> None:
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(50, 3)) * (rng.random((50, 3)) > 0.3), rng.normal(size=(50, 1))
    raw, smooth = next(partial_derivatives(x, z, 5, 0.0)), next(partial_derivatives(x, z, 5, 0.2))
    rank = np.argsort(np.argsort(z[:, 0]))
    for cell in range(50):
        gap = np.abs(rank - rank[cell])
        weight = np.exp(-0.5 * (2.5 * gap / 5) ** 2) * (gap <= 5)
        for gene in range(3):
            known = ~np.isnan(raw[:, gene])
            wanted = (weight * known) @ np.nan_to_num(raw[:, gene]) / (weight @ known)
            assert smooth[cell, gene] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("window", [0.0, 0.1])
def test_slopes_of_a_linear_map_are_found(window: float) -> None:
    rng = np.random.default_rng(2)
    z, weights = rng.normal(size=(600, 1)), rng.normal(size=(30, 1))
    found = gene_relevance(z @ weights.T, z, window=window)
    np.testing.assert_allclose(found, weights, atol=1e-3)


def test_with_two_dimensions_slopes_are_found_in_part() -> None:
    rng = np.random.default_rng(3)
    z, weights = rng.normal(size=(800, 2)), rng.normal(size=(40, 2))
    found = gene_relevance(z @ weights.T + 0.01 * rng.normal(size=(800, 40)), z)
    for d in range(2):
        assert abs(spearmanr(found[:, d], weights[:, d])[0]) > 0.5


def test_what_cannot_be_used_is_refused() -> None:
    x, z = np.random.default_rng(0).normal(size=(30, 4)), np.zeros((30, 2))
    with pytest.raises(DataError, match="embedding 29"):
        gene_relevance(x, z[:29])
    with pytest.raises(SettingError, match="k=30"):
        gene_relevance(x, z, k=30)
    with pytest.raises(SettingError, match="window"):
        gene_relevance(x, z, window=2)
    with pytest.raises(DataError, match="NaN"):
        gene_relevance(np.where(x > 2, np.nan, x) + np.nan, z)
    assert (gene_relevance(x, z) == 0).all()  # no run, no derivative
