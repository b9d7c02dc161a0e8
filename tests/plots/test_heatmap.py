"""Heat maps: scale and written values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lucidcell.errors import DataError
from lucidcell.plots import heatmap


def test_signed_tables_are_centred_and_written_out(ax):
    heatmap(
        pd.DataFrame([[1.0, -4.0], [np.nan, -0.04]], index=["r1", "$\\x{$"], columns=["c1", "_c"]),
        color_label="z",
        ax=ax,
    )
    image = ax.get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-4, 4)
    assert [text.get_text() for text in ax.texts] == ["1.0", "−4.0", "0.0"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["r1", "$\\x{$"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["c1", "_c"]
    ax.get_figure().draw_without_rendering()


def test_shares_start_at_zero(ax):
    heatmap(pd.DataFrame([[0.2, 0.8]]), color_label="share", ax=ax)
    assert (ax.get_images()[0].norm.vmin, ax.get_images()[0].norm.vmax) == (0, 0.8)


def test_large_tables_show_colours_only(ax, rng):
    heatmap(pd.DataFrame(rng.random((20, 20))), color_label="share", ax=ax)
    assert not ax.texts


def test_empty_table():
    with pytest.raises(DataError, match="no rows"):
        heatmap(pd.DataFrame(), color_label="z")
