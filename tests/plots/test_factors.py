"""Factor plots: which bars, in which order, in which colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lucidcell.errors import DataError, SettingError
from lucidcell.plots import factor_shares, label_means, loadings_bars
from lucidcell.plots.factors import unused
from lucidcell.plots.style import DOWN, MISSING, PALETTE, UP


def bars(ax):
    """Names, widths and colours from top to bottom."""
    names = [text.get_text() for text in ax.get_yticklabels()]
    return names, [bar.get_width() for bar in ax.patches], [to_hex(bar.get_facecolor()).upper() for bar in ax.patches]


def test_top_genes_are_those_of_a_full_sort(ax, loadings):
    names, widths, colors = bars(loadings_bars(loadings, "Z1", n_genes=4, ax=ax))
    ranked = loadings.set_index("gene")["Z1"].sort_values(ascending=False)
    wanted = pd.concat([ranked.head(4), ranked.tail(4)])
    assert names == list(wanted.index)
    np.testing.assert_array_equal(widths, wanted)
    assert colors == [UP] * 4 + [DOWN] * 4
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first name stands on top


def test_loadings_without_negative_values_have_no_lower_end(ax, loadings):
    names, widths, _ = bars(loadings_bars(loadings, "Z2", n_genes=4, ax=ax))
    assert len(names) == 4
    assert widths == sorted(loadings["Z2"], reverse=True)[:4]


def test_no_gene_is_drawn_twice(ax):
    table = pd.DataFrame({"gene": list("abc"), "Z1": [2.0, -1.0, 0.5]})
    assert bars(loadings_bars(table, "Z1", ax=ax))[0] == ["a", "c", "b"]


def test_loadings_faults(loadings):
    with pytest.raises(DataError, match="lacks the columns Z9"):
        loadings_bars(loadings, "Z9")
    with pytest.raises(DataError, match="all 50 loadings of factor 'Z1'"):
        loadings_bars(loadings.assign(Z1=0.0), "Z1")


def test_unused_factors_are_grey_and_named(factors):
    axes = factor_shares(factors, axes=Figure(layout="constrained").subplots(1, 2))
    for ax, column in zip(axes, ["z_variance", "kl"], strict=True):
        names, widths, colors = bars(ax)
        assert names == ["Z1", "Z2", "Z3"]
        np.testing.assert_array_equal(widths, factors[column])
        assert colors == [PALETTE[0], PALETTE[0], MISSING]
    assert [(text.get_text(), text.xy[1]) for text in axes[1].texts] == [("unused", 2)]


def test_an_unknown_divergence_does_not_make_a_factor_unused(factors):
    table = factors.assign(kl=np.nan)
    assert not unused(table).any()
    axes = factor_shares(table, axes=Figure(layout="constrained").subplots(1, 2))
    assert [text.get_text() for text in axes[1].texts] == ["not known"]


def test_wrong_number_of_axes(factors):
    with pytest.raises(SettingError, match="1 Axes were given and this figure has 2 panels"):
        factor_shares(factors, axes=[Figure().subplots()])


def test_label_means_keep_the_farthest_from_zero_in_order(ax):
    means = pd.Series({"a": 0.1, "b": -2.0, "c": 1.5, "d": 0.7, "e": -0.2})
    names, widths, colors = bars(label_means(means, n_labels=3, ax=ax))
    assert names == ["c", "d", "b"]
    assert widths == [1.5, 0.7, -2.0]
    assert colors == [UP, UP, DOWN]
    assert ax.get_ylabel() == "cell label (3 of 5)"
