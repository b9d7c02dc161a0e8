"""Does a number per population go with the populations' phenotype? Rank tests that are exact for few populations.

Both tests are of the sum  T = sum_p rank(x_p) a_p  over populations p, with a = the phenotype's rank (Spearman), or 0
and 1 (Wilcoxon's rank sum). Its exact null distribution is T for all orders of a, and p is twice the smaller tail.
With more than 400,000 orders: the t distribution of Spearman's correlation, and SciPy's Mann-Whitney test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import category_text, encode, some
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.arrangements import arrangements, exact_p, n_arrangements
from lucidcell.readouts.factor_association import LEAST_DONORS, aurocs

Method = Literal["auto", "spearman", "wilcoxon"]
SIGNIFICANT = 0.05  # of a q-value
LEAST_NUMBERS = 4  # populations with a number; of two groups, 2 in each
MOST_ARRANGEMENTS = 400_000  # 9 populations with different numbers, or 10 of each of two groups


@dataclass(frozen=True)
class Phenotype:
    """What populations are tested against."""

    populations: list[str]  # those with a value, in the order of the networks
    left_out: list[str]  # those without
    ranked: np.ndarray  # (n,) a: ranks, or 0 and 1
    groups: tuple[str, str] | None  # the names of 0 and 1

    @property
    def smallest_p(self) -> float:
        """What a value per population, without ties, can give at the least: both ends of the exact distribution."""
        return min(1.0, 2 / n_arrangements(self.ranked))


def series_of(given: Mapping[Any, Any] | pd.Series, populations: Sequence[str]) -> pd.Series:
    """The phenotype of each population, missing where there is none.

    Raises
    ------
    DataError
        If a population is named twice, or none has a value.
    """
    if not isinstance(given, Mapping | pd.Series):
        raise DataError(f"phenotype is {type(given).__name__}; pass a dict or Series from populations to values.")
    values = pd.Series(given)
    values.index = pd.Index([category_text(name) for name in values.index])
    if not values.index.is_unique:
        twice = values.index[values.index.duplicated()][0]
        raise DataError(f"the phenotype has several values of population {twice!r}; pass one of each.")
    found = values.reindex(list(populations)).rename_axis("population").rename("phenotype")
    if found.isna().all():
        raise DataError(
            f"the phenotype has a value of none of the {len(populations)} populations: it names "
            f"{some(list(values.index))}, and they are {some(populations)}."
        )
    return found


def phenotype_of_column(column: pd.Series, of_cell: pd.Series, populations: Sequence[str]) -> pd.Series:
    """The phenotype of each population from a column of obs.

    Raises
    ------
    DataError
        If a population has several values.
    """
    codes, names = encode(of_cell)
    one_each = {}
    for name in populations:
        values = pd.unique(column[codes == names.index(name)].dropna())
        if len(values) > 1:
            raise DataError(
                f"obs[{column.name!r}] has {len(values)} values in population {name!r}, {some(list(values))}; the "
                "phenotype of a population must be one."
            )
        if len(values):
            one_each[name] = values[0]
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    return series_of(pd.Series(one_each, dtype=column.dtype if categorical else None), populations)


def as_phenotype(values: pd.Series, method: str = "auto") -> Phenotype:
    """Ranks or groups of the populations that have a value.

    Raises
    ------
    DataError
        If there are too few populations for a test, or neither numbers nor two groups.
    SettingError
        If `method` does not fit.
    """
    from scipy.stats import rankdata

    if method not in get_args(Method):
        raise SettingError(f"method is {method!r}; it must be {' or '.join(map(repr, get_args(Method)))}.")
    known = values.dropna()
    populations, left_out = list(known.index), list(values.index[values.isna()])
    numbers = None if isinstance(known.dtype, pd.CategoricalDtype) else _numbers(known)
    if method == "spearman" and numbers is None:
        raise SettingError(
            f"method is 'spearman', which is for numbers, and the phenotype holds "
            f"{some(sorted(set(map(str, known))))}: take 'wilcoxon' for two groups."
        )
    if numbers is not None and method != "wilcoxon":
        if len(known) < LEAST_NUMBERS or np.ptp(numbers) == 0:
            raise DataError(
                f"{len(known)} populations have a phenotype, with {len(set(numbers))} different numbers; a correlation "
                f"needs at least {LEAST_NUMBERS} populations and 2 numbers."
            )
        return Phenotype(populations, left_out, rankdata(numbers), None)
    codes, names = encode(known.rename("phenotype"))
    if len(names) != 2:
        raise DataError(
            f"the phenotype has {len(names)} categories, {some(names)}; a test is between two: leave out the others "
            "(missing values), or pass numbers."
        )
    if np.bincount(codes).min() < LEAST_DONORS:
        raise DataError(
            f"of {names[0]!r} there are {np.bincount(codes)[0]} populations and of {names[1]!r} "
            f"{np.bincount(codes)[1]}; at least {LEAST_DONORS} of each are needed."
        )
    return Phenotype(populations, left_out, codes.astype(float), (names[0], names[1]))


def rank_test(values: np.ndarray, phenotype: Phenotype) -> tuple[np.ndarray, np.ndarray]:
    """Effect and p-value of every row of `values` (m, n), n the phenotype's populations; NaN where all are equal.

    The effect is Spearman's correlation, or 2 AUROC - 1 (rank-biserial correlation) of the second group: from -1 to 1,
    0 for none.
    """
    from scipy.stats import rankdata

    effects, p_values = np.full(len(values), np.nan), np.full(len(values), np.nan)
    tested = np.isfinite(values).all(1)
    tested[tested] = np.ptp(values[tested], axis=1) > 0
    if not tested.any():
        return effects, p_values
    x, a = values[tested], phenotype.ranked
    if phenotype.groups is None:
        effects[tested] = _correlations(rankdata(x, axis=1), a)
    else:
        effects[tested] = 2 * aurocs(x.T, a > 0) - 1
    exact = n_arrangements(a) <= MOST_ARRANGEMENTS
    p = exact_p(rankdata(x, axis=1), a) if exact else _approximate(x, phenotype, effects[tested])
    p_values[tested] = np.maximum(p, phenotype.smallest_p)  # an approximation can promise more than there are orders
    return effects, p_values


def q_values(p_values: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over the p-values that are known."""
    from scipy.stats import false_discovery_control

    found, known = np.full(len(p_values), np.nan), np.isfinite(p_values)
    if known.any():
        found[known] = false_discovery_control(p_values[known])
    return found


