"""Tables of genes that a user brings, from any tool: arrays with the names of the genes, checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.errors import DataError


def gene_values(values: Any, name: str, *, at_least: int = 3) -> tuple[np.ndarray, pd.Index]:
    """Cells x genes as a matrix, and the genes.

    Parameters
    ----------
    values
        (n, G): a DataFrame, an array or a SciPy sparse matrix.
    name
        What to call them in messages.
    at_least
        Fewest cells that make sense.

    Returns
    -------
    (n, G) float64, and the names of the genes: the columns of a DataFrame, otherwise 0 to G - 1.

    Raises
    ------
    DataError
        If they are no matrix of finite numbers, have too few cells, or name a gene twice.
    """
    array, genes = _matrix(values, name, "cells x genes"), _names(values, 1)
    if len(array) < at_least:
        raise DataError(f"{name} have {len(array)} cells, and at least {at_least} are needed: pass more.")
    _require_unique(genes, name)
    return array, genes


def gene_rows(table: Any, name: str) -> tuple[np.ndarray, pd.Index]:
    """Genes x factors as a matrix (G, D) float64, and the genes: the index of a DataFrame, otherwise 0 to G - 1.

    Raises
    ------
    DataError
        If they are no matrix of finite numbers, or name a gene twice.
    """
    array, genes = _matrix(table, name, "genes x factors"), _names(table, 0)
    _require_unique(genes, name)
    return array, genes


def square_weights(weights: Any) -> tuple[np.ndarray, pd.Index]:
    """Genes x genes as a symmetric matrix (G, G) float64, and the genes.

    Raises
    ------
    DataError
        If it is no symmetric matrix of finite numbers of at least 2 genes, or names a gene twice.
    """
    w, genes = gene_rows(weights, "the weights")
    if w.shape[0] != w.shape[1] or w.shape[0] < 2:
        raise DataError(f"the weights have shape {w.shape}: pass a table of genes x genes, with at least 2.")
    if isinstance(weights, pd.DataFrame) and not weights.columns.equals(genes):
        raise DataError("the rows and columns of the weights name other genes: pass both in the same order.")
    if n_other := int((~np.isclose(w, w.T, rtol=1e-6, atol=1e-12)).sum()) // 2:
        raise DataError(f"{n_other} pairs of genes have two different weights: pass np.maximum(w, w.T), or w + w.T.")
    return w, genes


def gene_positions(wanted: Iterable[Hashable] | str, genes: pd.Index, name: str) -> np.ndarray:
    """Positions of genes by name, (wanted,) int64; `name` says where they come from.

    Raises
    ------
    DataError
        If there are none, one is unknown, or one is asked for twice.
    """
    labels = [wanted] if isinstance(wanted, str) else list(wanted)
    if not labels:
        raise DataError(f"{name} is empty: pass at least one of the {len(genes)} genes.")
    at = genes.get_indexer(pd.Index(labels))
    if unknown := [label for label, place in zip(labels, at, strict=True) if place < 0]:
        raise DataError(
            f"{len(unknown)} of {len(labels)} {name} are not among the {len(genes)} genes, such as {unknown[0]!r} "
            f"(known: {', '.join(map(repr, genes[:3].tolist()))} ...): use the names of the table."
        )
    if len(set(labels)) < len(labels):
        twice = pd.Index(labels)[pd.Index(labels).duplicated()]
        raise DataError(f"{name} has {twice[0]!r} more than once: name each gene once.")
    return np.asarray(at, np.int64)


def _matrix(values: Any, name: str, layout: str) -> np.ndarray:
    try:
        array = np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} hold values that are not numbers: pass a table of {layout}.") from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{name} have shape {array.shape}: pass a table of {layout}.")
    if n_bad := int(np.count_nonzero(~np.isfinite(array))):
        raise DataError(f"{name} hold {n_bad} NaN or infinite values: drop them or fill them in.")
    return array


def _names(table: Any, axis: int) -> pd.Index:
    return table.axes[axis] if isinstance(table, pd.DataFrame) else pd.RangeIndex(table.shape[axis])


def _require_unique(genes: pd.Index, name: str) -> None:
    if not genes.is_unique:
        twice = genes[genes.duplicated()].unique()
        raise DataError(f"{len(twice)} genes occur twice in {name}, such as {twice[0]!r}: rename or merge them.")
