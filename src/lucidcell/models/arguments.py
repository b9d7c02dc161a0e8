"""Checks of the fields of a model's config: numbers and choices that mean something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from lucidcell.errors import SettingError


def one_of(config: Any, name: str, allowed: Sequence[str]) -> None:
    """Refuse a field that is none of the names allowed."""
    if getattr(config, name) not in allowed:
        raise SettingError(f"{name} is {getattr(config, name)!r}; it must be one of {', '.join(allowed)}.")


def whole_number(config: Any, name: str, smallest: int = 1, said: str | None = None) -> None:
    """Refuse a field that is not a whole number of at least `smallest`; make it an int, since JSON has no NumPy.

    `said` is what the user knows it as, where that is another name.
    """
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < smallest:
        raise SettingError(f"{said or name} is {value!r}; it must be a whole number of at least {smallest}.")
    object.__setattr__(config, name, int(value))


def fraction(config: Any, name: str) -> None:
    """Refuse a field that is not at least 0 and below 1; make it a float."""
    value = getattr(config, name)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise SettingError(f"{name} is {value!r}; it must be at least 0 and below 1.")
    object.__setattr__(config, name, float(value))


def not_negative(config: Any, name: str) -> None:
    """Refuse a field that is not a number of at least 0; make it a float."""
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingError(f"{name} is {value!r}; it must be a number of at least 0.")
    object.__setattr__(config, name, float(value))


def yes_or_no(config: Any, name: str) -> None:
    """Refuse a field that is neither True nor False."""
    if not isinstance(getattr(config, name), bool):
        raise SettingError(f"{name} is {getattr(config, name)!r}; it must be True or False.")


def widths(config: Any, name: str) -> None:
    """Refuse a field that is neither a whole number of at least 1 nor several; make it a list."""
    value = getattr(config, name)
    several = [value] if isinstance(value, Integral) else list(value) if isinstance(value, list | tuple) else []
    if not several or not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 1 for n in several):
        raise SettingError(
            f"{name} is {value!r}; it must be a whole number of at least 1, or a list of them, one for each layer."
        )
    object.__setattr__(config, name, [int(n) for n in several])
