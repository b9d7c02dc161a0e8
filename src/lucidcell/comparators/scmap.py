"""scmap-cluster (Kiselev, Yiu and Hemberg 2018): each cell to the most similar type's median profile.

Genes are those with more zeros than their mean expression explains: the largest positive residuals of a line fitted to
log2(percentage of zeros) against mean log2 expression. Cosine, Pearson and Spearman similarity each name the nearest
type; a cell is labelled if two of the three agree and the largest of the three is above the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lucidcell.comparators.expression import log_normalize
from lucidcell.comparators.knn import Annotation, require_same_genes
from lucidcell.errors import DataError, SettingError
from lucidcell.metrics.annotation import UNASSIGNED
from lucidcell.metrics.checks import groups


def scmap_cluster(
    train_counts: Any, train_labels: ArrayLike, test_counts: Any, *, n_genes: int = 500, threshold: float = 0.7
) -> Annotation:
    """Labels by similarity to the types' median profiles, "unassigned" where similarities disagree or are low.

    Parameters
    ----------
    train_counts, test_counts
        Raw counts, (n, G) and (m, G), of the same genes.
    train_labels
        Types of the training cells, (n,).
    n_genes
        Genes used, chosen among the training cells.
    threshold
        Similarity that a label needs, from -1 to 1. The scANVI paper ran it at 0.

    Raises
    ------
    DataError
        If the counts or labels cannot be used, or no gene has both zeros and counts.
    SettingError
        If there are no genes to choose.
    """
    if n_genes < 1:
        raise SettingError(f"n_genes={n_genes} is not possible: choose at least 1, usually 500.")
    train, test = log_normalize(train_counts, "train_counts"), log_normalize(test_counts, "test_counts")
    require_same_genes(train, test)
    types = groups(train_labels, "train_labels", train.shape[0])
    # the similarities are the same in log2 and in the natural logarithm
    genes = dropout_genes(train.toarray() / np.log(2), n_genes)
    x, y = train[:, genes].toarray(), test[:, genes].toarray()
    profiles = np.stack([np.median(x[types.codes == code], axis=0) for code in range(len(types.names))])
    similarities = np.stack([_cosine(y, profiles), _pearson(y, profiles), _spearman(y, profiles)])  # (3, m, types)
    nearest = similarities.argmax(2)
    first_two, last_two = nearest[0] == nearest[1], nearest[1] == nearest[2]
    agreed = np.where(first_two | last_two, nearest[1], nearest[0])
    sure = first_two | last_two | (nearest[0] == nearest[2])
    sure &= similarities.max((0, 2)) > threshold
    return Annotation(np.where(sure, np.asarray(types.names, object)[agreed], UNASSIGNED), None)


def dropout_genes(x: np.ndarray, n_genes: int) -> np.ndarray:
    """Positions of the genes with the most zeros for their mean, rising; x (n, G) is log2 expression.

    Raises
    ------
    DataError
        If fewer than two genes have both zeros and counts.
    """
    zeros = 100 * (x == 0).mean(0)
    usable = np.flatnonzero((zeros > 0) & (zeros < 100))
    if len(usable) < 2:
        raise DataError(f"{len(usable)} of {x.shape[1]} genes have both zeros and counts, and scmap needs two or more.")
    mean, log_zeros = x[:, usable].mean(0), np.log2(zeros[usable])
    slope, intercept = np.polyfit(mean, log_zeros, 1)
    residuals = log_zeros - slope * mean - intercept
    return np.sort(usable[np.argsort(-residuals, kind="stable")[:n_genes]])


def _cosine(y: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    lengths = [np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (y, profiles)]
    return np.asarray((y / lengths[0]) @ (profiles / lengths[1]).T)


def _pearson(y: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    return _cosine(y - y.mean(1, keepdims=True), profiles - profiles.mean(1, keepdims=True))


def _spearman(y: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return _pearson(rankdata(y, axis=1), rankdata(profiles, axis=1))
