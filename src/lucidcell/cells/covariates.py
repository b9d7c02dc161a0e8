"""Columns of `obs` as numbers: categories as codes, numeric covariates checked and standardised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lucidcell.errors import DataError


def encode(column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes and names of the categories that occur.

    Returns
    -------
    codes
        (n,) int64, -1 where the value is missing.
    names
        In the order of a categorical column, else sorted. Numbers and booleans become text; 1.0 becomes "1".
    """
    given = isinstance(column.dtype, pd.CategoricalDtype)
    try:
        categories = pd.Categorical(column).remove_unused_categories()
    except TypeError:  # lists, dicts
        raise DataError(
            f"obs[{column.name!r}] holds values that cannot be compared ({type(column.iloc[0]).__name__}): "
            f"give a column of text, numbers or categories."
        ) from None
    texts = [category_text(value) for value in categories.categories]
    names = tuple(dict.fromkeys(texts))  # 1 and "1" are one category
    if not given and column.dtype == object:  # mixed types come in the order of the cells
        names = tuple(sorted(names))
    return recode(np.asarray(categories.codes, np.int64), texts, names), names


def recode(codes: np.ndarray, names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """Codes (n,) of `names` in the numbering of `known`, (n,) int64; -1 for names that are not there."""
    position = {name: i for i, name in enumerate(known)}
    lookup = np.array([*(position.get(name, -1) for name in names), -1], np.int64)
    return lookup[codes]


def category_text(value: Any) -> str:
    """How a category is written: like `str`, but whole floats as integers."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def require_complete(codes: np.ndarray, key: str, role: str) -> None:
    """Raise `DataError` if a cell has no value."""
    if n_missing := int(np.count_nonzero(codes < 0)):
        raise DataError(
            f"obs[{key!r}] has no value (NaN) in {n_missing} of {len(codes)} cells, and as {role} it needs one in "
            f"every cell: drop these cells with adata = adata[adata.obs[{key!r}].notna()].copy(), or give them a name."
        )


def require_few(names: Sequence[str], n_cells: int, key: str, role: str) -> None:
    """Raise `DataError` if there are more categories than half the cells (two are always allowed)."""
    if len(names) > max(2, n_cells // 2):
        raise DataError(
            f"obs[{key!r}] has {len(names)} different values in {n_cells} cells, so it is probably not a {role} "
            f"column: give one with few values that many cells share."
        )


def encode_known(column: pd.Series, known: Sequence[str], *, role: str, way_out: str) -> np.ndarray:
    """Codes (n,) int64 of a column in the categories `known` to a model.

    Raises
    ------
    DataError
        If values are missing, or not among `known`; then `way_out` ends the sentence.
    """
    key = str(column.name)
    codes, names = encode(column)
    require_complete(codes, key, role)
    found = recode(codes, names, known)
    if new := [name for name in names if name not in known]:
        raise DataError(
            f"obs[{key!r}] holds {some(new)} in {np.count_nonzero(found < 0)} of {len(codes)} cells, unknown to the "
            f"model as {role} (it knows {some(known)}): {way_out}."
        )
    return found


def one_hot(codes: np.ndarray, n_categories: int) -> np.ndarray:
    """(n, n_categories) float32."""
    return np.equal.outer(codes, np.arange(n_categories)).astype(np.float32)


def numeric(column: pd.Series, *, role: str) -> np.ndarray:
    """Values of a numeric column, (n,) float64.

    Raises
    ------
    DataError
        If some are not finite numbers.
    """
    plain = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    try:
        values = np.asarray(pd.to_numeric(plain).to_numpy(np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        raise DataError(
            f"obs[{column.name!r}] holds {column.dtype} values that are not numbers, and as {role} it must be numeric: "
            f"pass it as a categorical covariate or convert it."
        ) from None
    if n_bad := int(np.count_nonzero(~np.isfinite(values))):
        raise DataError(
            f"obs[{column.name!r}] is NaN or infinite in {n_bad} of {len(values)} cells, and as {role} it needs a "
            f"finite number in every cell: drop these cells or fill them in."
        )
    return values


def size_factors(column: pd.Series) -> np.ndarray:
    """Size factors, (n,) float64, all positive.

    Raises
    ------
    DataError
        If some are zero, negative or not finite.
    """
    values = numeric(column, role="size factor")
    if n_bad := int(np.count_nonzero(values <= 0)):
        raise DataError(
            f"obs[{column.name!r}] is zero or negative in {n_bad} of {len(values)} cells (smallest {values.min():.4g})"
            f", and size factors must be positive: drop these cells or leave size_factor_key out."
        )
    return values


def mean_and_scale(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation for standardising; the latter is 1 for a constant column."""
    mean, deviation = float(values.mean()), float(values.std())
    return mean, deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0


def some(names: Sequence[str] | np.ndarray) -> str:
    """The first few of the names, for a message."""
    shown = ", ".join(repr(str(name)) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
