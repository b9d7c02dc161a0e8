"""Which cells are compared with which: by a column of obs, or by masks, positions and queries."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import category_text, encode, recode, some
from lucidcell.cells.parts import Parts, no_such_key
from lucidcell.errors import DataError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.cells import Cells

logger = logging.getLogger("lucidcell")

Selection: TypeAlias = Sequence[bool] | Sequence[int] | np.ndarray | str  # a mask, positions, or a query on obs
GroupNames: TypeAlias = str | Sequence[str] | None
REST = "rest"
FEWEST_CELLS = 2


@dataclass(frozen=True)
class Groups:
    """Cells sorted into named groups."""

    names: tuple[str, ...]
    codes: np.ndarray  # (n,) int64: group of each cell, -1 where it is in none
    key: str  # column of obs

    def code(self, name: object, argument: str) -> int:
        """Code of the group called `name`, which the user gave as `argument`.

        Raises
        ------
        SettingError
            If there is no such group; the message holds the nearest name.
        """
        text = category_text(name)
        if text in self.names:
            return self.names.index(text)
        close = difflib.get_close_matches(text, self.names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SettingError(
            f"{argument}={text!r} does not occur in obs[{self.key!r}]; {hint}(it has {some(self.names)})."
        )

    def rows(self, code: int) -> np.ndarray:
        return np.flatnonzero(self.codes == code)


@dataclass(frozen=True)
class Comparison:
    """Two disjoint groups of at least two cells each, as positions in ascending order."""

    group1: str
    group2: str
    rows1: np.ndarray
    rows2: np.ndarray

    def __post_init__(self) -> None:
        for name, rows in ((self.group1, self.rows1), (self.group2, self.rows2)):
            if len(rows) < FEWEST_CELLS:
                raise DataError(
                    f"group {name!r} has {len(rows)} cell{'' if len(rows) == 1 else 's'}, and a comparison needs at "
                    f"least {FEWEST_CELLS} on each side: join it with another group, or leave it out."
                )
        if n_shared := len(np.intersect1d(self.rows1, self.rows2)):
            raise SettingError(
                f"{n_shared} cells are in both groups ({len(self.rows1)} and {len(self.rows2)} cells): take them out "
                "of one of them."
            )


def groups_of(cells: Cells, adata: AnnData | None, groupby: str | None) -> Groups:
    """Groups by a column of obs; without `adata`, by the labels or the batches that a model keeps of its own cells.

    Cells without a value, and unlabelled ones, are in no group.

    Raises
    ------
    DataError
        If there is no such column.
    SettingError
        If no column is named and the model has no labels.
    """
    schema = cells.schema
    key = schema.labels_key if groupby is None else groupby
    if key is None:
        raise SettingError("this model has no labels to compare by: pass groupby, a column of obs, or idx1.")
    if adata is not None:
        parts = Parts.of(adata, model="differential_expression", smallest=1)
        codes, found = encode(parts.column(key, argument="groupby"))
        names = tuple(name for name in found if key != schema.labels_key or name != schema.unlabeled_category)
        return Groups(names, recode(codes, found, names), key)
    if key == schema.labels_key:
        return Groups(schema.label_categories, cells.label, key)
    if key == schema.batch_key:
        return Groups(schema.batch_categories, cells.batch, key)
    kept = [name for name in (schema.labels_key, schema.batch_key) if name is not None]
    raise no_such_key("what the model keeps of obs", key, kept, "groupby without adata")


def by_group(groups: Groups, group1: GroupNames, group2: str | None) -> list[Comparison]:
    """Each group named in `group1` (all for None) against `group2`, or against all other cells that have a group.

    Where `group1` is None, groups of a single cell are left out with a warning, those of none without.
    """
    other = None if group2 is None else groups.code(group2, "group2")
    if group1 is None:
        chosen = [code for code in range(len(groups.names)) if code != other]
        sizes = np.bincount(groups.codes[groups.codes >= 0], minlength=len(groups.names))
        if lonely := [groups.names[code] for code in chosen if sizes[code] == 1]:
            logger.warning("groups of a single cell are left out: %s.", some(lonely))
        chosen = [code for code in chosen if sizes[code] >= FEWEST_CELLS]
        if not chosen:
            raise DataError(
                f"no group of obs[{groups.key!r}] has {FEWEST_CELLS} cells to compare: choose another column."
            )
    else:
        names = [group1] if np.isscalar(group1) else list(group1)
        if not names:
            raise SettingError("group1 names no group: name at least one, or pass None for all.")
        chosen = [groups.code(name, "group1") for name in names]
    return [_comparison(groups, code, other) for code in chosen]


def _comparison(groups: Groups, code: int, other: int | None) -> Comparison:
    if other is None:
        rest = np.flatnonzero((groups.codes != code) & (groups.codes >= 0))
        return Comparison(groups.names[code], REST, groups.rows(code), rest)
    return Comparison(groups.names[code], groups.names[other], groups.rows(code), groups.rows(other))


def by_selection(n_cells: int, adata: AnnData | None, idx1: Selection, idx2: Selection | None) -> Comparison:
    """The cells of `idx1` against those of `idx2`, or against all others."""
    rows1 = _selected(n_cells, adata, idx1, "idx1")
    if idx2 is None:
        return Comparison("idx1", REST, rows1, np.setdiff1d(np.arange(n_cells), rows1))
    return Comparison("idx1", "idx2", rows1, _selected(n_cells, adata, idx2, "idx2"))


def _selected(n_cells: int, adata: AnnData | None, selection: Selection, argument: str) -> np.ndarray:
    if isinstance(selection, str):
        return _queried(adata, selection, argument)
    chosen = np.asarray(selection)
    if chosen.dtype == bool and chosen.shape == (n_cells,):
        return np.flatnonzero(chosen)
    if chosen.dtype == bool or chosen.ndim != 1:
        raise SettingError(
            f"{argument} has shape {chosen.shape} for {n_cells} cells: give a mask of one value per cell."
        )
    if chosen.size and (chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= n_cells):
        raise SettingError(f"{argument} must hold whole numbers from 0 to {n_cells - 1}, or be a mask or a query.")
    return np.unique(chosen.astype(np.int64))


def _queried(adata: AnnData | None, query: str, argument: str) -> np.ndarray:
    if adata is None:
        raise SettingError(f"{argument}={query!r} is a query on obs, which the model does not keep: pass adata too.")
    obs = pd.DataFrame(adata.obs).reset_index(drop=True)
    try:
        return np.sort(obs.query(query).index.to_numpy(np.int64))
    except Exception as error:  # pandas raises whatever the query makes it raise
        reason = " ".join(str(error).split())
        raise SettingError(f"{argument}={query!r} is not a query that pandas understands ({reason}).") from error
