"""Numbers and lists in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def number(value: Any) -> str:
    """Write a number with three digits and thousands separators, and anything else as text."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value != value:
        return "\N{EN DASH}"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        text = f"{int(value):,}"
    else:
        text = f"{value:.3g}" if abs(value) < 1e3 else f"{value:,.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """Write a number with its sign and two decimals."""
    return f"{value:+z.2f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Write a time span in its two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun, such as "1 batch" and "3 batches"."""
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count:,} {noun}{ending}"


def enumeration(names: Sequence[str]) -> str:
    """Join names with commas and a last "and"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
