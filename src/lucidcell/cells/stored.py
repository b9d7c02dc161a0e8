"""Counts that stay in their file: rows are read when they are asked for, and a window of them is held in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from lucidcell.cells.matrix import Rows, canonical, check_dtype, move_columns, pointer_fault, refuse_faulty
from lucidcell.errors import DataError, FileError

if TYPE_CHECKING:
    from anndata import AnnData

IN_MEMORY = 2**28  # bytes of counts up to which a file is simply read
PIECE = 2**22  # stored entries read at a time
GAP = 64  # rows that are read although nobody wants them, so as to read once
BYTES_PER_ENTRY = 8  # in memory


class Place(NamedTuple):
    """Where a matrix lies, in a form that can be sent to another process."""

    file: Path | None  # HDF5; None for zarr
    element: Any  # name in the file; the zarr group or array itself

    def open(self) -> Any:
        if self.file is None:
            return self.element
        import h5py

        try:
            return h5py.File(self.file, "r")[self.element]
        except (OSError, KeyError) as error:
            raise FileError(f"{self.file} cannot be read any more ({error}): was it moved or changed?") from error


class Piece(NamedTuple):
    """Some consecutive rows of a matrix as they lie in the file."""

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray


class StoredMatrix:
    """One matrix in an HDF5 file or a zarr store, with the rows and columns of it that count."""

    def __init__(
        self,
        place: Place,
        name: str,
        columns: np.ndarray,
        n_columns: int,
        rows: np.ndarray | None = None,
        looked_at: np.ndarray | None = None,
    ) -> None:
        self.place, self.name = place, name
        self.columns = columns  # (columns in the file,) int64: their new position, -1 for those to leave out
        self.n_columns = n_columns
        self.rows = rows  # (n,) rows in the file, not in order and perhaps repeated; None for all
        self.looked_at = looked_at  # columns in the file that are checked, in the order of their names; None for all

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("matrix", "indptr", "entries")}

    @cached_property
    def matrix(self) -> Any:
        return self.place.open()

    @property
    def is_sparse(self) -> bool:
        return not hasattr(self.matrix, "shape")

    @cached_property
    def indptr(self) -> np.ndarray:
        """Of the file; of a dense matrix as if every element were stored."""
        if self.is_sparse:
            indptr = np.asarray(self.matrix["indptr"][...]).astype(np.int64)
            if fault := pointer_fault(indptr, len(indptr) - 1, *(array.shape[0] for array in self.entries)):
                raise DataError(f"{self.name} is a malformed sparse matrix ({fault}): write the file again.")
            return indptr
        n, m = self.matrix.shape
        return np.arange(n + 1, dtype=np.int64) * m

    @cached_property
    def entries(self) -> tuple[Any, Any]:
        """Columns and values, where they lie."""
        return self.matrix["indices"], self.matrix["data"]

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1 if self.rows is None else len(self.rows)

    @property
    def n_bytes(self) -> float:
        """About what the counts would take in memory."""
        share = self.n_rows / max(1, len(self.indptr) - 1) * np.mean(self.columns >= 0)
        return float(self.indptr[-1] * share * BYTES_PER_ENTRY)

    @property
    def chunk(self) -> int:
        """Entries that are unpacked together."""
        chunks = (self.entries[1] if self.is_sparse else self.matrix).chunks
        return 1 if chunks is None else int(np.prod(chunks))

    @property
    def rows_per_chunk(self) -> int:
        """About how many rows are unpacked together."""
        return int(self.chunk / max(1.0, self.indptr[-1] / max(1, len(self.indptr) - 1)))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype((self.entries[1] if self.is_sparse else self.matrix).dtype)

    def read(self, start: int, stop: int) -> Piece:
        """Rows start:stop of the file."""
        if not self.is_sparse:
            dense = sp.csr_matrix(_plain(np.asarray(self.matrix[start:stop])))
            return Piece(dense.indptr.astype(np.int64), dense.indices, dense.data)
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indices, values = (np.asarray(array[first:last]) for array in self.entries)
        return Piece(self.indptr[start : stop + 1] - first, _plain(indices), _plain(values))

    def spans(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """Cuts `rows` of the file (sorted) into parts that are read at once: close together, and not too many."""
        if not len(rows):
            return
        gap = max(GAP, self.rows_per_chunk)
        most = max(PIECE, 2 * self.chunk)
        size = self.indptr[rows + 1]
        start = 0
        breaks = np.flatnonzero(np.diff(rows) > gap) + 1
        for stop in [*breaks.tolist(), len(rows)]:
            while start < stop:  # at least one row at a time
                end = int(np.searchsorted(size[start:stop], self.indptr[rows[start]] + most, side="right")) + start
                end = min(max(end, start + 1), stop)
                yield start, end
                start = end

    def blocks(self) -> Iterator[tuple[np.ndarray, Any]]:
        """All rows in the order of the file, as canonical float64 scipy blocks with all columns.

        With each block the positions that its rows have here.
        """
        n = len(self.indptr) - 1
        order = np.arange(n) if self.rows is None else np.argsort(self.rows, kind="stable")
        rows = order if self.rows is None else self.rows[order]
        for start, stop in self.spans(rows):
            first = int(rows[start])
            piece = self.read(first, int(rows[stop - 1]) + 1)
            block = _as_scipy(piece, len(self.columns), self.name)[rows[start:stop] - first]
            yield order[start:stop], canonical(block)

    def fill(self, rows: np.ndarray, out: Rows, at: int) -> None:
        """Write the rows `rows` of the file (sorted) into `out`, whose `indptr` is known, from its row `at` on."""
        from lucidcell.cells.gather import DONE, pick

        for start, stop in self.spans(rows):
            first = int(rows[start])
            piece = self.read(first, int(rows[stop - 1]) + 1)
            wanted = rows[start:stop] - first
            status = pick(*piece, wanted, self.columns, out.indptr, out.indices, out.values, at + start)
            if status != DONE:  # columns out of order, or twice: the long way, which also says what is wrong
                block = canonical(_as_scipy(piece, len(self.columns), self.name)[wanted])
                moved = move_columns(block, self.columns, self.n_columns)
                first_entry, last_entry = out.indptr[at + start], out.indptr[at + stop]
                if not np.array_equal(moved.indptr, out.indptr[at + start : at + stop + 1] - first_entry):
                    raise DataError(f"{self.name} is not what it was when it was checked: was the file changed?")
                out.indices[first_entry:last_entry] = moved.indices
                out.values[first_entry:last_entry] = moved.data


def _plain(array: np.ndarray) -> np.ndarray:
    """In the byte order of this machine, and of a type that scipy and Numba know."""
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def _as_scipy(piece: Piece, n_columns: int, name: str) -> Any:
    """A matrix of its own, float64, once it is known to be sound."""
    shape = (len(piece.indptr) - 1, n_columns)
    matrix = sp.csr_matrix(shape)
    matrix.indptr, matrix.indices, matrix.data = piece
    refuse_faulty(matrix, name)
    return sp.csr_matrix((piece.values.astype(np.float64), piece.indices.astype(np.int64), piece.indptr), shape=shape)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of matrices in files, one after the other; `Rows` that are read when they are asked for.

    What is asked of all rows again and again is kept: how many values each has, and their sum.
    """

    matrices: tuple[StoredMatrix, ...]
    counted: np.ndarray  # (all rows,) int64: non-zeros
    summed: np.ndarray  # (all rows,) float64
    n_columns: int
    seen: np.ndarray  # (n_columns,) int64: in how many of all rows each column is
    rows: np.ndarray | None = None  # (n,) positions among all rows; None for all, in order

    @property
    def n_rows(self) -> int:
        return len(self.counted) if self.rows is None else len(self.rows)

    def lengths(self) -> np.ndarray:
        """Non-zeros of each row, (n,) int64."""
        return self.counted if self.rows is None else self.counted[self.rows]

    def sums(self) -> np.ndarray:
        """Sum of each row, (n,) float64."""
        return self.summed if self.rows is None else self.summed[self.rows]

    def select(self, rows: np.ndarray) -> StoredRows:
        """The rows `rows` (B,); nothing is read."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def take(self, rows: np.ndarray) -> Rows:
        """The rows `rows` (B,) in memory, in that order."""
        wanted = rows if self.rows is None else self.rows[rows]
        if len(wanted) < 2 or (wanted[1:] > wanted[:-1]).all():
            return self._read(wanted)
        different, place = np.unique(wanted, return_inverse=True)
        return self._read(different).take(place)

    def to_scipy(self) -> sp.csr_matrix:
        """All rows in memory."""
        return self.take(np.arange(self.n_rows)).to_scipy()

    def _read(self, wanted: np.ndarray) -> Rows:
        """Different rows in the order of all rows."""
        out = Rows.unfilled(self.counted[wanted], self.n_columns)
        first = 0
        for matrix in self.matrices:
            start, stop = np.searchsorted(wanted, [first, first + matrix.n_rows])
            inside = wanted[start:stop] - first
            first += matrix.n_rows
            if matrix.rows is None:
                matrix.fill(inside, out, start)
            else:  # a view, whose rows lie in any order
                self._fill_view(matrix, matrix.rows[inside], out, start)
        return out

    def _fill_view(self, matrix: StoredMatrix, rows: np.ndarray, out: Rows, at: int) -> None:
        if (rows[1:] > rows[:-1]).all():
            matrix.fill(rows, out, at)
            return
        different, first_at, place = np.unique(rows, return_index=True, return_inverse=True)
        found = Rows.unfilled(out.lengths()[at : at + len(rows)][first_at], self.n_columns)
        matrix.fill(different, found, 0)
        ordered = found.take(place)
        first, last = out.indptr[at], out.indptr[at + len(rows)]
        out.indices[first:last], out.values[first:last] = ordered.indices, ordered.values

    def blocks(self) -> Iterator[Rows]:
        """All rows in order, some at a time."""
        ends = np.cumsum(self.lengths())
        start = 0
        while start < self.n_rows:
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + PIECE, side="right")))
            yield self.take(np.arange(start, stop))
            start = stop

    def columns_seen(self) -> np.ndarray:
        """In how many rows each column is, (n_columns,) int64."""
        if self.rows is None:
            return self.seen
        return sum((block.columns_seen() for block in self.blocks()), np.zeros(self.n_columns, np.int64))

    def rows_per_chunk(self) -> int:
        """How many rows lie in one chunk of a file, at most."""
        return max(one.rows_per_chunk for one in self.matrices)

    def checksum(self) -> int:
        """Of what is known without reading: values that move within a cell go unnoticed."""
        return zlib.crc32(self.sums().tobytes(), zlib.crc32(self.lengths().tobytes()))


class Window(NamedTuple):
    """Some rows of a larger matrix, in memory, under the numbers that they have there."""

    held: np.ndarray  # (h,) their numbers, ascending
    content: Rows

    def take(self, rows: np.ndarray) -> Rows:
        """The rows with these numbers (B,), in that order."""
        return self.content.take(np.searchsorted(self.held, rows))


def stored_matrix(
    adata: AnnData, layer: str | None, position: dict[str, int], n_columns: int, name: str
) -> StoredMatrix | None:
    """X or a layer of `adata`, or of what it is a view of, where it lies; None if that is in memory.

    Compressed columns (CSC) are read as a whole, and so count as lying in memory.
    """
    import anndata.abc

    parent = whole(adata)
    matrix = matrix_of(parent, layer)
    place = _place(matrix.group if isinstance(matrix, anndata.abc.CSRDataset) else matrix)
    if place is None:
        return None
    of_genes = np.array([position.get(gene, -1) for gene in adata.var_names], np.int64)
    if parent is adata:
        return StoredMatrix(place, name, of_genes, n_columns)
    rows, looked_at = np.arange(parent.n_obs)[adata._oidx], np.arange(parent.n_vars)[adata._vidx]
    columns = np.full(parent.n_vars, -1)
    columns[looked_at] = of_genes
    return StoredMatrix(place, name, columns, n_columns, rows, looked_at)


def whole(adata: AnnData) -> AnnData:
    """What `adata` is a view of, if it is one; AnnData has no public name for the way from a view to its file."""
    parent: AnnData | None = getattr(adata, "_adata_ref", None) if adata.is_view else None
    return adata if parent is None else parent


def in_place(adata: AnnData) -> AnnData:
    """What to look at matrix by matrix without reading them: of a view of data in files, the whole."""
    import anndata.abc

    parent = whole(adata)
    matrices = [matrix_of(parent, layer) for layer in (None, *(key for key in parent.layers if key is not None))]
    on_disk = any(isinstance(one, anndata.abc.CSRDataset | anndata.abc.CSCDataset) or _place(one) for one in matrices)
    return parent if on_disk else adata


def matrix_of(adata: AnnData, layer: str | None) -> Any:
    """X or a layer as it lies; None where there is no X, which backed AnnData raise a KeyError for."""
    try:
        return adata.X if layer is None else adata.layers[layer]
    except KeyError:
        return None


def _place(element: Any) -> Place | None:
    import h5py
    import zarr

    if isinstance(element, h5py.Group | h5py.Dataset):
        file = Path(str(element.file.filename)).resolve()
        return Place(file, element.name) if file.is_file() else None
    return Place(None, element) if isinstance(element, zarr.Group | zarr.Array) else None


def large(matrices: list[StoredMatrix]) -> bool:
    """Whether the counts of these matrices are too many to be read into memory without being asked."""
    return sum(one.n_bytes for one in matrices) > IN_MEMORY


def scan(matrices: list[StoredMatrix], look: list[Callable[[Any, np.ndarray], None]], n_columns: int) -> StoredRows:
    """Read all of the matrices once, to check them and to count.

    `look[i]` is called with each block of matrix i and the positions of its rows.
    """
    counted, summed, seen = [], [], np.zeros(n_columns, np.int64)
    for matrix, look_at in zip(matrices, look, strict=True):
        check_dtype(matrix.dtype, matrix.name)
        lengths, totals = np.zeros(matrix.n_rows, np.int64), np.zeros(matrix.n_rows)
        for rows, block in matrix.blocks():
            moved = move_columns(block, matrix.columns, n_columns)
            look_at(block if matrix.looked_at is None else block[:, matrix.looked_at], rows)
            lengths[rows] = np.diff(moved.indptr)
            totals[rows] = moved.sum(1).A1
            seen += np.bincount(moved.indices, minlength=n_columns)
        counted.append(lengths)
        summed.append(totals)
    return StoredRows(tuple(matrices), np.concatenate(counted), np.concatenate(summed), n_columns, seen)
