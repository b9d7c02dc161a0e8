"""Rank tests over few populations: SciPy's exact methods, uniform p under the null, what cannot be significant."""

from __future__ import annotations

from math import comb, factorial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, mannwhitneyu, permutation_test, spearmanr

from lucidcell.errors import DataError, SettingError
from lucidcell.maths.arrangements import arrangements, n_arrangements
from lucidcell.readouts.population_tests import as_phenotype, rank_test, separation, series_of, what_can_be_found


def named(values: list) -> pd.Series:
    return pd.Series(values, [f"p{i}" for i in range(len(values))])


def groups(n_first: int, n_second: int) -> pd.Series:
    return named(["case"] * n_first + ["control"] * n_second)


def scipys_exact(x: np.ndarray, y: np.ndarray) -> float:
    def statistic(values: np.ndarray) -> float:
        return spearmanr(values, y).statistic

    return permutation_test((x,), statistic, permutation_type="pairings", n_resamples=np.inf, vectorized=False).pvalue


def test_all_different_orders_are_gone_through_once():
    orders = arrangements(np.array([1.0, 2, 2, 3, 3]))
    assert len(orders) == n_arrangements(np.array([1, 2, 2, 3, 3])) == 30
    assert len(np.unique(orders, axis=0)) == 30
    assert (np.sort(orders, axis=1) == [1, 2, 2, 3, 3]).all()


@pytest.mark.parametrize("tied", [False, True])
def test_few_numbers_give_scipys_exact_p(tied):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (4, 6)).astype(float) if tied else rng.standard_normal((4, 6))
    y = named([0.0, 1, 1, 5, 7, 8] if tied else [0.0, 2, 1, 5, 7, 30])
    effects, p_values = rank_test(x, as_phenotype(y))
    for row, effect, p_value in zip(x, effects, p_values, strict=True):
        assert effect == pytest.approx(spearmanr(row, y)[0])
        assert p_value == pytest.approx(scipys_exact(row, y.to_numpy()))


@pytest.mark.parametrize("sizes", [(3, 4), (6, 5), (2, 9)])
def test_few_populations_in_groups_give_scipys_exact_p(sizes):
    x = np.random.default_rng(1).standard_normal((5, sum(sizes)))
    effects, p_values = rank_test(x, as_phenotype(groups(*sizes)))
    theirs = mannwhitneyu(x[:, sizes[0] :], x[:, : sizes[0]], axis=1, method="exact")
    np.testing.assert_allclose(p_values, theirs.pvalue)
    np.testing.assert_allclose(effects, 2 * theirs.statistic / np.prod(sizes) - 1)


def test_tied_values_in_groups_are_permuted_too():
    x, y = np.array([0.0, 0, 1, 0.5, 1, 1, 1]), groups(3, 4)

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        return mannwhitneyu(a, b).statistic

    theirs = permutation_test((x[:3], x[3:]), statistic, n_resamples=np.inf, vectorized=False).pvalue
    assert rank_test(x[None], as_phenotype(y))[1][0] == pytest.approx(theirs)


def test_many_populations_give_scipys_approximations():
    rng = np.random.default_rng(2)
    x, number = rng.standard_normal((6, 30)), rng.standard_normal(30)
    x[3:] = np.round(x[3:])
    effects, p_values = rank_test(x, as_phenotype(named(list(number))))
    theirs = [spearmanr(row, number) for row in x]
    np.testing.assert_allclose(effects, [one.statistic for one in theirs])
    np.testing.assert_allclose(p_values, [one.pvalue for one in theirs])
    p_values = rank_test(x, as_phenotype(groups(14, 16)))[1]
    np.testing.assert_allclose(p_values, [mannwhitneyu(row[14:], row[:14]).pvalue for row in x])


@pytest.mark.parametrize("phenotype", [groups(12, 12), named(list(np.random.default_rng(5).random(24)))])
def test_p_is_uniform_where_there_is_nothing(phenotype):
    x = np.random.default_rng(3).standard_normal((1500, 24))
    assert kstest(rank_test(x, as_phenotype(phenotype))[1], "uniform").pvalue > 0.01


@pytest.mark.parametrize("phenotype", [groups(3, 4), named([1.0, 2, 3, 4, 5, 6])])
def test_exact_p_never_promises_too_much(phenotype):
    x = np.random.default_rng(4).standard_normal((4000, len(phenotype)))
    p_values = rank_test(x, as_phenotype(phenotype))[1]
    for level in np.unique(p_values):  # exact: P(p <= level) = level at every level that there is
        assert (p_values <= level + 1e-12).mean() == pytest.approx(level, abs=0.03)


def test_what_does_not_vary_is_not_tested():
    x = np.array([[1.0, 1, 1, 1, 1], [1, 2, 3, np.nan, 5], [1, 2, 3, 4, 5]])
    effects, p_values = rank_test(x, as_phenotype(groups(2, 3)))
    assert list(np.isnan(effects)) == list(np.isnan(p_values)) == [True, True, False]
    assert np.isnan(rank_test(x[:1], as_phenotype(groups(2, 3)))[1]).all()


def test_the_smallest_p_is_that_of_a_perfect_order():
    for phenotype, smallest in ((groups(3, 3), 2 / comb(6, 3)), (named([1.0, 2, 3, 4, 5]), 2 / factorial(5))):
        chosen = as_phenotype(phenotype)
        perfect = np.arange(len(phenotype), dtype=float)[None]
        assert rank_test(perfect, chosen)[1][0] == pytest.approx(smallest)
        assert chosen.smallest_p == pytest.approx(smallest)


