"""Labels of the cells, in one column or in several from coarse to fine, and the tree that they form."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import category_text, encode, recode, require_few, some
from lucidcell.cells.read_taxonomy import parents_in_columns, read_parents
from lucidcell.cells.schema import Schema
from lucidcell.cells.taxonomy import Taxonomy
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from lucidcell.cells.read_taxonomy import Column, TaxonomySource

logger = logging.getLogger("lucidcell")


def with_labels(
    schema: Schema, columns: Mapping[str, pd.Series], unlabeled_category: str | None, taxonomy: TaxonomySource | None
) -> Schema:
    """The schema with the labels that occur in one column, or in several from coarse to fine.

    Raises
    ------
    DataError
        If a column holds hardly any label twice, or labels and taxonomy do not fit together.
    """
    if taxonomy is not None and len(columns) != 1:
        raise DataError(
            f"a taxonomy goes with one column of labels, and labels_key names {len(columns)}: pass the finest one, or "
            "leave the taxonomy out if the columns are its levels."
        )
    encoded = {key: encode(column) for key, column in columns.items()}
    if unlabeled_category is not None:
        _require_unlabeled(unlabeled_category, columns, encoded)
    labels: dict[str, Column] = {}
    for key, (codes, names) in encoded.items():
        if n_missing := int(np.count_nonzero(codes < 0)):
            logger.warning("obs[%r] is NaN in %d of %d cells, which count as unlabelled.", key, n_missing, len(codes))
        known = tuple(name for name in names if name != unlabeled_category)
        require_few(known, len(codes), key, "label")
        labels[key] = recode(codes, names, known), known
    tree = _learn_tree(labels, taxonomy)
    keys = tuple(labels)
    return replace(
        schema,
        labels_key=keys[-1] if keys else None,
        coarser_labels_keys=keys[:-1],
        label_categories=tree.names,
        label_parents=tree.parents if tree.n_levels > 1 else (),
        unlabeled_category=unlabeled_category,
    )


def _learn_tree(labels: Mapping[str, Column], taxonomy: TaxonomySource | None) -> Taxonomy:
    if not labels:
        return Taxonomy.flat(())
    if len(labels) > 1:
        return Taxonomy.from_parents(parents_in_columns(labels))
    key, (_, names) = next(iter(labels.items()))
    if taxonomy is None:
        return Taxonomy.flat(names)
    parent_of = read_parents(taxonomy)
    if strangers := [name for name in names if name not in {*parent_of, *parent_of.values()}]:
        raise DataError(
            f"{len(strangers)} of {len(names)} labels of obs[{key!r}] are not in the taxonomy ({some(strangers)}): add "
            "them to it, or rename them."
        )
    return Taxonomy.from_parents(parent_of, [name for name in names if name in parent_of])


def _require_unlabeled(unlabeled: str, columns: Mapping[str, pd.Series], encoded: Mapping[str, Column]) -> None:
    """Raise `DataError` unless some column declares the unlabelled category; an unused one is no typing mistake."""
    if not columns:
        raise DataError(f"unlabeled_category={unlabeled!r} needs labels_key, the column it occurs in: pass both.")
    declared = {category_text(name) for column in columns.values() for name in pd.Categorical(column).categories}
    if unlabeled in declared:
        return
    names = list(dict.fromkeys(name for _, known in encoded.values() for name in known))
    close = difflib.get_close_matches(unlabeled, names, n=1)
    hint = f"did you mean {close[0]!r}? Leave" if close else "leave"
    where = " and ".join(f"obs[{key!r}]" for key in columns)
    raise DataError(
        f"unlabeled_category={unlabeled!r} does not occur in {where}, which holds {some(names)}: "
        f"{hint} it out if every cell has a label."
    )
