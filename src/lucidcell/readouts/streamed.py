"""Read-outs of more cells than fit into memory: written to a zarr array, some cells at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lucidcell.errors import FileError

if TYPE_CHECKING:
    import zarr

    from lucidcell.cells.cells import Cells

CELLS_AT_A_TIME = 16_384  # also of a chunk of the array
MOST_VALUES = 2**24  # of a chunk


def to_zarr(out: str | Path, cells: Cells, n_columns: int, read: Callable[[Cells], np.ndarray]) -> zarr.Array:
    """Write what `read` says of the cells, (B, n_columns) float32 for B of them, to a new array (n, n_columns).

    Raises
    ------
    FileError
        If there is something at `out` already, or it cannot be written; nothing is left there then.
    """
    import zarr

    path = Path(out)
    if path.exists():
        raise FileError(f"{path} exists already; choose another path for out, or delete it first.")
    n, temporary = len(cells), path.with_name(f".{path.name}.{os.getpid()}.tmp")
    step = max(1, min(n, CELLS_AT_A_TIME, MOST_VALUES // max(1, n_columns)))
    try:
        array = zarr.open_array(
            str(temporary), mode="w", shape=(n, n_columns), chunks=(step, n_columns), dtype="float32"
        )
        for start in range(0, n, step):
            rows = np.arange(start, min(start + step, n))
            array[start : start + len(rows)] = read(cells.select(rows))
        temporary.rename(path)
    except OSError as error:
        raise FileError(f"{path} could not be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return zarr.open_array(str(path), mode="r")
