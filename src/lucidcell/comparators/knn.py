"""Labels by the majority among the nearest labelled cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize, principal_components
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.checks import groups, points


class Annotation(NamedTuple):
    """Predicted types of m cells."""

    labels: np.ndarray  # (m,) of str objects
    probabilities: pd.DataFrame | None  # (m, types), rows sum to 1; None where the method has none


def knn(train_x: ArrayLike, train_labels: ArrayLike, test_x: ArrayLike, *, k: int = 15) -> Annotation:
    """Majority vote of the k nearest training cells; probabilities are the shares of the votes.

    Parameters
    ----------
    train_x
        Labelled cells in a space, (n, D).
    train_labels
        Their types, (n,).
    test_x
        Cells to label, in the same space, (m, D).
    k
        How many neighbours vote.

    Raises
    ------
    DataError
        If arrays do not fit or hold NaN.
    SettingError
        If there are fewer than k training cells.
    """
    from sklearn.neighbors import KNeighborsClassifier

    train = points(train_x, "train_x")
    types = groups(train_labels, "train_labels", len(train))
    test = points(test_x, "test_x", at_least=1)
    if test.shape[1] != train.shape[1]:
        raise DataError(f"train_x has {train.shape[1]} columns and test_x {test.shape[1]}: use one space for both.")
    if not 1 <= k <= len(train):
        raise SettingError(f"k={k} neighbours are not possible with {len(train)} training cells: choose fewer.")
    votes = KNeighborsClassifier(k, algorithm="brute").fit(train, types.codes).predict_proba(test)
    probabilities = pd.DataFrame(votes, columns=list(types.names))
    return Annotation(np.asarray(types.names, object)[votes.argmax(1)], probabilities)


def pca_knn(
    train_counts: Any,
    train_labels: ArrayLike,
    test_counts: Any,
    *,
    n_components: int = 50,
    k: int = 15,
    seed: int = 0,
) -> Annotation:
    """Nearest neighbours on the principal components of training and test cells together.

    Parameters
    ----------
    train_counts, test_counts
        Raw counts, (n, G) and (m, G), of the same genes.
    train_labels
        Types of the training cells, (n,).
    n_components, seed
        Of the principal components.
    k
        How many neighbours vote.

    Raises
    ------
    DataError
        If the counts or labels cannot be used.
    SettingError
        If there are too few cells or genes.
    """
    train, test = log_normalize(train_counts, "train_counts"), log_normalize(test_counts, "test_counts")
    require_same_genes(train, test)
    x = principal_components(sp.vstack([train, test], format="csr"), n_components, seed)
    return knn(x[: train.shape[0]], train_labels, x[train.shape[0] :], k=k)


def require_same_genes(train: Any, test: Any) -> None:
    """Raise `DataError` if two matrices differ in their number of columns."""
    if train.shape[1] != test.shape[1]:
        msg = f"train_counts have {train.shape[1]} genes and test_counts {test.shape[1]}: keep those they share."
        raise DataError(msg)
