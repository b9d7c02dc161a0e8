"""All cells on a GPU, so that a batch is picked there instead of being sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lucidcell.cells.batch import Batch, SparseRows
from lucidcell.cells.matrix import Rows
from lucidcell.cells.partners import Partners

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells

SHARE_OF_MEMORY = 0.5  # of what is free on the device, that the cells may take


class CellsOnDevice(NamedTuple):
    """The tensors of all cells, in memory of the device; batches are equal to those of `Cells.take`."""

    counts: SparseRows
    batch: Tensor
    label: Tensor
    covariates: Tensor
    library: Tensor
    external: Tensor | None
    partners: Partners | None

    @classmethod
    def of(cls, cells: Cells, device: torch.device) -> CellsOnDevice:
        """Send them there; their counts must be in memory."""
        assert isinstance(cells.counts, Rows)

        def sent(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        indptr, indices, values, n_genes = cells.counts
        return cls(
            counts=SparseRows(sent(indptr), sent(indices), sent(values), n_genes),
            batch=sent(cells.batch),
            label=sent(cells.label),
            covariates=sent(cells.covariates),
            library=sent(cells.library),
            external=None if cells.external is None else sent(cells.external),
            partners=cells.partners if isinstance(cells.partners, Partners) else None,
        )

    def take(self, rows: np.ndarray) -> Batch:
        """The cells `rows` (B,), on the device."""
        batch = self._batch(rows)
        drawn = None if self.partners is None else self.partners.draw(rows)
        if drawn is None:
            return batch
        assert self.external is not None
        external = self.external[torch.from_numpy(drawn[1]).to(self.external.device)]
        return batch._replace(pair=self._batch(drawn[0])._replace(external=external))

    def _batch(self, rows: np.ndarray) -> Batch:
        at = torch.from_numpy(rows).to(self.batch.device)
        return Batch(
            counts=_rows_of(self.counts, at),
            batch=self.batch[at],
            label=self.label[at],
            covariates=self.covariates[at],
            library=self.library[at],
            rows=at,
            external=None if self.external is None else self.external[at],
        )


def _rows_of(counts: SparseRows, at: Tensor) -> SparseRows:
    """The rows `at` (B,), by tensor operations alone."""
    starts = counts.indptr[at]
    lengths = counts.indptr[at + 1] - starts
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    n = int(indptr[-1])
    entries = torch.arange(n, device=at.device) + (starts - indptr[:-1]).repeat_interleave(lengths, output_size=n)
    return SparseRows(indptr, counts.indices[entries], counts.values[entries], counts.n_genes)


def fits(cells: Cells, device: torch.device) -> bool:
    """Whether the device is a GPU with room for these cells, which are in memory."""
    if device.type != "cuda" or not isinstance(cells.counts, Rows):
        return False
    arrays = [*cells.counts[:3], cells.batch, cells.label, cells.covariates, cells.library, cells.external]
    needed = sum(array.nbytes for array in arrays if array is not None)
    return needed < SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]
