"""Batches, labels and covariates of the cells: learn their categories from data, then number any data by them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lucidcell.cells.covariates import (
    encode,
    encode_known,
    mean_and_scale,
    numeric,
    one_hot,
    recode,
    require_complete,
    require_few,
    size_factors,
    some,
)
from lucidcell.cells.labels import with_labels
from lucidcell.cells.parts import PART_KEY, Parts
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from lucidcell.cells.read_taxonomy import TaxonomySource

logger = logging.getLogger("lucidcell")


class Annotations(NamedTuple):
    """What is known of n cells besides their counts."""

    batch: np.ndarray  # (n,) int64
    label: np.ndarray  # (n,) int64, -1 where there is none
    covariates: np.ndarray  # (n, P) float32
    size_factor: np.ndarray | None  # (n,) float64


def learn_schema(
    parts: Parts,
    genes: tuple[str, ...],
    *,
    layer: str | None,
    batch_key: str | None,
    labels_key: Sequence[str] | str | None,
    unlabeled_category: str | None,
    taxonomy: TaxonomySource | None,
    categorical_covariate_keys: Sequence[str] | str | None,
    continuous_covariate_keys: Sequence[str] | str | None,
    size_factor_key: str | None,
) -> Schema:
    """The categories and scales that occur in the data.

    Raises
    ------
    DataError
        If a column is missing, incomplete, or unfit for its role.
    """
    if batch_key is None and len(parts.data) > 1:
        batch_key = PART_KEY
    categorical, continuous = _key_list(categorical_covariate_keys), _key_list(continuous_covariate_keys)
    if twice := sorted({key for key in categorical + continuous if (categorical + continuous).count(key) > 1}):
        raise DataError(f"obs[{twice[0]!r}] is given twice as a covariate: give it once, categorical or continuous.")
    without_labels = Schema(
        gene_names=genes,
        layer=layer,
        batch_key=batch_key,
        batch_categories=("all",) if batch_key is None else _learn_categories(parts, batch_key, "batch", "batch_key"),
        categorical_covariates={
            key: _learn_categories(parts, key, "categorical covariate", "categorical_covariate_keys")
            for key in categorical
        },
        continuous_covariates={key: mean_and_scale(_continuous(parts, key)) for key in continuous},
        size_factor_key=size_factor_key,
    )
    return learn_labels(parts, without_labels, labels_key, unlabeled_category, taxonomy)


def learn_labels(
    parts: Parts,
    schema: Schema,
    labels_key: Sequence[str] | str | None,
    unlabeled_category: str | None,
    taxonomy: TaxonomySource | None,
) -> Schema:
    """The schema with the labels that occur in the data; see `with_labels`."""
    columns = {key: parts.column(key, argument="labels_key") for key in _key_list(labels_key)}
    return with_labels(schema, columns, unlabeled_category, taxonomy)


def annotate(parts: Parts, schema: Schema) -> Annotations:
    """Number the cells by a schema. A missing label column, or a label that is not in the schema, means no label.

    Raises
    ------
    DataError
        If a column is missing or incomplete, or a batch or covariate category is not in the schema.
    """
    n = parts.n_cells
    batch, label = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    if schema.batch_key is not None:
        batch = encode_known(
            parts.column(schema.batch_key, argument="batch_key"),
            schema.batch_categories,
            role="batch",
            way_out="use model.map_query, which adds new batches",
        )
    for key in schema.labels_keys:  # a finer label goes before a coarser one
        if parts.has_column(key):
            found = recode(*encode(parts.column(key, argument="labels_key")), schema.label_categories)
            label = np.where(found < 0, label, found)
    blocks = [np.zeros((n, 0), np.float32)]
    for key, known in schema.categorical_covariates.items():
        column = parts.column(key, argument="categorical_covariate_keys")
        way_out = "drop these cells or train again with them"
        codes = encode_known(column, known, role="categorical covariate", way_out=way_out)
        blocks.append(one_hot(codes, len(known)))
    for key, (mean, scale) in schema.continuous_covariates.items():
        blocks.append(((_continuous(parts, key) - mean) / scale).astype(np.float32)[:, None])
    size_factor = None
    if schema.size_factor_key is not None:
        size_factor = size_factors(parts.column(schema.size_factor_key, argument="size_factor_key"))
    return Annotations(batch, label, np.concatenate(blocks, axis=1), size_factor)


def unknown_batches(parts: Parts, schema: Schema) -> tuple[str, ...]:
    """Batches of the data that the schema does not know.

    Raises
    ------
    DataError
        If the column is missing or incomplete.
    """
    if schema.batch_key is None:
        return ()
    codes, names = encode(parts.column(schema.batch_key, argument="batch_key"))
    require_complete(codes, schema.batch_key, "batch")
    return tuple(name for name in names if name not in schema.batch_categories)


def doubts(annotations: Annotations, schema: Schema, parts: Parts) -> list[str]:
    """What is allowed but worth saying about annotations that a schema was learnt from."""
    found = []
    sizes = np.bincount(annotations.batch, minlength=schema.n_batches)
    alone = [name for name, size in zip(schema.batch_categories, sizes, strict=True) if size == 1]
    if alone:
        found.append(f"{len(alone)} of {schema.n_batches} batches hold a single cell ({some(alone)})")
    if schema.batch_key is not None and schema.n_batches == 1:
        found.append(f"obs[{schema.batch_key!r}] has one value only, {schema.batch_categories[0]!r}")
    if schema.batch_key in schema.categorical_covariates:
        found.append(f"obs[{schema.batch_key!r}] is both the batch and a covariate")
    for key in schema.continuous_covariates:
        if np.ptp(_continuous(parts, key)) == 0:
            found.append(f"the continuous covariate obs[{key!r}] is constant")
    if schema.labels_key is not None:
        found += _label_doubts(annotations, schema)
    return found


def _label_doubts(annotations: Annotations, schema: Schema) -> list[str]:
    n_unlabelled = int(np.count_nonzero(annotations.label < 0))
    if n_unlabelled == len(annotations.label):
        return [f"no cell has a label in obs[{schema.labels_key!r}]"]
    if n_unlabelled:
        logger.info("%d of %d cells have no label.", n_unlabelled, len(annotations.label))
    seen = annotations.label >= 0
    table = np.zeros((schema.n_labels, schema.n_batches), bool)
    table[annotations.label[seen], annotations.batch[seen]] = True
    table = table[table.any(axis=1)]
    in_one_batch = table.any(axis=0).sum() == 1  # which gives its labels to the others
    if schema.n_batches > 1 and schema.n_labels > 1 and (table.sum(axis=1) == 1).all() and not in_one_batch:
        return [f"each of the {schema.n_labels} labels occurs in one batch only, so batch and label are confounded"]
    return []


def _learn_categories(parts: Parts, key: str, role: str, argument: str) -> tuple[str, ...]:
    codes, names = encode(parts.column(key, argument=argument))
    require_complete(codes, key, role)
    require_few(names, len(codes), key, role)
    return names


def _continuous(parts: Parts, key: str) -> np.ndarray:
    return numeric(parts.column(key, argument="continuous_covariate_keys"), role="continuous covariate")


def _key_list(keys: Sequence[str] | str | None) -> list[str]:
    """A single key may be given without a list."""
    return [] if keys is None else [keys] if isinstance(keys, str) else list(keys)
