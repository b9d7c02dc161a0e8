"""The table of scores: order, headings, what is bold, and which way is better."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from lucidcell.errors import DataError
from lucidcell.plots import evaluation


@pytest.fixture
def scores() -> pd.DataFrame:
    table = pd.DataFrame(
        {"ilisi": [0.1, 0.5], "kmeans_ari": [-0.02, np.nan], "calibration_error": [0.04, 0.2], "total": [0.3, 0.6]},
        index=["X_pca", "X_scvi"],
    )
    groups = {"batch correction": ["ilisi"], "bio": ["kmeans_ari", "calibration_error"], "aggregate": ["total"]}
    table.attrs["groups"] = groups
    return table


def written(ax) -> dict[str, str]:
    return {text.get_text(): text.get_fontweight() for text in ax.texts}


def test_rows_are_sorted_by_the_total_and_the_best_are_bold(scores, ax):
    evaluation(scores, ax=ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["X_scvi", "X_pca"]
    titles = [tick.get_text() for tick in ax.get_xticklabels()]
    assert titles == ["iLISI", "k-means ARI", "calibration error \N{DOWNWARDS ARROW}", "total"]
    texts = written(ax)
    bold = [name for name, weight in texts.items() if weight == "bold"]
    assert bold == ["0.50", "\N{MINUS SIGN}0.02", "0.04", "0.60"]
    assert {"batch correction", "bio", "aggregate", "\N{EN DASH}"} <= set(texts)
    ax.get_figure().draw_without_rendering()


def test_brighter_is_better_also_where_lower_is(scores, ax):
    evaluation(scores, ax=ax)
    colours = [dots.get_facecolor()[0][:3] @ [0.2, 0.7, 0.1] for dots in ax.collections]  # luminance
    scvi_lisi, pca_lisi, pca_ari, scvi_error, pca_error = colours
    assert scvi_lisi > pca_lisi > pca_ari  # a negative score is as dark as 0
    assert pca_error > scvi_error > scvi_lisi


def test_aggregates_are_bars_as_long_as_their_values(scores, ax):
    evaluation(scores, ax=ax)
    bars = [patch.get_width() for patch in ax.patches if isinstance(patch, Rectangle)]
    assert bars == pytest.approx([0.9, 0.9 * 0.6, 0.9, 0.9 * 0.3])  # each on a full-length track


def test_a_table_without_headings_and_another_order(scores, ax):
    plain = pd.DataFrame(scores)
    plain.attrs = {}
    evaluation(plain, sort_by="calibration_error", ax=ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["X_pca", "X_scvi"]
    assert not ax.patches


def test_errors(scores, ax):
    with pytest.raises(DataError, match="the table of scores lacks the columns clisi"):
        evaluation(scores, groups={"bio": ["clisi"]}, ax=ax)
    with pytest.raises(DataError, match="has no columns"):
        evaluation(pd.DataFrame(index=["X_pca"]), ax=ax)
    with pytest.raises(DataError, match="the table of scores lacks the columns clisi"):
        evaluation(scores, sort_by="clisi", ax=ax)
