"""Read a count matrix of any layout as compressed sparse rows, a block of rows at a time."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from lucidcell.errors import DataError

BLOCK_ENTRIES = 2**20  # stored values (sparse) or elements (dense) converted at a time


class Rows(NamedTuple):
    """A matrix as compressed sparse rows: sorted columns, no explicit zeros, no column twice in a row."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (non-zeros,) int32
    values: np.ndarray  # (non-zeros,) float32
    n_columns: int

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def unfilled(cls, lengths: np.ndarray, n_columns: int) -> Rows:
        """Rows of these lengths (n,), whose columns and values are still to be written."""
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        return cls(indptr, np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32), n_columns)

    def lengths(self) -> np.ndarray:
        """Non-zeros of each row, (n,) int64."""
        return np.diff(self.indptr)

    def take(self, rows: np.ndarray) -> Rows:
        """The rows `rows` (B,) int64 in that order, copied; they are not checked."""
        from lucidcell.cells.gather import gather

        indptr, indices, values = gather(self.indptr, self.indices, self.values, rows)
        return Rows(indptr, indices, values, self.n_columns)

    def select(self, rows: np.ndarray) -> Rows:
        """The same as `take`."""
        return self.take(rows)

    def blocks(self) -> Iterator[Rows]:
        """All rows, as one block."""
        yield self

    def columns_seen(self) -> np.ndarray:
        """In how many rows each column is, (n_columns,) int64."""
        return np.bincount(self.indices, minlength=self.n_columns)

    def checksum(self) -> int:
        """Of all values and where they stand."""
        found = 0
        for array in (self.indptr, self.indices, self.values):
            found = zlib.crc32(np.ascontiguousarray(array).tobytes(), found)
        return found

    def sums(self) -> np.ndarray:
        """Sum of each row, (n,) float64."""
        totals = np.zeros(self.n_rows)
        filled = self.indptr[1:] > self.indptr[:-1]
        if filled.any():
            totals[filled] = np.add.reduceat(self.values, self.indptr[:-1][filled], dtype=np.float64)
        return totals

    def to_scipy(self) -> sp.csr_matrix:
        """The same as a scipy matrix; the arrays are shared."""
        return sp.csr_matrix((self.values, self.indices, self.indptr), shape=(self.n_rows, self.n_columns))


def read_rows(
    matrix: Any,
    name: str,
    *,
    columns: np.ndarray | None = None,
    n_columns: int | None = None,
    look: Callable[[Any, np.ndarray], None] | None = None,
) -> Rows:
    """Convert a matrix of any layout and numeric type.

    Parameters
    ----------
    matrix
        (n, m) scipy sparse, numpy, h5py, dask or backed AnnData matrix. It is not changed.
    name
        What to call it in messages.
    columns
        (m,) int64: new position of each column, -1 for those to leave out. None keeps all in order.
    n_columns
        Number of columns of the result; None for m.
    look
        Called with every block (float64 scipy CSR, all m columns) and the numbers of its rows.

    Raises
    ------
    DataError
        If the type is not numeric or a sparse matrix is malformed.
    """
    n_columns = matrix.shape[1] if n_columns is None else n_columns
    lengths, indices, values = [np.zeros(1, np.int64)], [], []
    first_row = 0
    for block in row_blocks(matrix, name):
        if look is not None:
            look(block, np.arange(first_row, first_row + block.shape[0]))
        first_row += block.shape[0]
        if columns is not None:
            block = move_columns(block, columns, n_columns)
        lengths.append(np.diff(block.indptr).astype(np.int64))
        indices.append(block.indices.astype(np.int32))
        values.append(block.data.astype(np.float32))
    indptr = np.cumsum(np.concatenate(lengths))
    joined = np.concatenate(indices) if indices else np.zeros(0, np.int32)
    indices.clear()  # so that never more than one and a half copies are held
    return Rows(indptr, joined, np.concatenate(values) if values else np.zeros(0, np.float32), n_columns)


def stack_rows(rows: list[Rows]) -> Rows:
    """The rows of one matrix after those of the other; all have the same columns."""
    if len(rows) == 1:
        return rows[0]
    indptr = np.cumsum(np.concatenate([[0], *(np.diff(one.indptr) for one in rows)]))
    indices = np.concatenate([one.indices for one in rows])
    return Rows(indptr.astype(np.int64), indices, np.concatenate([one.values for one in rows]), rows[0].n_columns)


def row_blocks(matrix: Any, name: str) -> Iterator[Any]:
    """The rows of `matrix` in order, as canonical float64 scipy CSR blocks that share nothing with it."""
    import anndata.abc

    check_dtype(matrix.dtype, name)
    if sp.issparse(matrix):
        yield from _sparse_blocks(matrix, name)
    elif isinstance(matrix, anndata.abc.CSCDataset):
        yield from _sparse_blocks(matrix.to_memory(), name)
    elif isinstance(matrix, anndata.abc.CSRDataset):
        n_stored = matrix.group["indices"].shape[0]
        for start, stop in _spans(matrix.shape[0], n_stored):
            yield from _sparse_blocks(matrix[start:stop], name)
    elif _is_dask(matrix):
        for i in range(matrix.numblocks[0]):
            yield from row_blocks(_dask_rows(matrix, i, name), name)
    else:  # numpy, h5py and zarr arrays
        for start, stop in _spans(matrix.shape[0], matrix.shape[0] * matrix.shape[1]):
            yield canonical(sp.csr_matrix(np.asarray(matrix[start:stop]).astype(np.float64)))


