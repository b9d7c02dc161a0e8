"""Error bounds of the vectorised functions, against double precision, and that their edges are safe."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from lucidcell.maths import vector_math as vm

F = np.float32


@njit
def exps(x):
    return np.array([vm.exp(v) for v in x])


@njit
def logs(x):
    return np.array([vm.log(v) for v in x])


@njit
def log1ps(x):
    return np.array([vm.log1p(v, np.float32(1.0) / (np.float32(1.0) + v)) for v in x])


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted) / np.abs(wanted)))


def test_exp_is_good_to_1e_7():
    x = np.concatenate([np.linspace(-87, 88, 100_001), np.logspace(-30, 0, 1000), -np.logspace(-30, 0, 1000)]).astype(F)
    assert relative_error(exps(x), np.exp(x.astype(float))) < 1.2e-7


def test_exp_is_one_at_zero_and_tiny_far_below():
    assert exps(np.array([0, -0.0], F)).tolist() == [1, 1]
    low = exps(np.array([-88, -1e4, -3e38, -np.inf], F))
    assert ((low >= 0) & (low < 2e-38)).all()


def test_log_is_good_to_1e_7_of_its_value_or_of_one():
    x = np.concatenate([np.logspace(-37, 38, 100_001), 1 + np.linspace(-0.3, 0.4, 10_001)]).astype(F)
    wanted = np.log(x.astype(float))
    assert np.max(np.abs(logs(x) - wanted) / np.maximum(np.abs(wanted), 1)) < 1.2e-7
    assert logs(np.ones(1, F)).item() == 0


def test_log1p_keeps_small_arguments():
    x = np.concatenate([np.logspace(-30, 30, 10_001), -np.logspace(-30, -0.01, 10_001)]).astype(F)
    assert relative_error(log1ps(x), np.log1p(x.astype(float))) < 3e-7


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1001])
def test_maximum_and_total(n):
    x = np.random.default_rng(n).normal(size=n).astype(F)
    assert vm.maximum(x) == x.max()
    assert vm.maximum(-np.abs(x)) == -np.abs(x).min()
    assert vm.total(x) == pytest.approx(x.astype(float).sum(), rel=1e-12)
