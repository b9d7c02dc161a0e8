"""Which columns of obs a factor goes with: cell types, donors' phenotypes, ages.

Where cells come from donors they are not independent, and tests over cells find everything significant. So with
`donor_key` the donor is the unit:

    a category that differs between cells of one donor (a cell type)   AUROC within every donor; is their mean 1/2?
    a column that is constant within donors (a phenotype, an age)      AUROC, or rank correlation, of the donors' means

The first is a one-sample t-test of the donors' AUROC against 1/2 (of the arctangent of Spearman's correlation against 0
for numbers), with at least the variance that these statistics have by chance within a donor, so that donors which agree
by accident, or perfectly, are not infinitely sure. The second is a Mann-Whitney test, or that of Spearman's
correlation, over donors. Without donors both are over cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import encode
from lucidcell.errors import DataError, SettingError

LEAST_CELLS = 3  # of a category, and of the others, for an AUROC
LEAST_DONORS = 2  # the same for donors
MOST_CATEGORIES = 100


def factor_association(
    scores: pd.DataFrame, obs: pd.DataFrame, columns: str | Sequence[str], *, donor_key: str | None = None
) -> pd.DataFrame:
    """Association of every factor with every category, or value, of some columns.

    Parameters
    ----------
    scores
        Cells x factors.
    obs
        The columns, one row for each cell in the same order. Cells without a value are left out of its tests.
    columns
        Columns to test. Numbers are tested by rank correlation, everything else category by category against all
        other cells.
    donor_key
        Column of obs that names the donor, or whatever else is the independent unit.

    Returns
    -------
    DataFrame with one row for each factor, column and category, smallest p first: factor, column, category (empty for
    numbers), statistic ("auroc" or "spearman"), effect (its value), unit ("cells" or "donors"), n (units tested),
    p_value, q_value (Benjamini-Hochberg over the whole table). An AUROC is the probability that a cell of the category
    (or the mean of a donor of it) has the higher score: 1/2 is none, and 0 as strong as 1.

    Raises
    ------
    DataError
        If a column is missing, or cells do not fit.
    SettingError
        If no column is named.
    """
    from scipy.stats import false_discovery_control

    for name, table in (("scores", scores), ("obs", obs)):
        if not isinstance(table, pd.DataFrame):
            raise DataError(f"{name} is {type(table).__name__}: pass a DataFrame with a row for each cell.")
    wanted = [columns] if isinstance(columns, str) else list(columns) if isinstance(columns, Iterable) else []
    if not wanted:
        raise SettingError("columns names no column; name at least one of obs.")
    if len(scores) != len(obs):
        raise DataError(f"scores have {len(scores)} cells and obs {len(obs)}: pass the same cells in the same order.")
    missing = [key for key in (*wanted, donor_key) if key is not None and key not in obs]
    if missing:
        raise DataError(f"obs has no column {missing[0]!r}; it has {', '.join(map(str, obs.columns[:20]))}.")
    donors = None if donor_key is None else encode(obs[donor_key])[0]
    rows = [row for key in wanted for row in _of_column(scores, obs[key], donors)]
    table = pd.DataFrame(rows, columns=["factor", "column", "category", "statistic", "effect", "unit", "n", "p_value"])
    table["q_value"] = np.nan
    known = table["p_value"].notna()
    if known.any():
        table.loc[known, "q_value"] = false_discovery_control(table.loc[known, "p_value"])
    return table.sort_values("p_value", kind="stable", ignore_index=True)


def _of_column(scores: pd.DataFrame, column: pd.Series, donors: np.ndarray | None) -> Iterator[tuple[Any, ...]]:
    if pd.api.types.is_datetime64_any_dtype(column):
        column = (column - column.min()).dt.total_seconds().rename(column.name)
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number:
        values = column.to_numpy(float)
        for factor in scores:
            effect, p_value, n, unit = _of_number(scores[factor].to_numpy(float), values, donors)
            yield factor, column.name, "", "spearman", effect, unit, n, p_value
        return
    codes, names = encode(column)
    if len(names) > MOST_CATEGORIES:
        raise DataError(f"obs[{column.name!r}] has {len(names)} categories, more than {MOST_CATEGORIES}: is it a name?")
    known = (codes >= 0) & (True if donors is None else donors >= 0)
    z, codes = scores.to_numpy(float)[known], codes[known]
    for code, name in enumerate(names):
        found = _over_cells(z, codes == code) if donors is None else _over_donors(z, codes == code, donors[known])
        for factor, effect, p_value in zip(scores, found.effects, found.p_values, strict=True):
            yield factor, column.name, name, "auroc", effect, found.unit, found.n, p_value


def _of_number(z: np.ndarray, values: np.ndarray, donors: np.ndarray | None) -> tuple[float, float, int, str]:
    from scipy.stats import spearmanr

    known = np.isfinite(values) & (True if donors is None else donors >= 0)
    z, values = z[known], values[known]
    if donors is None:
        found = spearmanr(z, values) if _varied(z) and _varied(values) else None
        return (np.nan, np.nan, len(z), "cells") if found is None else (found[0], found[1], len(z), "cells")
    of_donor = pd.DataFrame({"z": z, "value": values, "donor": donors[known]}).groupby("donor")
    if (of_donor["value"].nunique() <= 1).all():
        means = of_donor.mean()
        if len(means) < 4 or not _varied(means["value"].to_numpy()):
            return np.nan, np.nan, len(means), "donors"
        found = spearmanr(means["z"], means["value"])
        return found[0], found[1], len(means), "donors"
    within, floors = [], []
    for _, one in of_donor:
        if len(one) >= 2 * LEAST_CELLS and _varied(one["value"].to_numpy()) and _varied(one["z"].to_numpy()):
            within.append(spearmanr(one["z"], one["value"])[0])
            floors.append(1 / (len(one) - 3))
    mean = float(np.mean(within)) if within else np.nan
    transformed = np.arctanh(np.clip(within, -0.999, 0.999))
    return mean, _t_test(transformed, 0.0, np.array(floors)), len(within), "donors"


class _Found(NamedTuple):
    """AUROC of a category and its p-value for every factor, (D,), over n units."""

    effects: np.ndarray
    p_values: np.ndarray
    n: int
    unit: str


def _over_cells(z: np.ndarray, inside: np.ndarray) -> _Found:
    return _Found(*_ranked(z, inside, LEAST_CELLS), len(z), "cells")


def _over_donors(z: np.ndarray, inside: np.ndarray, donors: np.ndarray) -> _Found:
    of_donor = [donors == donor for donor in np.unique(donors)]
    shares = np.array([inside[rows].mean() for rows in of_donor])
    if np.isin(shares, (0, 1)).all():  # constant within donors
        means = np.array([z[rows].mean(0) for rows in of_donor])
        return _Found(*_ranked(means, shares == 1, LEAST_DONORS), len(means), "donors")
    of_donor = [rows for rows in of_donor if _least(inside[rows]) >= LEAST_CELLS]
    within = np.array([aurocs(z[rows], inside[rows]) for rows in of_donor]).reshape(-1, z.shape[1])
    by_chance = [(rows.sum() + 1) / (12 * inside[rows].sum() * (~inside[rows]).sum()) for rows in of_donor]
    effects = within.mean(0) if len(within) else np.full(z.shape[1], np.nan)
    p_values = np.array([_t_test(values, 0.5, np.array(by_chance)) for values in within.T])
    return _Found(effects, p_values, len(within), "donors")


def _ranked(z: np.ndarray, inside: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and the p-value of the Mann-Whitney test for every column; NaN for fewer than `least` rows on a side."""
    from scipy.stats import mannwhitneyu

    if _least(inside) < least:
        return np.full(z.shape[1], np.nan), np.full(z.shape[1], np.nan)
    return aurocs(z, inside), mannwhitneyu(z[inside], z[~inside], axis=0)[1]


def _least(inside: np.ndarray) -> int:
    return int(min(inside.sum(), (~inside).sum()))


def _t_test(values: np.ndarray, centre: float, floors: np.ndarray) -> float:
    """p of a one-sample t-test whose variance is at least the mean of `floors`; NaN for fewer than two values."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return np.nan
    variance = max(float(values.var(ddof=1)), float(floors.mean()))
    return float(2 * t.sf(abs(values.mean() - centre) / np.sqrt(variance / n), n - 1))


def aurocs(z: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """P(a row inside has the higher value) for every column of z, (D,); ties count half."""
    from scipy.stats import rankdata

    n_inside, n_outside = int(inside.sum()), int((~inside).sum())
    ranks = rankdata(z, axis=0)[inside].sum(0)
    found: np.ndarray = (ranks - n_inside * (n_inside + 1) / 2) / (n_inside * n_outside)
    return found


def _varied(values: np.ndarray) -> bool:
    return bool(np.ptp(values) > 0)
