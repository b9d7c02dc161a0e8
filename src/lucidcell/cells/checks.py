"""Look at every value and name of the data, refuse what no model can use, and record what was seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lucidcell.cells.covariates import some
from lucidcell.cells.matrix import Rows, row_blocks
from lucidcell.cells.stored import StoredRows, in_place, matrix_of
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("lucidcell")

FLOAT32_EXACT = 2.0**24  # above it not every whole number is a float32
LOG_CEILING = 20.0  # log1p of any count that fits is below this


@dataclass(frozen=True)
class DataRecord:
    """What was seen in the data, for the report."""

    n_cells: int
    n_genes: int
    nonzero_fraction: float
    n_empty_cells: int
    n_silent_genes: int  # genes that are zero in every cell
    median_library: float  # of the summed counts of a cell
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The record as a plain dict."""
        return asdict(self)


@dataclass
class ValueScan:
    """Faults among the values of a matrix, counted block by block."""

    n_nan: int = 0
    n_infinite: int = 0
    n_negative: int = 0
    n_fractional: int = 0
    n_huge: int = 0
    smallest: float = 0.0
    largest: float = 0.0
    first: dict[str, tuple[int, int]] = field(default_factory=dict)  # cell and gene of the first fault of a kind

    def look(self, block: Any, rows: np.ndarray) -> None:
        """Take in a block (scipy CSR, float64) of these rows of the data."""
        values = block.data
        if not len(values):
            return
        good = (values >= 0) & (values <= FLOAT32_EXACT) & (values == np.floor(values))
        if good.all():
            self.largest = max(self.largest, float(values.max()))
            return
        finite = np.isfinite(values)
        self.smallest = min(self.smallest, float(values.min(where=finite, initial=np.inf)))
        self.largest = max(self.largest, float(values.max(where=finite, initial=-np.inf)))
        self.n_nan += self._count("nan", np.isnan(values), block, rows)
        self.n_infinite += self._count("infinite", np.isinf(values), block, rows)
        self.n_negative += self._count("negative", finite & (values < 0), block, rows)
        self.n_fractional += self._count("fractional", finite & (values != np.floor(values)), block, rows)
        self.n_huge += self._count("huge", finite & (values > FLOAT32_EXACT), block, rows)

    def _count(self, kind: str, faulty: np.ndarray, block: Any, rows: np.ndarray) -> int:
        n = int(np.count_nonzero(faulty))
        if n and kind not in self.first:
            at = int(np.argmax(faulty))
            row = int(np.searchsorted(block.indptr, at, side="right")) - 1
            self.first[kind] = (int(rows[row]), int(block.indices[at]))
        return n

    @property
    def are_counts(self) -> bool:
        """Whether all values are whole numbers from 0 to 2^24."""
        return not (self.n_nan or self.n_infinite or self.n_negative or self.n_fractional or self.n_huge)

    def fault(self, cell_names: Sequence[str], gene_names: Sequence[str], *, counts: bool) -> str | None:
        """The gravest fault as the predicate of a sentence ("holds 37 ..."), or None."""

        def at(kind: str) -> str:
            row, column = self.first[kind]
            return f"first in cell {cell_names[row]!r}, gene {gene_names[column]!r}"

        if self.n_nan:
            return f"holds {_values(self.n_nan)} that {_are(self.n_nan)} NaN ({at('nan')})"
        if self.n_infinite:
            return f"holds {_values(self.n_infinite, 'infinite')} ({at('infinite')})"
        if not counts:
            return None
        if self.n_negative:
            return f"holds {_values(self.n_negative, 'negative')} (smallest {self.smallest:.4g}, {at('negative')})"
        if self.n_fractional:
            looks = ", which looks log-transformed" if self.largest < LOG_CEILING else ""
            values = _values(self.n_fractional, "non-integer")
            return f"holds {values} (largest {self.largest:.4g}, {at('fractional')}){looks}"
        if self.n_huge:
            return f"holds {_values(self.n_huge)} above 2^24 = 16,777,216 (largest {self.largest:.4g}, {at('huge')})"
        return None


def find_count_layers(adata: AnnData) -> list[str]:
    """Names of the matrices in which every value is a count: "X", "layers['counts']", "raw.X"."""
    adata = in_place(adata)
    matrices: dict[str, Any] = {"X": matrix_of(adata, None)}
    matrices |= {f"layers[{key!r}]": adata.layers[key] for key in adata.layers if key is not None}
    if adata.raw is not None:
        matrices["raw.X"] = adata.raw.X
    return [name for name, matrix in matrices.items() if matrix is not None and _is_counts(matrix, name)]


