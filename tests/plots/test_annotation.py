"""Predicted against known labels, and confidence against accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from lucidcell.errors import DataError
from lucidcell.plots import calibration_curve, confusion_matrix


@pytest.fixture
def counts():
    return pd.DataFrame([[3, 1, 0], [0, 1, 1]], index=["T", "B"], columns=["T", "unknown", "B"])


def test_rows_are_shown_in_percent_and_other_names_come_last(ax, counts):
    confusion_matrix(counts, ax=ax)
    assert np.asarray(ax.images[0].get_array()).tolist() == [[75, 0, 25], [0, 50, 50]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["T (4)", "B (2)"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["T", "B", "unknown"]
    assert sorted(text.get_text() for text in ax.texts) == ["25", "50", "50", "75"]


def test_types_that_are_never_predicted_keep_their_place(ax, counts):
    confusion_matrix(counts[["B"]], ax=ax)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["T", "B"]


def test_large_matrices_show_colours_only(ax):
    names = [f"type {i}" for i in range(25)]
    confusion_matrix(pd.DataFrame(np.eye(25), names, names), ax=ax)
    assert not ax.texts


def test_a_table_without_rows_is_refused(counts):
    with pytest.raises(DataError, match="the table of counts has no rows"):
        confusion_matrix(counts.iloc[:0])


@pytest.fixture
def reliability():
    columns = ["probabilities", "lower", "upper", "n_cells", "confidence", "accuracy"]
    rows = [("raw", 0.0, 0.5, 0, np.nan, np.nan), ("raw", 0.5, 1.0, 40, 0.9, 0.7)]
    rows += [("calibrated", 0.0, 0.5, 10, 0.4, 0.5), ("calibrated", 0.5, 1.0, 30, 0.8, 0.8)]
    return pd.DataFrame(rows, columns=columns)


def test_points_intervals_and_numbers_of_cells(reliability):
    curve, sizes = calibration_curve(reliability, axes=Figure().subplots(1, 2))
    lines = [container.lines[0].get_xydata().tolist() for container in curve.containers]
    assert lines == [[[0.9, 0.7]], [[0.4, 0.5], [0.8, 0.8]]]
    (low, high) = np.asarray(curve.containers[0].lines[2][0].get_segments()[0])[:, 1]
    assert (low, high) == pytest.approx(proportion_confint(28, 40, method="wilson"), abs=1e-4)
    assert [patch.get_data().values.tolist() for patch in sizes.patches] == [[0, 40], [10, 30]]
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["raw", "calibrated"]


def test_a_table_without_its_columns_is_refused(reliability):
    with pytest.raises(DataError, match="lacks the columns accuracy"):
        calibration_curve(reliability.drop(columns="accuracy"))
