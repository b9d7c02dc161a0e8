"""Query mapping: new cells, from new batches, in the latent space of a trained model (as in Lotfollahi et al. 2022).

The networks of the reference stay as they are, bit for bit. A new batch gets new columns in the weights of the batch
one-hot; only those are trained, on the query, with batch-norm in evaluation mode. Without `encode_covariates` the
encoder does not see batches, so the embedding needs no training at all; the new columns then serve the decoder.

Genes are matched by name. A gene that the query lacks tells nothing: the encoder is given what the reference expects
of it, the decoder's mean for that cell, found by a few passes of encoding and decoding that begin at the mean of the
reference. The likelihood of the new columns counts it as that expectation too.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lucidcell.cells.cells import Cells
from lucidcell.errors import DataError
from lucidcell.models import storage
from lucidcell.training.loop import fit
from lucidcell.training.phases import Phase
from lucidcell.training.settings import Settings

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.scvi import SCVI, SCVIModule

logger = logging.getLogger("lucidcell")

PASSES = 3  # encode, decode, fill in the missing genes


def map_query(model: SCVI, adata: AnnData, *, min_overlap: float = 0.5, max_epochs: int = 30, seed: int = 0) -> SCVI:
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
    cells = Cells.from_schema(adata, model.schema, new_batches=True, missing_genes=True, model=name)
    overlap = float(cells.present.mean())
    if overlap < min_overlap:
        raise DataError(
            f"the query has {cells.present.sum()} of the reference's {cells.n_genes} genes ({overlap:.0%}), below "
            f"min_overlap={min_overlap:.0%}; use the same kind of gene names, or lower min_overlap."
        )
    module = extend_batches(model, cells)
    if overlap < 1:
        logger.warning("%d of %d genes are missing and filled in from the model.", (~cells.present).sum(), cells.n_genes)
        cells = fill_missing(module, cells, mean_expression(model))
    query = type(model)._restore(vars(model.config), cells.schema, cells)
    query.module = module.eval()
    query.training_facts, query.history = model.training_facts, model.history
    if cells.schema.n_batches > model.schema.n_batches and len(cells) > 1:
        _train_new_columns(query, model.schema.n_batches, max_epochs, seed)
    return query


def extend_batches(model: SCVI, cells: Cells) -> SCVIModule:
    """The reference's module with batch columns for every batch of `cells`; new ones are the mean of the known."""
    old, n_old, n_new = model.module.state_dict(), model.schema.n_batches, cells.schema.n_batches
    extended = type(model)._restore(vars(model.config), cells.schema, None).module
    for name, target in extended.state_dict().items():
        source = old[name]
        if source.shape == target.shape:
            target.copy_(source)
        elif target.ndim == 2 and target.shape[0] == source.shape[0]:  # design: [..., one-hot batch]
            target[:, : source.shape[1]] = source
            target[:, source.shape[1] :] = source[:, -n_old:].mean(1, keepdim=True)
        else:  # one row for each batch: dispersion, library prior
            target[:n_old] = source
            target[n_old:] = source.mean(0, keepdim=True)
    if n_new > n_old and not model.config.use_observed_lib_size:
        _set_library_prior(extended, cells, n_old)
    return extended


def _set_library_prior(module: SCVIModule, cells: Cells, n_old: int) -> None:
    from lucidcell.models.initial import library_prior

    module.library_prior[n_old:] = torch.from_numpy(library_prior(cells)).float()[n_old:]


def mean_expression(model: SCVI) -> np.ndarray:
    """Mean share of each gene in the reference, (G,): of its cells, or of the decoder's bias where there are none."""
    if model.cells is None:
        return torch.softmax(model.module.rho.bias.detach(), dim=0).numpy()
    from lucidcell.models.initial import mean_shares

    return mean_shares(model.cells)


@torch.no_grad()
def fill_missing(module: SCVIModule, cells: Cells, start: np.ndarray) -> Cells:
    """`cells` with expected counts in the place of missing genes, in proportion to the counts that were observed."""
    missing = np.flatnonzero(~cells.present)
    present_rows = [cells.take(np.arange(i, min(i + 1024, len(cells)))) for i in range(0, len(cells), 1024)]
    module.eval()
    filled = []
    for batch in present_rows:
        rho = torch.from_numpy(start).float().expand(batch.n_cells, -1)
        observed = batch.library
        for _ in range(PASSES):
            share = rho / (1 - rho[:, missing].sum(1, keepdim=True)).clamp(min=0.05)
            counts = batch.counts.dense()
            counts[:, missing] = share[:, missing] * observed[:, None]
            imputed = batch._replace(counts=_sparse(counts), library=counts.sum(1))
            z = module.link(module.encode(imputed).mu)
            rho = module.decode(z, module.design(imputed)).exp()
        filled.append(imputed)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([b.counts.indptr.diff().numpy() for b in filled]))])
    return replace(
        cells,
        indptr=indptr.astype(np.int64),
        indices=np.concatenate([b.counts.indices.numpy() for b in filled]),
        values=np.concatenate([b.counts.values.numpy() for b in filled]),
        library=np.concatenate([b.library.numpy() for b in filled]),
    )


def _sparse(dense: torch.Tensor):
    from lucidcell.cells.batch import SparseRows

    rows, columns = dense.nonzero(as_tuple=True)
    indptr = torch.zeros(dense.shape[0] + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(rows, minlength=dense.shape[0]).cumsum(0)
    return SparseRows(indptr, columns.int(), dense[rows, columns], dense.shape[1])


class _NewColumns(nn.Module):
    """The module seen by the training loop: only the columns of new batches move, and batch-norm stays still."""

    def __init__(self, module: SCVIModule, n_old: int) -> None:
        super().__init__()
        self.module = module
        n_new = module.sizes.n_batches - n_old
        self.trained: list[nn.Parameter] = []
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        layers = [layer.linear.weight for layer in module.decoder.layers]
        if module.config.encode_covariates:
            layers += [module.encoder.first.covariate_weight, *(layer.linear.weight for layer in module.encoder.rest.layers)]
        for weight in layers:
            weight.requires_grad_(True)
            keep = torch.zeros_like(weight)
            keep[:, -n_new:] = 1.0
            weight.register_hook(lambda gradient, keep=keep: gradient * keep)
            self.trained.append(weight)

    def train(self, mode: bool = True) -> _NewColumns:
        super().train(mode)
        self.module.eval()
        return self

    def phases(self) -> list[Phase]:
        return [Phase("query", self.module.loss, self.trained)]


def _train_new_columns(query: SCVI, n_old: int, max_epochs: int, seed: int) -> None:
    cells = query.cells
    assert cells is not None
    settings = Settings(max_epochs=max_epochs, train_size=1.0, seed=seed).resolve(len(cells))
    query.record = fit(_NewColumns(query.module, n_old), cells, settings, progress=False)
    for parameter in query.module.parameters():
        parameter.requires_grad_(True)
    query.history, query.training_facts = query.record.history, storage.training_facts(query.record)