def what_can_be_found(phenotype: Phenotype, n_tests: int) -> dict[str, Any]:
    """How far so many populations can go at all; for `attrs` of a table of tests."""
    smallest = phenotype.smallest_p
    together = max(1, ceil(smallest * n_tests / SIGNIFICANT - 1e-9))
    possible = together == 1
    n, q = len(phenotype.populations), f"q <= {SIGNIFICANT:g}"
    note = f"{n} populations can give p = {smallest:.2g} at the least, enough for {q} of one among {n_tests} tests."
    if smallest > SIGNIFICANT:
        note = f"{n} populations give p = {smallest:.2g} at the least: nothing can be significant, whatever the data."
    elif not possible:
        note = (
            f"{n} populations give p = {smallest:.2g} at the least: none of {n_tests} tests can have {q} alone; "
            f"{together} would have to reach that p together."
        )
    return {
        "test": "spearman" if phenotype.groups is None else "wilcoxon", "groups": phenotype.groups,
        "n_populations": n, "left_out": phenotype.left_out, "smallest_p": smallest, "can_be_significant": possible,
        "note": note,
    }  # fmt: skip


def separation(distance: np.ndarray, phenotype: Phenotype, n_permutations: int, seed: int) -> pd.Series:
    """Permutation test of whether populations that differ in phenotype are farther apart, for distances (n, n).

    Two groups: mean distance between groups minus that within. Numbers: correlation over pairs of the distance with
    the difference of the phenotype's ranks (Mantel). All arrangements, if there are no more than `n_permutations`.
    """
    a = phenotype.ranked
    first, second = np.triu_indices(len(a), 1)
    apart, differing = distance[first, second], np.abs(a[first] - a[second])
    if phenotype.groups is None:
        weights = (apart - apart.mean()) / max(apart.std() * differing.std() * len(apart), np.finfo(float).tiny)
        shift = 0.0
    else:  # differing is 0 or 1
        n_between = differing.sum()
        n_within = len(differing) - n_between
        weights, shift = apart / n_between + apart / n_within, -apart.sum() / n_within
    exact = n_arrangements(a) <= n_permutations
    rng = np.random.default_rng(seed)
    others = arrangements(a) if exact else rng.permuted(np.tile(a, (n_permutations, 1)), axis=1)
    null = np.abs(others[:, first] - others[:, second]) @ weights + shift
    observed = float(differing @ weights + shift)
    n_extreme = int((null >= observed - 1e-9 * max(1.0, abs(observed))).sum())
    p_value = n_extreme / len(null) if exact else (1 + n_extreme) / (1 + len(null))
    statistic = "mantel correlation" if phenotype.groups is None else "between minus within"
    return pd.Series(
        {"test": statistic, "statistic": observed, "p_value": p_value, "n_permutations": len(null), "exact": exact,
         "n_populations": len(a)}
    )  # fmt: skip


def _approximate(x: np.ndarray, phenotype: Phenotype, effects: np.ndarray) -> np.ndarray:
    from scipy.stats import mannwhitneyu, t

    n = x.shape[1]
    if phenotype.groups is None:
        with np.errstate(divide="ignore"):
            p: np.ndarray = 2 * t.sf(np.abs(effects) * np.sqrt((n - 2) / (1 - np.minimum(effects**2, 1))), n - 2)
        return p
    inside, p = phenotype.ranked > 0, np.empty(len(x))
    tied = (np.diff(np.sort(x, axis=1), axis=1) == 0).any(1)
    for rows in (tied, ~tied):  # without ties SciPy is exact for a small group
        if rows.any():
            p[rows] = mannwhitneyu(x[rows][:, inside], x[rows][:, ~inside], axis=1)[1]
    return p


def _correlations(ranks: np.ndarray, a: np.ndarray) -> np.ndarray:
    centred, of_a = ranks - ranks.mean(1, keepdims=True), a - a.mean()
    found: np.ndarray = centred @ of_a / np.sqrt((centred**2).sum(1) * (of_a**2).sum())
    return np.clip(found, -1, 1)


def _numbers(values: pd.Series) -> np.ndarray | None:
    """The values as floats, or None if they are categories (text, booleans)."""
    plain = values.infer_objects()
    if pd.api.types.is_bool_dtype(plain) or not pd.api.types.is_numeric_dtype(plain):
        return None
    numbers = plain.to_numpy(float)
    if not np.isfinite(numbers).all():
        raise DataError(f"the phenotype of population {plain.index[~np.isfinite(numbers)][0]!r} is infinite.")
    return numbers