def test_it_is_said_when_nothing_can_be_significant():
    hopeless = what_can_be_found(as_phenotype(groups(3, 3)), 100)
    assert not hopeless["can_be_significant"]
    assert "nothing can be significant" in hopeless["note"]
    alone = what_can_be_found(as_phenotype(groups(5, 5)), 100)  # 2 / 252
    assert not alone["can_be_significant"]
    assert "16 would have to reach that p together" in alone["note"]
    good = what_can_be_found(as_phenotype(groups(10, 10)), 100)
    assert good["can_be_significant"]
    assert "enough for q <= 0.05" in good["note"]


def distances(of_population: np.ndarray, noise: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    places = np.c_[of_population, np.zeros_like(of_population)] + noise * rng.standard_normal((len(of_population), 2))
    return np.linalg.norm(places[:, None] - places[None], axis=2)


def test_planted_groups_and_trends_are_separated():
    found = separation(distances(np.r_[np.zeros(8), np.ones(8)], 0.3, 0), as_phenotype(groups(8, 8)), 999, 0)
    assert found["p_value"] == pytest.approx(1 / 1000)
    assert found["test"] == "between minus within"
    numbers = np.linspace(0, 1, 12)
    found = separation(distances(numbers, 0.1, 0), as_phenotype(named(list(numbers))), 999, 0)
    assert found["p_value"] < 0.005
    assert found["statistic"] > 0.8


def test_the_statistics_of_separation_by_hand():
    distance = distances(np.array([0.0, 1, 5, 6, 8]), 0, 0)
    found = separation(distance, as_phenotype(groups(2, 3)), 999, 0)
    between = np.mean([5, 6, 8, 4, 5, 7])
    assert found["statistic"] == pytest.approx(between - np.mean([1, 1, 3, 2]))
    assert (found["exact"], found["n_permutations"], found["p_value"]) == (True, comb(5, 2), 1 / comb(5, 2))
    found = separation(distance, as_phenotype(named([1.0, 2, 3, 4, 5])), 999, 0)
    pairs = np.triu_indices(5, 1)
    expected = np.corrcoef(distance[pairs], np.subtract(*pairs))[0, 1]
    assert found["statistic"] == pytest.approx(-expected)


@pytest.mark.parametrize("phenotype", [groups(9, 9), named(list(np.random.default_rng(7).random(18)))])
def test_separation_is_uniform_where_there_is_none(phenotype):
    chosen, rng = as_phenotype(phenotype), np.random.default_rng(8)
    p_values = [separation(distances(rng.standard_normal(18), 1, s), chosen, 199, s)["p_value"] for s in range(300)]
    assert kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("values", "method", "error", "words"),
    [
        (groups(3, 3), "pearson", SettingError, "method is 'pearson'"),
        (groups(3, 3), "spearman", SettingError, "method is 'spearman', which is for numbers"),
        (named([1.0, 2, 3]), "auto", DataError, "3 populations have a phenotype"),
        (named([1.0, 1, 1, 1]), "auto", DataError, "1 different numbers"),
        (named([1.0, np.inf, 3, 4]), "auto", DataError, "'p1' is infinite"),
        (named(list("aabbcc")), "auto", DataError, "3 categories, 'a', 'b', 'c'"),
        (named([1.0, 2, 3, 4]), "wilcoxon", DataError, "4 categories"),
        (groups(1, 5), "auto", DataError, "of 'case' there are 1 populations and of 'control' 5"),
    ],
)
def test_a_phenotype_that_cannot_be_tested_is_refused(values, method, error, words):
    with pytest.raises(error, match=words):
        as_phenotype(values, method)


def test_booleans_and_categories_are_groups_and_keep_their_order():
    assert as_phenotype(named([True, False, True, False])).groups == ("False", "True")
    dose = named(pd.Categorical(["low", "high", "low", "high", None], categories=["low", "high"]))
    chosen = as_phenotype(dose)
    assert (chosen.groups, chosen.left_out) == (("low", "high"), ["p4"])
    assert as_phenotype(named([0, 1, 0, 1]), "wilcoxon").groups == ("0", "1")


def test_values_are_found_by_name():
    found = series_of({1: 3.0, "b": 4.0, "stranger": 1.0}, ["b", "1", "c"])
    assert list(found.index) == ["b", "1", "c"]
    assert list(found)[:2] == [4.0, 3.0]
    assert np.isnan(found["c"])
    for given, words in (
        ([1.0], "phenotype is list"),
        ({"x": 1.0}, "none of the 1 populations: it names 'x', and they are 'a'"),
        (pd.Series([1, 2], ["a", "a"]), "several values of population 'a'"),
    ):
        with pytest.raises(DataError, match=words):
            series_of(given, ["a"])


def test_an_approximation_gives_no_p_below_the_smallest_there_is():
    numbers = as_phenotype(pd.Series(np.arange(10.0), list("abcdefghij")))
    values = np.array([np.arange(10.0), np.r_[np.arange(8.0), 9, 8]])
    p_values = rank_test(values, numbers)[1]
    assert (p_values >= numbers.smallest_p).all()
    assert p_values[0] == pytest.approx(2 / factorial(10))
