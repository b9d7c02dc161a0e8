"""Predicted against known labels, and confidence against accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint

from lucidcell.errors import DataError
from lucidcell.plots import calibration_curve, confusion_matrix
from lucidcell.plots.annotation import confusion_counts


def test_counts_are_those_of_sklearn(rng):
    truth, predicted = rng.choice(["B", "NK", "T"], 200), rng.choice(["B", "NK", "T", "unknown"], 200)
    names = ["B", "NK", "T", "unknown"]
    counts = confusion_counts(truth, predicted)
    assert list(counts.columns) == names
    assert (counts.to_numpy() == metrics.confusion_matrix(truth, predicted, labels=names)[:3]).all()


def test_order_is_that_of_the_categories_and_unlabelled_cells_are_left_out():
    truth = pd.Categorical(["T", "B", None, "T"], categories=["T", "NK", "B"])
    counts = confusion_counts(truth, ["T", "B", "B", "mast"])
    assert list(counts.index) == ["T", "B"]
    assert list(counts.columns) == ["T", "B", "mast"]
    assert counts.to_numpy().tolist() == [[1, 0, 1], [0, 1, 0]]


def test_rows_are_shown_in_percent(ax):
    confusion_matrix(["T"] * 4 + ["B"], ["T", "T", "T", "B", "B"], ax=ax)
    assert np.asarray(ax.images[0].get_array()).tolist() == [[100, 0], [25, 75]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["B (1)", "T (4)"]
    assert sorted(text.get_text() for text in ax.texts) == ["100", "25", "75"]


def test_large_matrices_show_colours_only(ax, rng):
    names = [f"type {i}" for i in range(25)]
    confusion_matrix(names * 2, rng.permutation(names * 2), ax=ax)
    assert not ax.texts


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="there are 2 known labels and 1 predictions"):
        confusion_matrix(["T", "B"], ["T"])
    with pytest.raises(DataError, match="none of the 2 cells has a known label"):
        confusion_matrix([None, None], ["T", "B"])


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
