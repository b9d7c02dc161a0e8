"""Tables of benchmarks: CSV files that are added to row by row, so that a run that was cut off goes on.

Rows that are independent fits run side by side with `--n-jobs`, or wherever `joblib.parallel_config` sends them
(docs/scaling.md). Their seconds are then those of fits beside others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from lucidcell.readouts.many_fits import side_by_side

Rows = dict[Path, list[dict[str, Any]]]  # of each file


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows to the end of a CSV file, and to the screen. Columns that the file does not have are added to it."""
    new = pd.DataFrame(rows)
    if path.exists():
        columns = pd.read_csv(path, nrows=0).columns
        if set(new.columns) <= set(columns):
            new = new.reindex(columns=columns)
            new.to_csv(path, mode="a", header=False, index=False, float_format="%.5g")
        else:
            as_text = pd.read_csv(StringIO(new.to_csv(index=False, float_format="%.5g")), dtype=str)
            pd.concat([pd.read_csv(path, dtype=str), as_text]).to_csv(path, index=False)
    else:
        new.to_csv(path, index=False, float_format="%.5g")
    for row in rows:
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)


def done(path: Path, keys: Sequence[str]) -> set[tuple[str, ...]]:
    """The rows that a CSV file already has, by some of their columns, as text."""
    return set(pd.read_csv(path, dtype=str)[[*keys]].itertuples(index=False, name=None)) if path.exists() else set()


def missing(path: Path, keys: Sequence[str], wanted: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Combinations that the file has no row for."""
    finished = done(path, keys)
    return [one for one in wanted if tuple(map(str, one)) not in finished]


def fill(
    path: Path, keys: Sequence[str], wanted: Iterable[tuple[Any, ...]], make: Callable[..., Rows], n_jobs: int
) -> None:
    """`make(*combination)` for all that the file has no row for; what each returns is kept when it is there.

    One that fails is noted in `failed.csv` beside the file, and tried again when the others are done.
    """
    todo = missing(path, keys, wanted)
    names = [" ".join(map(str, (path.stem, *one))) for one in todo]

    def keep(_: int, found: Rows) -> None:
        for file, rows in found.items():
            append(file, rows)

    side_by_side(make, names, lambda i: todo[i], n_jobs=n_jobs, folder=path.parent, keep=keep)
