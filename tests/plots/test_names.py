"""Names fit for a figure."""

from __future__ import annotations

import pytest

from lucidcell.plots.names import readable


@pytest.mark.parametrize(("name", "written"), [
    ("CD4+ T cell", "CD4+ T cell"),
    ("two\nlines\tand tabs", "two lines and tabs"),
    ("nul\x00 and bell\x07", "nul\N{REPLACEMENT CHARACTER} and bell\N{REPLACEMENT CHARACTER}"),
    ("right-to-left \u202egnp", "right-to-left \N{REPLACEMENT CHARACTER}gnp"),
    ("lone \ud800 surrogate", "lone \N{REPLACEMENT CHARACTER} surrogate"),
    ("", "\N{REPLACEMENT CHARACTER}"),
    ("日本語 é", "日本語 é"),
    (7, "7"),
])  # fmt: skip
def test_one_printable_line(name, written):
    assert readable(name) == written


def test_long_names_keep_both_ends():
    text = readable("start" + "x" * 100 + "end", 20)
    assert len(text) == 20
    assert text.startswith("start")
    assert text.endswith("end")
    assert "…" in text
    assert readable("x" * 20, 20) == "x" * 20
