"""Calibrated probabilities: one temperature, fitted to labels that the classifier had not seen.

    p_T(c) = p(c)^(1/T) / sum_c' p(c')^(1/T)        over the leaves; a type above them keeps the sum of its leaves

T > 1 makes a model that is too sure of itself more modest, T < 1 the reverse; the likeliest leaf stays the likeliest.
T minimises the negative log-likelihood of the labels (Guo et al. 2017, Proc. Mach. Learn. Res. 70, 1321). The errors
that are reported are cross-fitted: the cells are divided into parts, and each part is judged at the temperature that
the others give. A temperature that does not make the labels of other cells likelier is not used, and with too few
labels none is fitted; probabilities then stay as the classifier gives them.

Labels may have been given to as many cells of a rare type as of a common one, while the cells that are to be labelled
come as they are. So every labelled cell counts by the frequency of its type among the latter over that among the former
(as for any estimate under label shift), where the frequency among the latter is the mean of the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from lucidcell.metrics.annotation import confusion_table, expected_calibration_error, reliability_table

FEWEST_CELLS = 50
N_PARTS = 5
COLDEST, HOTTEST = 0.05, 20.0
N_BINS = 10
RAREST = 1e-6  # frequency that every type has at least, so that no labelled cell counts for nothing


@dataclass(frozen=True)
class Calibration:
    """What calibration found: a temperature, or a sentence that says why there is none."""

    temperature: float  # 1 where there is none
    labels: str  # which labels it was fitted to
    n_cells: int
    error_before: float | None = None  # expected calibration error, 0 to 1
    error_after: float | None = None
    declined: str | None = None
    reliability: pd.DataFrame | None = None  # of raw and calibrated probabilities, for plots.calibration_curve
    confusion: pd.DataFrame | None = None  # of the same cells, for plots.confusion_matrix

    def to_json(self) -> dict[str, Any]:
        """Plain dict of numbers, strings, lists and None."""
        return {name: _split(value) if isinstance(value, pd.DataFrame) else value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """Inverse of `to_json`."""
        return cls(
            **{name: pd.DataFrame(**value) if isinstance(value, dict) else value for name, value in stored.items()}
        )


def _split(table: pd.DataFrame) -> dict[str, Any]:
    return table.astype(object).where(table.notna(), None).to_dict("split")


def tempered(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (n, C) at a temperature, (n, C); each row of probabilities sums to 1."""
    return np.asarray(log_softmax(np.asarray(log_probabilities, np.float64) / temperature, axis=1))


def weights_of(labels: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Weight of each labelled cell, (n,), mean 1 and above 0, such that types count by their `frequencies` (C,)."""
    weights = (np.maximum(frequencies, RAREST) / np.maximum(np.bincount(labels, minlength=len(frequencies)), 1))[labels]
    return np.asarray(weights / weights.mean())


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Temperature at which the labels are likeliest, between 0.05 and 20.

    Parameters
    ----------
    log_probabilities
        Of cells that were not fitted, (n, C).
    labels
        Position of each cell's label among the C, (n,).
    weights
        How much each cell counts, (n,); all the same for None.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_temperature: _loss(tempered(log_probabilities, np.exp(log_temperature)), labels, weights),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def declined(n: int, source: str) -> Calibration:
    """What is found where there are only `n` labels from the `source`."""
    sentence = (
        f"to calibrate probabilities takes {FEWEST_CELLS} {source}, and there are {n}; they stay as the classifier "
        "gives them."
    )
    return Calibration(1.0, source, n, declined=sentence)


def calibrate(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    source: str,
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit a temperature, and judge it by cross-fitting; or decline.

    Parameters
    ----------
    log_probabilities
        Of the leaves, for cells whose labels the classifier had not seen, (n, C).
    labels
        Position of each cell's label among the leaves, (n,).
    names
        Of the leaves.
    source
        Which labels these are, in words.
    weights
        How much each cell counts, (n,), above 0; all the same for None.
    seed
        Of the division into parts.
    """
    n = len(labels)
    if n < FEWEST_CELLS:
        return declined(n, source)
    weights = np.ones(n) if weights is None else weights
    part = np.random.default_rng(seed).permutation(n) % N_PARTS
    after = np.empty((n, len(names)))
    for p in range(N_PARTS):
        temperature = fit_temperature(log_probabilities[part != p], labels[part != p], weights[part != p])
        after[part == p] = tempered(log_probabilities[part == p], temperature)
    before, leaves = tempered(log_probabilities, 1.0), np.asarray(names, object)
    temperature = fit_temperature(log_probabilities, labels, weights)
    if _loss(after, labels, weights) >= _loss(
        before, labels, weights
    ):  # what was fitted to some cells does not help the others
        temperature, after = 1.0, before
    tables, errors = [], []
    for kind, log_p in (("raw", before), ("calibrated", after)):
        judged = leaves[labels], leaves[log_p.argmax(1)], np.exp(log_p.max(1))
        errors.append(expected_calibration_error(*judged, n_bins=N_BINS, weights=weights))
        tables.append(reliability_table(*judged, n_bins=N_BINS, weights=weights).assign(probabilities=kind))
    return Calibration(
        temperature,
        source,
        n,
        error_before=errors[0],
        error_after=errors[1],
        reliability=pd.concat(tables, ignore_index=True),
        confusion=confusion_table(leaves[labels], leaves[before.argmax(1)]),
    )


def _loss(log_probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> float:
    """Weighted mean of the negative log-likelihood of the labels, in nats."""
    return float(-np.average(log_probabilities[np.arange(len(labels)), labels], weights=weights))
