"""What users have of a taxonomy: parents in a dict, a table, a CSV file or a graph; columns of obs, coarse to fine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from lucidcell.cells.covariates import category_text
from lucidcell.cells.taxonomy import TOP
from lucidcell.errors import DataError, FileError, SettingError

if TYPE_CHECKING:
    import networkx as nx

    TaxonomySource: TypeAlias = Mapping[str, str | None] | pd.DataFrame | str | Path | nx.DiGraph
    Column: TypeAlias = tuple[np.ndarray, tuple[str, ...]]  # codes (n,), -1 for none, and their names


def read_parents(source: TaxonomySource) -> dict[str, str | None]:
    """Parent of each label, None for one without.

    Parameters
    ----------
    source
        A dict from child to parent; a DataFrame, or a CSV file, whose first two columns are child and parent; or a
        networkx DiGraph with edges from parent to child.

    Raises
    ------
    DataError
        If a label has two parents or is its own.
    FileError
        If the file cannot be read.
    SettingError
        If it is none of these.
    """
    if isinstance(source, str | Path):
        source = _read_csv(Path(source))
    if isinstance(source, pd.DataFrame):
        if source.shape[1] < 2:
            raise DataError(f"a taxonomy has two columns, child and parent; this table has {source.shape[1]}.")
        return _one_parent_each(zip(source.iloc[:, 0], source.iloc[:, 1], strict=True))
    if isinstance(source, Mapping):
        return _one_parent_each(source.items())
    import networkx as nx

    if not isinstance(source, nx.DiGraph):
        raise SettingError(
            f"taxonomy is of type {type(source).__name__}; give a dict from child to parent, a DataFrame or CSV file "
            "with these two columns, or a networkx DiGraph."
        )
    alone = [(node, None) for node in source if not source.in_degree(node)]
    return _one_parent_each([*alone, *((child, parent) for parent, child in source.edges)])


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(
            f"the taxonomy {path} cannot be read as CSV ({reason}); its columns are child, parent."
        ) from error


def _one_parent_each(pairs: Iterable[tuple[object, object]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for child, parent in pairs:
        if _missing(child):
            raise DataError(f"the taxonomy names a parent, {str(parent)!r}, of no child: fill in the child.")
        name, above = category_text(child), None if _missing(parent) else category_text(parent)
        if found.get(name, above) != above:
            raise DataError(
                f"{name!r} has the parents {str(found[name])!r} and {str(above)!r} in the taxonomy; a label has one: "
                "take one out, or rename the label."
            )
        found[name] = above
    return found


def _missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and np.isnan(value))


def parents_in_columns(columns: Mapping[str, Column]) -> dict[str, str | None]:
    """Label above each label of several columns, None for the coarsest.

    Parameters
    ----------
    columns
        By name of the column, coarse to fine: codes (n,), -1 for none, and their names. Where a cell has the same name
        in two columns, it has no finer label.

    Raises
    ------
    DataError
        If a label lies under two others, or never under any.
    """
    names = tuple(dict.fromkeys(name for _, known in columns.values() for name in known))
    position = {name: i for i, name in enumerate(names)}
    finest = np.full(len(next(iter(columns.values()))[0]), TOP)  # of each cell, in the columns so far
    parent_of: dict[str, str | None] = {}
    for depth, (key, (codes, known)) in enumerate(columns.items()):
        here = np.array([*(position[name] for name in known), TOP])[codes]
        finer = (here != TOP) & (here != finest)
        for name in known:
            of_name = finer & (here == position[name])
            if of_name.any():
                parents, counts = np.unique(finest[of_name], return_counts=True)
                above = {names[p]: int(n) for p, n in zip(parents, counts, strict=True) if p != TOP}
                parent_of[name] = _the_parent(name, key, above, parent_of) if depth else None
        finest = np.where(here == TOP, finest, here)
    return parent_of


def _the_parent(name: str, key: str, above: Mapping[str, int], parent_of: Mapping[str, str | None]) -> str | None:
    if name in parent_of and set(above) - {parent_of[name]}:
        raise DataError(
            f"{name!r} of obs[{key!r}] lies under {next(iter(above))!r}, and is a label of a coarser column too: "
            "rename one of the two."
        )
    if len(above) > 1:
        where = " and ".join(f"under {parent!r} in {n} cells" for parent, n in above.items())
        raise DataError(
            f"{name!r} of obs[{key!r}] lies {where}, and a label has one parent: correct these cells, or rename it."
        )
    if not above and name not in parent_of:
        raise DataError(
            f"{name!r} of obs[{key!r}] has no coarser label in any cell: fill in the coarser column where it occurs."
        )
    return next(iter(above)) if above else parent_of[name]
