"""Observed against expected: the points, the line, the names."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lucidcell.errors import DataError
from lucidcell.plots import predictive_check, reconstruction
from lucidcell.plots.reconstruction import log2_ratio


def offsets(ax):
    return np.asarray(ax.collections[0].get_offsets())


def test_planted_misfits_are_named_without_overlap(ax, genes):
    planted = [3, 50, 77, 120, 200]
    genes.loc[planted, "mean_observed"] = np.linspace(1, 1.1, 5)  # close together, so that names must give way
    genes.loc[planted, "mean_expected"] = genes.loc[planted, "mean_observed"] * 3
    reconstruction(genes, n_named=5, ax=ax)
    texts = {text.get_text(): text for text in ax.texts}
    assert set(texts) == {f"gene_{g}" for g in planted}
    ax.get_figure().draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts.values()]  # without the leaders
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_points_are_the_table_and_the_line_is_identity(ax, genes):
    reconstruction(genes, ax=ax)
    np.testing.assert_array_equal(offsets(ax), genes[["mean_observed", "mean_expected"]])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_xlim() == ax.get_ylim()
    line = ax.get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_silent_genes_are_counted_not_drawn(ax, genes):
    genes.loc[:4, "mean_observed"] = 0
    reconstruction(genes, ax=ax)
    assert len(offsets(ax)) == 295
    assert "5 genes not shown (0 or missing)" in [text.get_text() for text in ax.texts]


def test_no_gene_at_all_on_the_axes(ax, genes):
    reconstruction(genes.assign(mean_observed=0.0), ax=ax)
    ax.get_figure().draw_without_rendering()
    assert len(offsets(ax)) == 0


def test_rare_genes_do_not_lead_the_ranking(genes):
    genes.loc[0, ["mean_observed", "mean_expected"]] = [0.0001, 0.001]  # tenfold, of next to nothing
    genes.loc[1, ["mean_observed", "mean_expected"]] = [2.0, 5.0]
    ratio = log2_ratio(genes)
    assert ratio.abs().idxmax() == 1
    assert ratio[1] == pytest.approx(np.log2(5.01 / 2.01))


def test_both_statistics_are_drawn(genes):
    genes.loc[0, "cv_observed"] = np.nan
    axes = predictive_check(genes, axes=Figure(layout="constrained").subplots(1, 2))
    np.testing.assert_array_equal(offsets(axes[0]), genes.loc[1:, ["cv_observed", "cv_expected"]])
    np.testing.assert_array_equal(offsets(axes[1]), genes[["zero_fraction_observed", "zero_fraction_expected"]])
    assert axes[1].get_xlim()[0] < 0 < 1 < axes[1].get_xlim()[1]
    assert "1 genes not shown" in axes[0].texts[0].get_text()


@pytest.mark.parametrize("draw", [reconstruction, predictive_check])
def test_missing_columns(draw, genes):
    with pytest.raises(DataError, match="the table of genes lacks the columns"):
        draw(genes[["gene"]])
