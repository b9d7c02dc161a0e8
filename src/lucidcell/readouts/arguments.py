"""Checks of what read-outs are given."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from lucidcell.errors import SettingError


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, of Python or NumPy; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require_whole(value: object, name: str, smallest: int) -> None:
    """Raise `SettingError` if `value` is not a whole number of at least `smallest`; `name` is the argument's."""
    if not is_whole(value) or value < smallest:
        raise SettingError(f"{name} is {value!r}; it must be a whole number of at least {smallest}.")


def require_jobs(n_jobs: object) -> None:
    """Raise `SettingError` if it is no number of jobs as joblib counts them."""
    if not is_whole(n_jobs) or n_jobs == 0:
        raise SettingError(f"n_jobs is {n_jobs!r}; it must be a whole number other than 0, or -1 for all cores.")
