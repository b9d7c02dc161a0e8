"""How good predicted cell types are, and whether their probabilities mean what they say.

Sources: weighted accuracy, Xu et al. 2021 (scANVI), Online Methods "Evaluation metrics"; expected calibration error,
Naeini et al. 2015 and Guo et al. 2017.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups

UNASSIGNED = "unassigned"  # a prediction that declines to name a type


def weighted_accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over the types present in the truth of the share of their cells that are predicted right; 0 to 1.

    A declined prediction ("unassigned", "unknown", any name that is no type) is wrong. Also called balanced accuracy.

    Parameters
    ----------
    truth
        Cell type of each cell, (n,).
    predicted
        Predicted type of each cell, (n,).

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    table = confusion_table(truth, predicted)
    return float(np.mean([_right(table, name) / table.loc[name].sum() for name in table.index]))


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of cells that are predicted right; 0 to 1. Declined predictions are wrong.

    Parameters
    ----------
    truth, predicted
        As in `weighted_accuracy`.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    table = confusion_table(truth, predicted)
    return float(sum(_right(table, name) for name in table.index) / table.to_numpy().sum())


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over the types present in the truth of 2 precision recall / (precision + recall); 0 to 1.

    Parameters
    ----------
    truth, predicted
        As in `weighted_accuracy`.

    Raises
    ------
    DataError
        If lengths differ or a cell has no name.
    """
    table = confusion_table(truth, predicted)
    claimed = table.sum()
    scores = [2 * _right(table, name) / (table.loc[name].sum() + claimed.get(name, 0)) for name in table.index]
    return float(np.mean(scores))


def unassigned_rate(predicted: ArrayLike, *, unassigned: str = UNASSIGNED) -> float:
    """Share of cells without a predicted type; 0 to 1.

    Parameters
    ----------
    predicted
        Predicted type of each cell, (n,).
    unassigned
        The name that stands for no prediction.

    Raises
    ------
    DataError
        If a cell has no name.
    """
    found = groups(predicted, "predicted")
    return float(np.mean(np.asarray(found.names, object)[found.codes] == unassigned))


def confusion_table(truth: ArrayLike, predicted: ArrayLike) -> pd.DataFrame:
    """Cells of each true type (rows) with each prediction (columns).

    Parameters
    ----------
    truth, predicted
        As in `weighted_accuracy`.

    Returns
    -------
    pandas.DataFrame
        Counts; the columns are the true types that were predicted, in their order, then names that are no true type.

    Raises
    ------
    DataError
        If lengths differ, a cell has no name, or a true type is called "unassigned".
    """
    true = groups(truth, "truth", at_least=1)
    found = groups(predicted, "predicted", len(true.codes))
    if UNASSIGNED in true.names:
        raise DataError(f"truth holds {UNASSIGNED!r}, the name of a declined prediction: score only cells with a type.")
    counts = np.zeros((len(true.names), len(found.names)), np.int64)
    np.add.at(counts, (true.codes, found.codes), 1)
    table = pd.DataFrame(counts, pd.Index(true.names, name="truth"), pd.Index(found.names, name="predicted"))
    known = [name for name in true.names if name in found.names]
    return table[[*known, *(name for name in found.names if name not in known)]]


def reliability_table(
    truth: ArrayLike,
    predicted: ArrayLike,
    confidence: ArrayLike,
    *,
    n_bins: int = 15,
    weights: ArrayLike | None = None,
) -> pd.DataFrame:
    """Stated confidence against observed accuracy in bins of equal width: the calibration curve.

    Parameters
    ----------
    truth, predicted
        As in `weighted_accuracy`.
    confidence
        Probability of the predicted type, (n,), from 0 to 1.
    n_bins
        Bins between 0 and 1; a confidence on a boundary falls into the lower one.
    weights
        How much each cell counts, (n,), above 0; all the same for None.

    Returns
    -------
    pandas.DataFrame
        Columns lower, upper, n_cells, share (of the weights), confidence (mean), accuracy; the last two NaN where a bin
        is empty.

    Raises
    ------
    DataError
        If arrays do not fit, or a confidence is not a probability.
    SettingError
        If there is no bin.
    """
    true = groups(truth, "truth")
    found = groups(predicted, "predicted", len(true.codes))
    stated = np.asarray(confidence, np.float64)
    if stated.shape != true.codes.shape:
        raise DataError(f"confidence has shape {stated.shape} for {len(true.codes)} cells: pass one number for each.")
    if n_bad := int(np.count_nonzero(~((stated >= 0) & (stated <= 1 + 1e-6)))):
        raise DataError(f"confidence is outside 0 to 1, or NaN, in {n_bad} of {len(stated)} cells: pass probabilities.")
    if n_bins < 1:
        raise SettingError(f"n_bins={n_bins} is not possible: choose at least 1, usually 10 to 20.")
    weight = np.ones(len(stated)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != stated.shape or not (weight > 0).all():
        raise DataError(f"weights have shape {weight.shape} for {len(stated)} cells: pass one above 0 for each.")
    right = np.asarray(true.names, object)[true.codes] == np.asarray(found.names, object)[found.codes]
    edges = np.linspace(0, 1, n_bins + 1)
    place = np.clip(np.searchsorted(edges, stated) - 1, 0, n_bins - 1)
    n_cells = np.bincount(place, minlength=n_bins)
    total = np.bincount(place, weights=weight, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=weight * values, minlength=n_bins) / total for values in (stated, right)]
    columns = {"lower": edges[:-1], "upper": edges[1:], "n_cells": n_cells, "share": total / total.sum()}
    return pd.DataFrame(columns | {"confidence": means[0], "accuracy": means[1]})


def expected_calibration_error(
    truth: ArrayLike,
    predicted: ArrayLike,
    confidence: ArrayLike,
    *,
    n_bins: int = 15,
    weights: ArrayLike | None = None,
) -> float:
    """Mean |accuracy - confidence| over the bins of the calibration curve, weighted by cells; 0 to 1, lower is better.

    Parameters
    ----------
    truth, predicted, confidence, n_bins, weights
        As in `reliability_table`.

    Raises
    ------
    DataError
        If arrays do not fit, or a confidence is not a probability.
    SettingError
        If there is no bin.
    """
    table = reliability_table(truth, predicted, confidence, n_bins=n_bins, weights=weights)
    table = table[table["n_cells"] > 0]
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["share"]))


def _right(table: pd.DataFrame, name: str) -> int:
    return int(table.at[name, name]) if name in table.columns else 0
