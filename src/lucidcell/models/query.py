"""Query mapping: new cells, from new batches, in the latent space of a trained model (as in Lotfollahi et al. 2022).

The networks of the reference stay as they are, bit for bit. A new batch gets new columns in the weights of the batch
one-hot; only those are trained, on the query, with batch-norm in evaluation mode. Without `encode_covariates` the
encoder does not see batches, so the embedding needs no training at all; the new columns then serve the decoder.

Genes are matched by name. Where the query lacks genes, each cell is encoded without them, and the decoder's expectation
for them, in proportion to the counts that were observed, then takes their place. On held-out cells with 30 % of the
genes removed this leaves a third of the error in the latent space that zeros leave (LOG.md, 2026-11-21); more passes
change nothing. The likelihood of the new columns sees the same completed counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import nn

from lucidcell.cells.cells import Cells
from lucidcell.cells.matrix import Rows
from lucidcell.errors import DataError
from lucidcell.models import storage
from lucidcell.training.loop import fit
from lucidcell.training.phases import Phase
from lucidcell.training.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.factor_model import FactorModel
    from lucidcell.models.scvi import SCVIModule

M = TypeVar("M", bound="FactorModel")
CELLS_AT_A_TIME = 1024
LEAST_OBSERVED = 0.05  # share of expected counts that observed genes have at least, against division by nothing


def map_query(model: M, adata: AnnData, *, min_overlap: float = 0.5, max_epochs: int = 30, seed: int = 0) -> M:
    """A model whose cells are those of `adata`, with the reference's weights and new ones for new batches only.

    Parameters
    ----------
    model
        Trained reference; it is not changed.
    adata
        Query with the reference's keys in obs. Batches may be new; a label column may be missing.
    min_overlap
        Fraction of the reference's genes that the query must have.
    max_epochs
        Passes over the query to train the new batch weights; none are needed for known batches.
    seed
        Of the training.

    Raises
    ------
    DataError
        If too few genes overlap, with the numbers.
    """
    model._check_trained()
    name = type(model).__name__
    external_key, required = model.external_of(vars(model.config))
    cells = Cells.from_schema(
        adata, model.schema, new_batches=True, missing_genes=True, external_key=external_key,
        external_required=required, model=name,
    )  # fmt: skip
    overlap = float(cells.present.mean())
    if overlap < min_overlap:
        raise DataError(
            f"the query has {cells.present.sum()} of the reference's {cells.n_genes} genes ({overlap:.0%}), below "
            f"min_overlap={min_overlap:.0%}; use the same kind of gene names, or lower min_overlap."
        )
    query = extend_batches(model, cells)
    if overlap < 1:
        query.cells = fill_missing(query.vae, cells)
    query.training_facts, query.history = model.training_facts, model.history
    query.calibration = model.calibration
    if cells.schema.n_batches > model.schema.n_batches and len(cells) > 1:
        _train_new_columns(query, model.schema.n_batches, max_epochs, seed)
    return query


def extend_batches(model: M, cells: Cells) -> M:
    """A model of `cells` with the reference's weights, and columns for all batches: new ones are means of old."""
    query = type(model)._restore(vars(model.config), cells.schema, cells)
    old, n_old, n_new = model.module.state_dict(), model.schema.n_batches, cells.schema.n_batches
    for name, target in query.module.state_dict().items():
        source = old[name]
        if source.shape == target.shape:
            target.copy_(source)
        elif target.ndim == 2 and target.shape[0] == source.shape[0]:  # design: [..., one-hot batch]
            target[:, : source.shape[1]] = source
            target[:, source.shape[1] :] = source[:, -n_old:].mean(1, keepdim=True)
        else:  # one row for each batch: dispersion, library prior
            target[:n_old] = source
            target[n_old:] = source.mean(0, keepdim=True)
    if n_new > n_old and not model.vae.config.use_observed_lib_size:
        _set_library_prior(query.vae, cells, n_old)
    return query


def _set_library_prior(vae: SCVIModule, cells: Cells, n_old: int) -> None:
    from lucidcell.models.initial import library_prior

    vae.library_prior[n_old:] = torch.from_numpy(library_prior(cells)).float()[n_old:]


@torch.no_grad()
def fill_missing(vae: SCVIModule, cells: Cells) -> Cells:
    """`cells` with expected counts in the place of the genes that are not present."""
    missing = torch.from_numpy(np.flatnonzero(~cells.present))
    completed = []
    for batch in cells.in_order(CELLS_AT_A_TIME):
        z = vae.link(vae.encode(batch).mu)
        rho = vae.expression(z, vae.design(batch))[:, missing]
        counts = batch.counts.dense()
        if cells.schema.counts:
            observed_share = (1 - rho.sum(1, keepdim=True)).clamp(min=LEAST_OBSERVED)
            rho = rho / observed_share * counts.sum(1, keepdim=True)
        counts[:, missing] = rho
        completed.append(csr_matrix(counts.numpy()))
    filled = vstack(completed, format="csr")
    library = cells.library if cells.schema.size_factor_key else np.asarray(filled.sum(1)).ravel().astype(np.float32)
    return replace(
        cells,
        counts=Rows(
            filled.indptr.astype(np.int64),
            filled.indices.astype(np.int32),
            filled.data.astype(np.float32),
            filled.shape[1],
        ),
        library=library,
    )


class _NewColumns(nn.Module):
    """The module seen by the training loop: only the columns of new batches move, and batch-norm stays still."""

    def __init__(self, model: FactorModel, n_old: int) -> None:
        super().__init__()
        vae = model.vae
        self.module, self.loss = model.module, model.query_loss()
        n_new = vae.sizes.n_batches - n_old
        self.trained: list[nn.Parameter] = []
        for weight in vae.batch_weights():
            assert isinstance(weight, nn.Parameter)
            keep = torch.zeros_like(weight)
            keep[:, -n_new:] = 1.0
            weight.register_hook(lambda gradient, keep=keep: gradient * keep)
            self.trained.append(weight)

    def train(self, mode: bool = True) -> _NewColumns:
        super().train(mode)
        self.module.eval()
        return self

    def phases(self) -> list[Phase]:
        return [Phase("query", self.loss, self.trained)]


def _train_new_columns(query: FactorModel, n_old: int, max_epochs: int, seed: int) -> None:
    cells = query.cells
    assert cells is not None
    settings = Settings(max_epochs=max_epochs, train_size=1.0, seed=seed).resolve(len(cells))
    query.record = fit(_NewColumns(query, n_old), cells, settings, progress=False)
    query.history, query.training_facts = query.record.history, storage.training_facts(query.record)
