"""CORAL (Sun, Feng and Saenko 2016): give labelled cells the covariance of the others, then take the nearest one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize
from lucidcell.comparators.knn import Annotation, knn, require_same_genes


def coral(train_counts: Any, train_labels: ArrayLike, test_counts: Any, *, k: int = 1) -> Annotation:
    """Nearest neighbours after x -> x (C_train + I)^(-1/2) (C_test + I)^(1/2) of the training cells.

    Genes are standardised within training and test cells before, as the method's authors do; a few thousand genes at
    most, since the covariances are genes x genes.

    Parameters
    ----------
    train_counts, test_counts
        Raw counts, (n, G) and (m, G), of the same genes.
    train_labels
        Types of the training cells, (n,).
    k
        How many neighbours vote; probabilities are the shares of the votes.

    Raises
    ------
    DataError
        If the counts or labels cannot be used.
    SettingError
        If there are fewer than k training cells.
    """
    train, test = log_normalize(train_counts, "train_counts"), log_normalize(test_counts, "test_counts")
    require_same_genes(train, test)
    x, y = _standardised(train.toarray()), _standardised(test.toarray())
    whiten = power(np.cov(x, rowvar=False), -0.5)
    colour = power(np.cov(y, rowvar=False), 0.5)
    return knn(x @ whiten @ colour, train_labels, y, k=k)


def power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    """(C + I) to a real power, (G, G), through the eigenvalues of the symmetric C, (G, G)."""
    covariance = np.atleast_2d(covariance)  # numpy gives a number for a single gene
    values, vectors = np.linalg.eigh(covariance + np.eye(len(covariance)))
    return np.asarray((vectors * values**exponent) @ vectors.T)


def _standardised(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    return centred / np.maximum(centred.std(0), 1e-12)
