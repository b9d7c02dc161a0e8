"""Numbers in words."""

from __future__ import annotations

import pytest

from lucidcell.report.wording import duration, enumeration, number, percent, plural, signed


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (1234567, "1,234,567"), (3.0, "3"), (0.123456, "0.123"), (12.3456, "12.3"), (-0.5, "−0.5"),
    (12345.6, "12,346"), (1e-7, "1e−07"), (None, "–"), (float("nan"), "–"), (True, "True"), ("nb", "nb"),
])  # fmt: skip
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [
    (0.04, "0.0 s"), (59.94, "59.9 s"), (59.97, "1 min 0 s"), (83.2, "1 min 23 s"), (3599.6, "1 h 0 min"),
    (7384, "2 h 3 min"),
])  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_small_ones():
    assert percent(0.1234) == "12.3 %"
    assert (signed(1.234), signed(-0.5), signed(-0.001)) == ("+1.23", "−0.50", "+0.00")
    assert (plural(1, "factor"), plural(2, "batch"), plural(1200, "factor")) == (
        "1 factor",
        "2 batches",
        "1,200 factors",
    )
    assert (enumeration([]), enumeration(["a"]), enumeration(["a", "b", "c"])) == ("", "a", "a, b and c")
