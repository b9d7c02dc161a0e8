"""What a model sees of the data: `SparseRows`, counts of some cells, and `Batch`, those with their annotations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TARGET_SUM = 1e4  # counts of a cell after normalisation


class SparseRows(NamedTuple):
    """Non-negative values of B cells over G genes, non-zeros only (compressed sparse rows).

    Dense blocks are made on request, so that memory stays at O(block x genes).
    """

    indptr: Tensor  # (B + 1,) int64: row i holds the entries indptr[i]:indptr[i + 1]
    indices: Tensor  # (non-zeros,) int32: gene of each entry, ascending in every row
    values: Tensor  # (non-zeros,) float
    n_genes: int

    @property
    def n_cells(self) -> int:
        return self.indptr.shape[0] - 1

    @property
    def device(self) -> torch.device:
        return self.values.device

    def row_of_entry(self) -> Tensor:
        """Row of every non-zero, (non-zeros,) int64."""
        return self.spread_over_entries(torch.arange(self.n_cells, device=self.device))

    def spread_over_entries(self, per_cell: Tensor) -> Tensor:
        """A number of each cell (B,), for each of its entries."""
        return per_cell.repeat_interleave(self.indptr.diff(), output_size=len(self.values))

    def rows(self, start: int, stop: int) -> SparseRows:
        """The cells `start:stop`; entries are shared, not copied."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        indptr = self.indptr[start : stop + 1] - first
        return SparseRows(indptr, self.indices[first:last], self.values[first:last], self.n_genes)

    def dense(self) -> Tensor:
        """All values as a (B, G) tensor."""
        out = self.values.new_zeros(self.n_cells, self.n_genes)
        out[self.row_of_entry(), self.indices.long()] = self.values
        return out

    def columns(self, genes: Tensor) -> Tensor:
        """The values of some genes, (B, len(genes)), dense; `genes` (int64) are distinct."""
        place = torch.full((self.n_genes,), -1, device=self.device)
        place[genes] = torch.arange(len(genes), device=self.device)
        at = place[self.indices.long()]
        kept = at >= 0
        out = self.values.new_zeros(self.n_cells, len(genes))
        out[self.row_of_entry()[kept], at[kept]] = self.values[kept]
        return out

    def log1p(self) -> SparseRows:
        """log(1 + value), entry by entry."""
        return self._replace(values=torch.log1p(self.values))

    def shares(self, library: Tensor, total: float = 1.0) -> SparseRows:
        """Counts scaled so that a cell with this library (B,) has `total` of them."""
        per_count = total / library.clamp(min=1e-12)
        return self._replace(values=self.values * self.spread_over_entries(per_count))

    def to(self, device: torch.device | str) -> SparseRows:
        return SparseRows(self.indptr.to(device), self.indices.to(device), self.values.to(device), self.n_genes)


class Batch(NamedTuple):
    """B cells as a model sees them."""

    counts: SparseRows
    batch: Tensor  # (B,) int64: code of the batch
    label: Tensor  # (B,) int64: code of the label, -1 where there is none
    covariates: Tensor  # (B, P) float32: one-hot categorical covariates, then standardised continuous ones
    library: Tensor  # (B,) float32: total count of the cell over the model's genes, or its size factor
    rows: Tensor  # (B,) int64: position of the cell in the data set
    external: Tensor | None = None  # (B, E) float32: embedding made elsewhere
    pair: Batch | None = None  # a neighbour of each cell (scE2TM)

    @property
    def n_cells(self) -> int:
        return self.rows.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            counts=self.counts.to(device),
            batch=self.batch.to(device),
            label=self.label.to(device),
            covariates=self.covariates.to(device),
            library=self.library.to(device),
            rows=self.rows.to(device),
            external=None if self.external is None else self.external.to(device),
            pair=None if self.pair is None else self.pair.to(device),
        )
