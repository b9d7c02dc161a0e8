"""Predictions, their probabilities and their rejection, of a small scANVI with two levels of labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import SettingError
from lucidcell.readouts.annotation import calibrate_model, label_log_probabilities
from lucidcell.readouts.calibration import fit_temperature, weights_of
from lucidcell.readouts.cross_fit import cross_fitted_log_probabilities

COARSE = {"type_0": "left", "type_1": "left", "type_2": "right", "type_3": "right"}
TRAINING = {"max_epochs": 4, "batch_size": 64, "num_threads": 1, "progress": False}
SMALL = {"unlabeled_category": "?", "n_latent": 4, "n_hidden": 16}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """400 cells of 4 types in 2 groups; a fifth has no label, and a tenth only the coarse one."""
    adata = simulate_counts(400, 60, n_types=4, n_batches=2, seed=3)
    share = np.random.default_rng(0).random(400)
    fine = adata.obs["cell_type"].astype(str)
    adata.obs["coarse"] = np.where(share < 0.2, "?", fine.map(COARSE))
    adata.obs["fine"] = np.where(share < 0.3, "?", fine)
    return adata


@pytest.fixture(scope="module")
def model(cells: ad.AnnData) -> Any:
    """Trained with a third of the cells held out, so that there are labels enough to calibrate; not to be changed."""
    made = lc.SCANVI(cells, batch_key="batch", labels_key=["coarse", "fine"], **SMALL)
    made.train(train_size=0.65, **TRAINING)
    return made


# --- calibrated probabilities -------------------------------------------------------------------------------------


def test_the_temperature_is_fitted_to_held_out_cells_with_a_finest_label(model: Any, cells: ad.AnnData) -> None:
    rows = model.validation_indices[(cells.obs["fine"] != "?").to_numpy()[model.validation_indices]]
    leaves = {name: leaf for leaf, name in enumerate(model.taxonomy.leaf_names)}
    labels = np.array([leaves[name] for name in cells.obs["fine"].iloc[rows]])
    assert model.calibration.n_cells == len(rows) > 50
    assert model.calibration.labels == "labelled cells that were held out"
    frequencies = np.exp(label_log_probabilities(model, indices=(cells.obs["coarse"] == "?").to_numpy())).mean(0)
    weights = weights_of(labels, frequencies)
    expected = fit_temperature(label_log_probabilities(model, indices=rows), labels, weights)
    assert model.calibration.temperature in (pytest.approx(expected), 1.0)


def test_probabilities_are_at_the_temperature_and_parents_are_sums(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = model.predict(soft=True, calibrated=False)
    monkeypatch.setattr(model, "calibration", replace(model.calibration, temperature=2.5))
    found = model.predict(soft=True)
    powers = raw ** (1 / 2.5)
    np.testing.assert_allclose(found, powers.div(powers.sum(axis=1), axis=0), atol=1e-9)
    above = model.predict(soft=True, level="coarse")
    for group in ("left", "right"):
        children = [name for name, parent in COARSE.items() if parent == group]
        np.testing.assert_allclose(above[group], found[children].sum(axis=1), atol=1e-9)


def test_a_temperature_changes_no_prediction(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [model.predict(level=level) for level in (0, 1)]
    monkeypatch.setattr(model, "calibration", replace(model.calibration, temperature=4.0))
    for level, names in enumerate(before):
        pd.testing.assert_series_equal(model.predict(level=level), names)


def test_few_labels_are_declined_and_probabilities_stay_raw(
    cells: ad.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    few = cells.copy()
    few.obs["fine"] = np.where(np.arange(400) < 40, cells.obs["cell_type"], "?")
    model = lc.SCANVI(few, labels_key="fine", **SMALL)
    assert model.calibration is None
    with caplog.at_level(logging.WARNING):
        model.train(**TRAINING | {"max_epochs": 1})
    found = model.calibration
    assert found.declined is not None
    said = "takes 50 labelled cells that could be left out in turn, and there are 40; they stay as the classifier"
    assert said in found.declined
    assert found.declined in caplog.text
    pd.testing.assert_frame_equal(model.predict(soft=True), model.predict(soft=True, calibrated=False))


def test_few_labels_are_judged_by_classifiers_that_had_not_seen_them(cells: ad.AnnData) -> None:
    few = cells.copy()
    few.obs["fine"] = np.where(np.arange(400) < 80, cells.obs["cell_type"], "?")
    model = lc.SCANVI(few, labels_key="fine", **SMALL)
    model.train(**TRAINING | {"max_epochs": 30})
    found, known = model.calibration, np.arange(80)
    assert (found.labels, found.n_cells) == ("labelled cells that could be left out in turn", 80)
    assert not np.isin(known, model.validation_indices).any()
    crossed, own = cross_fitted_log_probabilities(model, known), label_log_probabilities(model, indices=known)
    np.testing.assert_array_equal(crossed, cross_fitted_log_probabilities(model, known))
    label = model.cells.label[known]
    assert crossed[known, label].mean() < own[known, label].mean(), "the model's own classifier has seen these labels"
    assert (crossed.argmax(1) == label).mean() > 0.5


@pytest.mark.parametrize("training", ["joint", "both"])
def test_labels_that_the_encoder_was_fitted_to_judge_nothing(cells: ad.AnnData, training: str) -> None:
    """Every classifier on such an embedding would be right about them, whether it had seen them or not."""
    few = cells.copy()
    few.obs["fine"] = np.where(np.arange(400) < 80, cells.obs["cell_type"], "?")
    model = lc.SCANVI(few, labels_key="fine", training=training, **SMALL)
    model.train(**TRAINING | {"max_epochs": 1})
    n_held_out = int((model.validation_indices < 80).sum())
    said = f"takes 50 labelled cells that were held out, and there are {n_held_out}"
    assert n_held_out > 0
    assert said in model.calibration.declined


def test_a_classifier_that_had_no_turn_is_not_judged_by_others(cells: ad.AnnData) -> None:
    few = cells.copy()
    few.obs["fine"] = np.where(np.arange(400) < 80, cells.obs["cell_type"], "?")
    model = lc.SCANVI(few, labels_key="fine", **SMALL)
    model.train(**TRAINING | {"max_epochs": 2})
    assert model.calibration.declined is None
    for interrupted in (model.history[model.history["phase"] == "scvi"], model.history[[]].iloc[:0]):
        model.history = interrupted
        assert "that were held out, and there are 0" in calibrate_model(model).declined


def test_the_only_label_of_a_type_is_not_judged(cells: ad.AnnData) -> None:
    """No classifier that had not seen it could know the type."""
    few, of_type = cells.copy(), (cells.obs["cell_type"] == "type_0").to_numpy()
    hidden = (np.arange(400) >= 100) | (of_type & (np.cumsum(of_type) > 1))
    few.obs["fine"] = np.where(hidden, "?", cells.obs["cell_type"])
    model = lc.SCANVI(few, labels_key="fine", **SMALL)
    model.train(**TRAINING | {"max_epochs": 2})
    assert (few.obs["fine"] == "type_0").sum() == 1
    assert model.calibration.n_cells == (~hidden).sum() - 1


def test_saving_and_mapping_keep_the_calibration(model: Any, cells: ad.AnnData, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    again = lc.load(tmp_path / "run", cells)
    assert again.calibration.temperature == model.calibration.temperature
    pd.testing.assert_frame_equal(again.predict(soft=True), model.predict(soft=True))
    query = model.map_query(cells[:30].copy())
    pd.testing.assert_frame_equal(query.predict(soft=True), model.predict(soft=True, indices=np.arange(30)))


# --- rejection ----------------------------------------------------------------------------------------------------


def test_the_finest_level_that_is_sure_enough_is_named(model: Any) -> None:
    table = model.annotate()
    enough = float(table["confidence_coarse"].median())
    names = model.predict(threshold=enough)
    fine, coarse = table["confidence_fine"] >= enough, table["confidence_coarse"] >= enough
    expected = np.where(fine, table["prediction_fine"], np.where(coarse, table["prediction_coarse"], "unknown"))
    assert (names == expected).all()
    assert {"left", "right"} & set(names)  # some cells are sure of the group alone
    assert model.predict(level=0, threshold=0.8).isin(["left", "right", "unknown"]).all()


def test_rejection_grows_with_the_threshold(model: Any) -> None:
    named, finest = [], []
    for threshold in np.linspace(0, 1, 11):
        names = model.predict(threshold=threshold)
        named.append((names != "unknown").sum())
        finest.append(names.isin(list(COARSE)).sum())
    assert named[0] == finest[0] == 400
    assert named == sorted(named, reverse=True)
    assert finest == sorted(finest, reverse=True)
    assert named[-1] < 400
    pd.testing.assert_series_equal(model.predict(threshold=0), model.predict())


def test_rejected_cells_can_have_another_name(model: Any) -> None:
    assert set(model.predict(threshold=1.0, unknown="not sure")) <= {*COARSE, *COARSE.values(), "not sure"}
    with pytest.raises(SettingError, match="'left' is a type"):
        model.predict(threshold=0.5, unknown="left")
    with pytest.raises(SettingError, match="threshold is 1.5"):
        model.predict(threshold=1.5)
    with pytest.raises(SettingError, match="with soft=True there are none"):
        model.predict(soft=True, threshold=0.5)


# --- the table ----------------------------------------------------------------------------------------------------


def test_uncertainty_and_entropy_are_those_of_the_probabilities(model: Any, cells: ad.AnnData) -> None:
    probabilities, table = model.predict(soft=True), model.annotate()
    assert list(table.index) == list(cells.obs_names)
    np.testing.assert_allclose(table["confidence"], probabilities.max(axis=1))
    np.testing.assert_allclose(table["uncertainty"], 1 - probabilities.max(axis=1))
    np.testing.assert_allclose(table["entropy"], entropy(probabilities, axis=1), atol=1e-12)
    assert (table["prediction"] == probabilities.idxmax(axis=1)).all()
    for level in ("coarse", "fine"):
        assert (table[f"prediction_{level}"] == model.predict(level=level)).all()
        of_level = model.predict(soft=True, level=level)
        chosen = [of_level.at[cell, name] for cell, name in table[f"prediction_{level}"].items()]
        np.testing.assert_allclose(table[f"confidence_{level}"], chosen)


def test_the_table_after_rejection(model: Any) -> None:
    table = model.annotate(threshold=0.8, unknown="?!")
    assert (table.loc[table["prediction"] != "?!", "confidence"] >= 0.8).all()
    unsure = table[table["prediction"] == "?!"]
    np.testing.assert_array_equal(unsure["confidence"], unsure["confidence_coarse"])
    assert (unsure["confidence"] < 0.8).all()
    pd.testing.assert_series_equal(table["entropy"], model.annotate()["entropy"])


def test_some_cells_and_other_cells(model: Any, cells: ad.AnnData) -> None:
    whole, rows = model.annotate(), np.array([7, 3, 90])
    pd.testing.assert_frame_equal(model.annotate(indices=rows), whole.iloc[rows], check_categorical=False)
    pd.testing.assert_frame_equal(model.annotate(cells[rows].copy()), whole.iloc[rows], check_categorical=False)


def test_a_flat_model_has_one_level(cells: ad.AnnData) -> None:
    flat = lc.SCANVI(cells, labels_key="fine", **SMALL)
    flat.train(**TRAINING | {"max_epochs": 1})
    assert list(flat.annotate().columns) == ["prediction", "confidence", "uncertainty", "entropy"]
    named = flat.predict(threshold=0.9)
    assert set(named) <= {*COARSE, "unknown"}
