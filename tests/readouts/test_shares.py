from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lucidcell as lc
from lucidcell.errors import DataError, SettingError

NAMES = ["a", "b", "c"]


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 0.2]])
    scores = pd.DataFrame(rng.standard_normal((500, 3)) @ mixing, columns=NAMES)
    loadings = pd.DataFrame(rng.standard_normal((40, 3)), [f"g{i}" for i in range(40)], NAMES)
    return scores, loadings, rng.lognormal(size=40)


def test_shares_are_covariances_with_the_whole_predictor(tables):
    """share_d is the covariance of factor d's part with the sum of all parts, genes weighted by expression."""
    scores, loadings, rho = tables
    w = loadings.to_numpy() - rho @ loadings.to_numpy() / rho.sum()
    parts = scores.to_numpy()[:, None] * w[None]  # cells x genes x factors
    whole = parts.sum(2)
    by_hand = [sum(rho[g] * np.cov(parts[:, g, d], whole[:, g])[0, 1] for g in range(40)) for d in range(3)]
    table = lc.factor_shares(scores, loadings, rho)
    np.testing.assert_allclose(table["share"], np.array(by_hand) / sum(by_hand))
    assert table["share"].sum() == pytest.approx(1)


def test_what_changes_no_expression_changes_no_share(tables):
    scores, loadings, rho = tables
    shifted = lc.factor_shares(scores, loadings + np.array([5.0, -3.0, 1.0]), rho)
    pd.testing.assert_frame_equal(shifted, lc.factor_shares(scores, loadings, rho))
    simplex = np.exp(scores).div(np.exp(scores).sum(axis=1), axis=0)
    gene = pd.Series(np.random.default_rng(1).standard_normal(40), loadings.index)
    one, other = (
        lc.factor_shares(simplex, table, rho, on_simplex=True) for table in (loadings, loadings.add(gene, axis=0))
    )
    pd.testing.assert_frame_equal(one, other)


def test_a_negative_share_is_reported(tables):
    """Of a factor that works against a stronger one."""
    scores, loadings, rho = tables
    scores["b"], loadings["b"] = scores["a"] * 0.9, -0.5 * loadings["a"]
    table = lc.factor_shares(scores, loadings, rho).set_index("factor")
    assert table["share"]["b"] < 0
    assert table["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("order", ["share", "drop_one", "z_variance"])
def test_order(tables, order):
    assert lc.factor_shares(*tables, order=order)[order].is_monotonic_decreasing


def test_covariance_correlation_and_spectrum_are_numpy(tables):
    scores = tables[0]
    np.testing.assert_allclose(lc.factor_covariance(scores), np.cov(scores.T))
    np.testing.assert_allclose(lc.factor_correlation(scores), np.corrcoef(scores.T))
    values = np.sqrt(np.sort(np.linalg.eigvalsh(np.corrcoef(scores.T)))[::-1])
    np.testing.assert_allclose(lc.spectrum(scores), values / values.sum())


def test_the_spectrum_is_nearly_flat_whatever_the_factors_vary():
    """Why it orders nothing: standard deviations from 10 to 0.01 leave no trace (reference_implementations, 4)."""
    scores = np.random.default_rng(2).standard_normal((5000, 4)) * [10, 1, 0.1, 0.01]
    assert np.ptp(lc.spectrum(pd.DataFrame(scores))) < 0.02


def test_a_constant_factor_adds_a_zero(tables):
    scores = tables[0]
    values = lc.spectrum(scores.assign(d=1.0))
    np.testing.assert_allclose(values, [*lc.spectrum(scores), 0])


def test_tables_that_do_not_belong_together(tables):
    scores, loadings, rho = tables
    with pytest.raises(DataError, match="same factors"):
        lc.factor_shares(scores[["b", "a", "c"]], loadings, rho)
    with pytest.raises(DataError, match=r"\(3,\) for 40 genes"):
        lc.factor_shares(scores, loadings, rho[:3])
    with pytest.raises(SettingError, match="order is 'eigen'"):
        lc.factor_shares(scores, loadings, rho, order="eigen")


def test_no_share_where_nothing_varies(tables):
    """One cell, or loadings of zero: there is nothing to divide, which must not stop a run from being saved."""
    scores, loadings, rho = tables
    for table in (lc.factor_shares(scores.head(1), loadings, rho), lc.factor_shares(scores, 0 * loadings, rho)):
        assert table[["share", "drop_one"]].isna().all(axis=None)
        assert table["z_variance"].notna().all()