def check_values(scan: ValueScan, adata: AnnData, layer: str | None, *, model: str, counts: bool) -> None:
    """Raise `DataError` if `scan` saw values in X or `layer` that the model cannot use.

    Parameters
    ----------
    scan
        What was seen.
    adata
        Where it was seen; searched for a matrix that looks like counts.
    layer
        None for X.
    model
        Name for the message.
    counts
        Whether the model needs counts, or only finite numbers.
    """
    fault = scan.fault(adata.obs_names, adata.var_names, counts=counts)
    if fault is None:
        return
    needs = "raw counts" if counts else "finite values"
    raise DataError(f"{matrix_name(layer)} {fault}; {model} needs {needs}, {_where_counts_are(adata, counts)}")


def matrix_name(layer: str | None) -> str:
    """What messages call X or a layer."""
    return "X" if layer is None else f"layer {layer!r}"


def check_names(adata: AnnData, *, smallest: int = 2) -> None:
    """Raise `DataError` for too few cells, no genes, or names that are not usable.

    Parameters
    ----------
    adata
        Data to look at.
    smallest
        Fewest cells that make sense.
    """
    n, genes = adata.n_obs, adata.var_names
    if n < smallest:
        raise DataError(f"the data hold {n} cells and at least {smallest} are needed: was a filter too strict?")
    if len(genes) == 0:
        raise DataError(f"the data hold {n} cells and no genes: was a gene filter too strict?")
    for names, which in ((genes, "var"), (adata.obs_names, "obs")):
        odd = [name for name in names if not isinstance(name, str)]
        if odd:
            raise DataError(
                f"{len(odd)} of {len(names)} {which}_names are not strings (first {odd[0]!r}): "
                f"run adata.{which}_names = adata.{which}_names.astype(str)."
            )
    if not genes.is_unique:
        doubled = genes[genes.duplicated()].unique()
        raise DataError(
            f"{len(doubled)} gene names occur more than once ({some(doubled)}): run adata.var_names_make_unique()."
        )


def record_data(
    rows: Rows | StoredRows, present: np.ndarray, warnings: list[str], *, quiet: bool = False
) -> DataRecord:
    """Summarise what the model will see; genes that are not `present` (G,) do not count as silent."""
    sums = rows.sums()
    lengths = rows.lengths()
    n_silent = int(np.count_nonzero((rows.columns_seen() == 0) & present))
    if n_silent:
        warnings = [*warnings, f"{n_silent} of {rows.n_columns} genes are zero in every cell"]
    for warning in () if quiet else warnings:
        logger.warning("%s.", warning)
    return DataRecord(
        n_cells=rows.n_rows,
        n_genes=rows.n_columns,
        nonzero_fraction=int(lengths.sum()) / max(1, rows.n_rows * rows.n_columns),
        n_empty_cells=int(np.count_nonzero(lengths == 0)),
        n_silent_genes=n_silent,
        median_library=float(np.median(sums)) if len(sums) else 0.0,
        warnings=warnings,
    )


def check_empty_cells(
    rows: Rows | StoredRows, cell_names: np.ndarray, layer: str | None, *, model: str, all_genes: bool
) -> None:
    """Raise `DataError` if cells have no count; `all_genes` says that the data have no gene besides those of `rows`."""
    empty = np.flatnonzero(rows.lengths() == 0)
    if not len(empty):
        return
    matrix = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    drop = "sc.pp.filter_cells(adata, min_counts=1)"
    if not all_genes:
        drop = "sc.pp.filter_cells(adata, min_counts=100), or by these names"
    elif layer is not None:
        drop = f"adata = adata[np.asarray({matrix}.sum(axis=1)).ravel() > 0].copy()"
    raise DataError(
        f"{len(empty)} of {rows.n_rows} cells have no counts over the {rows.n_columns} genes of {matrix_name(layer)} "
        f"({some(cell_names[empty])}), and {model} cannot place them: drop them, for instance with {drop}."
    )


def _is_counts(matrix: Any, name: str) -> bool:
    scan = ValueScan()
    try:
        for block in row_blocks(matrix, name):
            scan.look(block, np.arange(block.shape[0]))
            if not scan.are_counts:
                return False
    except DataError:  # not numbers, or malformed
        return False
    return scan.largest > 0


def _where_counts_are(adata: AnnData, counts: bool) -> str:
    """The end of the sentence: what to do."""
    if not counts:
        return "so remove or repair those cells or genes."
    found = find_count_layers(adata)
    if not found:
        return "and nothing else in this AnnData looks like counts: load the unnormalised data."
    name = found[0]
    if name == "raw.X":
        return "and adata.raw.X looks like counts: pass adata.raw.to_adata()."
    return f"and {name} looks like counts: pass layer={None if name == 'X' else name[len('layers[') : -1]}."


def _values(n: int, kind: str = "") -> str:
    return f"{n} {kind} value{'' if n == 1 else 's'}".replace("  ", " ")


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