def sparse_fault(matrix: Any) -> str | None:
    """What makes a scipy sparse matrix unsafe to compute with, or None. Nothing is changed or copied."""
    if matrix.format not in ("csr", "csc"):
        return None
    n_major, n_minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    fault = pointer_fault(matrix.indptr, n_major, len(matrix.indices), len(matrix.data))
    return fault or index_fault(matrix.indices, n_minor)


def pointer_fault(indptr: np.ndarray, n_major: int, n_indices: int, n_values: int) -> str | None:
    """What is wrong with the pointers of a compressed matrix of `n_major` rows (CSR) or columns (CSC), or None."""
    if indptr.dtype.kind not in "iu":
        return f"indptr has type {indptr.dtype} and should be integer"
    if n_indices != n_values:
        return f"it has {n_indices} indices for {n_values} values"
    if indptr.shape != (n_major + 1,):
        return f"indptr has shape {indptr.shape} and should have {(n_major + 1,)}"
    if indptr[0] != 0 or indptr[-1] != n_indices:
        return f"indptr runs from {indptr[0]} to {indptr[-1]} and should run from 0 to {n_indices}"
    if n_falls := int(np.count_nonzero(indptr[1:] < indptr[:-1])):
        return f"indptr falls at {n_falls} of its {n_major} steps and should never fall"
    return None


def index_fault(indices: np.ndarray, n_minor: int) -> str | None:
    """What is wrong with the indices of a compressed matrix of `n_minor` columns (CSR) or rows (CSC), or None."""
    if indices.dtype.kind not in "iu":
        return f"its indices have type {indices.dtype} and should be integer"
    if len(indices) and (indices.min() < 0 or indices.max() >= n_minor):
        return f"its indices reach from {indices.min()} to {indices.max()} and should lie in 0..{n_minor - 1}"
    return None


def check_dtype(dtype: Any, name: str) -> None:
    """Raise `DataError` if values of a matrix are not real numbers."""
    if np.dtype(dtype).kind not in "biuf":
        raise DataError(
            f"{name} has type {dtype}, not numbers: convert it first, for instance with .astype('float32')."
        )


def _is_dask(matrix: Any) -> bool:
    dask = sys.modules.get("dask.array")  # whoever made a dask array has imported it
    return dask is not None and isinstance(matrix, dask.Array)


def _dask_rows(matrix: Any, i: int, name: str) -> Any:
    """The i-th row of blocks of a dask array, in memory."""
    blocks = [matrix.blocks[i, j].compute() for j in range(matrix.numblocks[1])]
    for block in filter(sp.issparse, blocks):
        refuse_faulty(block, name)
    if len(blocks) == 1:
        return blocks[0]
    return sp.hstack([sp.csr_matrix(block) for block in blocks], format="csr")


def refuse_faulty(matrix: Any, name: str) -> None:
    """Raise `DataError` if a scipy matrix is unsafe to compute with."""
    if fault := sparse_fault(matrix):
        raise DataError(f"{name} is a malformed sparse matrix ({fault}): read the file again with lucidcell.read_h5ad.")


def _spans(n_rows: int, n_entries: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about `BLOCK_ENTRIES` entries each."""
    step = max(1, int(BLOCK_ENTRIES / max(1, n_entries) * n_rows))
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


def _sparse_blocks(matrix: Any, name: str) -> Iterator[Any]:
    refuse_faulty(matrix, name)
    if matrix.format != "csr":
        matrix = matrix.tocsr()
    for start, stop in _spans(matrix.shape[0], len(matrix.indices)):
        first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
        parts = (
            matrix.data[first:last].astype(np.float64),
            matrix.indices[first:last].astype(np.int64),
            matrix.indptr[start : stop + 1].astype(np.int64) - first,
        )
        yield canonical(sp.csr_matrix(parts, shape=(stop - start, matrix.shape[1])))


def canonical(block: Any) -> Any:
    """The block, in place: sorted columns, none twice in a row, no explicit zeros."""
    block.sum_duplicates()  # sorts the columns too
    block.eliminate_zeros()
    return block


def move_columns(block: Any, columns: np.ndarray, n_columns: int) -> Any:
    """The block with its columns at their new positions `columns`; those at -1 are left out."""
    target = columns[block.indices]
    keep = target >= 0
    n_kept = np.concatenate([[0], np.cumsum(keep)])
    parts = (block.data[keep], target[keep], n_kept[block.indptr])
    moved = sp.csr_matrix(parts, shape=(block.shape[0], n_columns))
    moved.sort_indices()
    return moved
