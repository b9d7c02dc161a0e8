"""Temperatures: planted ones are found, errors fall on cells that were not fitted, few labels are declined."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lucidcell.metrics import expected_calibration_error
from lucidcell.readouts.calibration import FEWEST_CELLS, Calibration, calibrate, fit_temperature, tempered, weights_of

NAMES = ["B", "NK", "T", "mono"]


def planted(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(x), and a classifier that says softmax(temperature x): too sure of itself above 1."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, len(NAMES)))
    labels = np.array([rng.choice(len(NAMES), p=p) for p in softmax(logits, axis=1)])
    return log_softmax(temperature * logits, axis=1), labels


def negative_log_likelihood(log_probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    powers = np.exp(log_probabilities) ** (1 / temperature)
    return float(-np.log(powers[np.arange(len(labels)), labels] / powers.sum(1)).mean())


def error(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    names = np.array(NAMES)
    return expected_calibration_error(
        names[labels], names[log_probabilities.argmax(1)], np.exp(log_probabilities).max(1), n_bins=10
    )


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_planted_temperature_is_found(truth: float) -> None:
    assert fit_temperature(*planted(8000, truth)) == pytest.approx(truth, rel=0.05)


def test_the_temperature_is_where_another_optimiser_finds_it() -> None:
    log_probabilities, labels = planted(300, 2.5)
    direct = minimize(
        lambda t: negative_log_likelihood(log_probabilities, labels, t[0]), [1.0], method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-12},
    )  # fmt: skip
    assert fit_temperature(log_probabilities, labels) == pytest.approx(direct.x[0], rel=1e-4)


def test_tempered_probabilities_by_hand() -> None:
    given = np.log([[0.8, 0.15, 0.05], [0.2, 0.2, 0.6]])
    powers = np.sqrt([[0.8, 0.15, 0.05], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(np.exp(tempered(given, 2.0)), powers / powers.sum(1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(tempered(given, 1.0), given, atol=1e-12)
    certain = np.array([[0.0, -np.inf]])
    assert np.exp(tempered(certain, 3.0)).tolist() == [[1.0, 0.0]]


def test_the_error_falls_on_cells_that_were_not_fitted() -> None:
    fitted, others = planted(400, 3.0, seed=1), planted(4000, 3.0, seed=2)
    temperature = calibrate(*fitted, NAMES, source="").temperature
    assert error(others[0], others[1]) > 0.1
    assert error(tempered(others[0], temperature), others[1]) < 0.03


def test_the_reported_errors_are_those_of_other_cells() -> None:
    """Not of the cells that the temperature was fitted to, which would flatter it."""
    found = calibrate(*planted(400, 3.0, seed=1), NAMES, source="held-out cells")
    others, labels = planted(20_000, 3.0, seed=2)
    assert found.error_before == pytest.approx(error(others, labels), abs=0.04)
    assert found.error_after == pytest.approx(error(tempered(others, found.temperature), labels), abs=0.04)
    assert (found.labels, found.n_cells, found.declined) == ("held-out cells", 400, None)


def test_the_reliability_table_counts_every_cell_twice() -> None:
    found = calibrate(*planted(400, 3.0), NAMES, source="")
    assert found.reliability is not None
    by_kind = found.reliability.groupby("probabilities")
    assert by_kind["n_cells"].sum().to_dict() == {"calibrated": 400, "raw": 400}
    for kind, stated in (("raw", found.error_before), ("calibrated", found.error_after)):
        bins = by_kind.get_group(kind).query("n_cells > 0")
        assert np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["n_cells"]) == pytest.approx(
            stated
        )


def test_a_temperature_that_does_not_help_other_cells_is_not_used() -> None:
    used = [calibrate(*planted(60, 1.0, seed), NAMES, source="").temperature for seed in range(20)]
    assert used.count(1.0) > 10
    assert all(calibrate(*planted(60, 3.0, seed), NAMES, source="").temperature > 1.5 for seed in range(5))


def test_labels_that_are_rarer_than_their_type_count_more() -> None:
    """The classifier is much too sure of one type, which is one cell in ten, and of half of those with a label."""
    population, labels = planted(20_000, 1.0, seed=4)
    population = np.where((labels == 0)[:, None], tempered(population, 0.2), population)
    rng = np.random.default_rng(0)
    rare, common = np.flatnonzero(labels == 0), np.flatnonzero(labels > 0)
    of_interest = np.concatenate([rng.choice(rare, 500), rng.choice(common, 4500)])
    labelled = np.concatenate([rng.choice(rare, 400), rng.choice(common, 400)])
    truth = fit_temperature(population[of_interest], labels[of_interest])
    frequencies = np.bincount(labels[of_interest], minlength=len(NAMES)) / len(of_interest)
    weights = weights_of(labels[labelled], frequencies)
    found = [calibrate(population[labelled], labels[labelled], NAMES, source="", weights=w) for w in (weights, None)]
    assert abs(found[0].temperature - truth) < 0.5 * abs(found[1].temperature - truth)
    after = error(tempered(population[of_interest], found[0].temperature), labels[of_interest])
    assert found[0].error_after == pytest.approx(after, abs=0.04)


def test_weights_give_types_their_frequencies() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    weights = weights_of(labels, np.array([0.2, 0.5, 0.3, 0.1]))
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(labels, weights=weights) / weights.sum(), [0.2, 0.5, 0.3])


def test_few_labels_are_declined_with_a_sentence() -> None:
    log_probabilities, labels = planted(FEWEST_CELLS, 3.0)
    found = calibrate(log_probabilities[:8], labels[:8], NAMES, source="held-out cells")
    assert found.declined is not None
    assert found.declined.startswith("to calibrate probabilities takes 50 held-out cells, and there are 8;")
    assert (found.temperature, found.reliability) == (1.0, None)
    assert calibrate(log_probabilities, labels, NAMES, source="").declined is None


def test_the_confusion_is_that_of_the_same_cells() -> None:
    log_probabilities, labels = planted(400, 3.0)
    found = calibrate(log_probabilities, labels, NAMES, source="").confusion
    assert found is not None
    right = np.trace(found.loc[NAMES, NAMES])
    assert (found.to_numpy().sum(), right) == (400, (log_probabilities.argmax(1) == labels).sum())


@pytest.mark.parametrize("n_cells", [200, 3])
def test_calibration_is_the_same_after_json(n_cells: int) -> None:
    found = calibrate(*planted(n_cells, 3.0), NAMES, source="held-out cells")
    again = Calibration.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    for name, value in vars(found).items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(getattr(again, name), value, check_names=False)
        else:
            assert getattr(again, name) == value
