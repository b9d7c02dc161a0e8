"""Scores of predicted types: scikit-learn as oracle, hand values, declined predictions, calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics import (
    accuracy,
    confusion_table,
    expected_calibration_error,
    macro_f1,
    reliability_table,
    unassigned_rate,
    weighted_accuracy,
)

TYPES = ["B", "NK", "T", "rare"]


@pytest.fixture
def answers(rng):
    """500 cells, right in two cases of three; rare cells are 2 %."""
    truth = rng.choice(TYPES, 500, p=[0.4, 0.3, 0.28, 0.02])
    return truth, np.where(rng.random(500) < 2 / 3, truth, rng.choice(TYPES, 500))


def test_scores_are_those_of_scikit_learn(answers):
    truth, predicted = answers
    assert weighted_accuracy(truth, predicted) == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert accuracy(truth, predicted) == pytest.approx(sk.accuracy_score(truth, predicted))
    assert macro_f1(truth, predicted) == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    table = confusion_table(truth, predicted)
    assert table.index.tolist() == table.columns.tolist() == TYPES
    np.testing.assert_array_equal(table, sk.confusion_matrix(truth, predicted))


def test_types_that_are_not_in_the_truth_are_wrong_and_not_averaged_over():
    truth = ["B", "B", "T", "T"]
    predicted = ["B", "unassigned", "T", "NK"]
    assert weighted_accuracy(truth, predicted) == 0.5
    assert accuracy(truth, predicted) == 0.5
    assert macro_f1(truth, predicted) == pytest.approx(2 / 3)  # precision 1, recall 1/2, for both
    wanted = sk.f1_score(truth, predicted, labels=["B", "T"], average="macro")
    assert macro_f1(truth, predicted) == pytest.approx(wanted)
    assert unassigned_rate(predicted) == 0.25
    assert unassigned_rate(predicted, unassigned="NK") == 0.25
    table = confusion_table(truth, predicted)
    assert table.columns.tolist() == ["B", "T", "NK", "unassigned"]
    assert table.to_numpy().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]


def test_rare_types_weigh_as_much_as_common_ones():
    truth = ["B"] * 98 + ["rare"] * 2
    assert accuracy(truth, ["B"] * 100) == 0.98
    assert weighted_accuracy(truth, ["B"] * 100) == 0.5


def test_ends_and_chance_level(rng):
    truth = rng.choice(TYPES[:3], 6000, p=[0.8, 0.1, 0.1])
    assert weighted_accuracy(truth, truth) == accuracy(truth, truth) == macro_f1(truth, truth) == 1.0
    assert weighted_accuracy(truth, np.full(6000, "rare")) == macro_f1(truth, np.full(6000, "rare")) == 0.0
    assert weighted_accuracy(truth, rng.permutation(truth)) == pytest.approx(1 / 3, abs=0.03)


def test_numbers_and_their_names_are_the_same_type():
    assert accuracy([1, 2, 2], ["1", "2", "1"]) == pytest.approx(2 / 3)


def test_order_does_not_matter(answers, rng):
    truth, predicted = answers
    order = rng.permutation(500)
    confidence = rng.random(500)
    assert weighted_accuracy(truth[order], predicted[order]) == pytest.approx(weighted_accuracy(truth, predicted))
    moved = expected_calibration_error(truth[order], predicted[order], confidence[order])
    assert moved == pytest.approx(expected_calibration_error(truth, predicted, confidence))


def test_calibration_by_hand():
    """Two bins: confidences .2 and .4 (one right), .9 and .7 (both right)."""
    truth, predicted, confidence = ["a"] * 4, ["a", "b", "a", "a"], [0.2, 0.4, 0.9, 0.7]
    table = reliability_table(truth, predicted, confidence, n_bins=2)
    assert table["n_cells"].tolist() == [2, 2]
    assert table["confidence"].tolist() == pytest.approx([0.3, 0.8])
    assert table["accuracy"].tolist() == [0.5, 1.0]
    assert expected_calibration_error(truth, predicted, confidence, n_bins=2) == pytest.approx((0.2 + 0.2) / 2)
    assert expected_calibration_error(truth, predicted, confidence, n_bins=1) == pytest.approx(0.75 - 0.55)


def test_calibration_ends(rng):
    confidence = rng.uniform(0.2, 1, 40_000)
    predicted = np.where(rng.random(40_000) < confidence, "right", "wrong")
    truth = np.full(40_000, "right")
    assert expected_calibration_error(truth, predicted, confidence) < 0.015  # what 15 bins of 2,700 cells scatter
    assert expected_calibration_error(truth, np.full(40_000, "wrong"), np.ones(40_000)) == 1.0
    assert expected_calibration_error(truth, truth, np.ones(40_000)) == 0.0
    empty = reliability_table(truth, truth, np.ones(40_000))
    assert empty["n_cells"].tolist() == [0] * 14 + [40_000]
    assert empty["accuracy"].isna().sum() == 14


def test_a_weight_counts_as_repeated_cells(rng):
    truth, predicted = rng.choice(["a", "b"], 60), rng.choice(["a", "b"], 60)
    confidence, weights = rng.uniform(0.5, 1, 60), rng.integers(1, 4, 60)
    repeated = [np.repeat(values, weights) for values in (truth, predicted, confidence)]
    weighted, plain = reliability_table(truth, predicted, confidence, weights=weights), reliability_table(*repeated)
    pd.testing.assert_frame_equal(weighted.drop(columns="n_cells"), plain.drop(columns="n_cells"))
    assert expected_calibration_error(truth, predicted, confidence, weights=weights) == pytest.approx(
        expected_calibration_error(*repeated)
    )
    with pytest.raises(DataError, match="weights have shape"):
        reliability_table(truth, predicted, confidence, weights=weights - 1)


def test_a_confidence_on_a_boundary_falls_into_the_lower_bin():
    table = reliability_table(["a", "a", "a"], ["a", "a", "a"], [0.0, 0.5, 1.0], n_bins=2)
    assert table["n_cells"].tolist() == [2, 1]


def test_errors(answers):
    truth, predicted = answers
    with pytest.raises(DataError, match="predicted has 499 entries for 500 cells"):
        accuracy(truth, predicted[:-1])
    with pytest.raises(DataError, match=r"truth is missing \(NaN\) in 1 of 2 cells"):
        accuracy(["a", None], ["a", "a"])
    with pytest.raises(DataError, match="truth holds 'unassigned'"):
        accuracy(["a", "unassigned"], ["a", "unassigned"])
    with pytest.raises(DataError, match="outside 0 to 1, or NaN, in 2 of 3 cells"):
        expected_calibration_error(["a"] * 3, ["a"] * 3, [0.5, 1.5, np.nan])
    with pytest.raises(DataError, match=r"confidence has shape \(2,\) for 3 cells"):
        expected_calibration_error(["a"] * 3, ["a"] * 3, [0.5, 0.5])
    with pytest.raises(SettingError, match="n_bins=0"):
        reliability_table(["a"], ["a"], [0.5], n_bins=0)
