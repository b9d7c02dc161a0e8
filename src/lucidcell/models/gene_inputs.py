"""What siVAE's gene encoder sees of a gene: its centred and scaled values in cells that train, or their summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells
    from lucidcell.models.vae import VAEModule

KINDS = ("pca", "sample", "all")
N_COMPONENTS = 512
N_SAMPLED_CELLS = 10_000
MOST_OF_FILES = 50_000  # cells, where they are not in memory, that the principal components are of
MOST_EXACT = 2500  # cells or genes up to which the principal components are exact
N_ITERATIONS, N_MORE = 4, 16  # of the randomised ones: passes, and directions beyond those wanted
CELLS_AT_A_TIME = 1024


def n_gene_inputs(kind: str, wanted: int | None, n_cells: int, n_genes: int) -> int:
    """Number of columns, of which those that cells held out would fill stay zero."""
    most = {"pca": min(n_cells, n_genes), "sample": n_cells, "all": n_cells}[kind]
    default = {"pca": N_COMPONENTS, "sample": N_SAMPLED_CELLS, "all": n_cells}[kind]
    return min(default if wanted is None or kind == "all" else wanted, most)


def gene_inputs(module: VAEModule, training: Cells, kind: str, n_columns: int, seed: int) -> Tensor:
    """Genes x columns, (G, C), from the cells that train alone; a gene's squares sum to about C for every kind.

    Parameters
    ----------
    module
        With the moments of the genes set.
    training
        Cells that train.
    kind
        "pca": scores of the genes on their first principal components, not whitened, of at most 50,000 cells where
        they are in files; "sample": the gene's values in
        some cells, the same share of every batch; "all": in all cells.
    n_columns
        C.
    seed
        Of the sample, and of the start of the principal components.
    """
    if kind != "pca":
        if kind == "sample" and len(training) > n_columns:
            training = training.select(_stratified(training.batch, n_columns, seed))
        values = [module.target(batch) for batch in training.in_order(CELLS_AT_A_TIME)]
        found = torch.cat(values).t()
    else:
        if not training.in_memory and len(training) > MOST_OF_FILES:
            training = training.select(_stratified(training.batch, MOST_OF_FILES, seed))
        found = torch.from_numpy(_principal_scores(module, training, n_columns, seed))
        found = found * (n_columns / len(training)) ** 0.5
    columns = torch.zeros(training.n_genes, n_columns)
    columns[:, : found.shape[1]] = found
    return columns


def _stratified(batch: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` rows at random, each batch with its share of them, sorted."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(batch))
    order = order[np.argsort(batch[order], kind="stable")]  # batch after batch, at random within each
    offset = rng.random() * len(batch) / n
    return np.sort(order[np.floor(offset + np.arange(n) * len(batch) / n).astype(int)])


def _principal_scores(module: VAEModule, training: Cells, n_components: int, seed: int) -> np.ndarray:
    """Scores (G, C) of the genes, as samples, on the principal components of X^T, each cell centred over genes."""
    x = [module.transformed(batch) for batch in training.in_order(CELLS_AT_A_TIME)]
    indptr = np.cumsum(np.concatenate([[0], *(np.diff(one.indptr.numpy()) for one in x)]))
    scale, mean = module.gene_scale.numpy(), module.gene_mean.numpy()
    indices = np.concatenate([one.indices.numpy() for one in x])
    values = np.concatenate([one.values.numpy() for one in x]) / scale[indices]
    shape = (len(training), training.n_genes)
    cells = sp.csr_matrix((values.astype(np.float32), indices, indptr), shape=shape)
    offset = (mean / scale).astype(np.float32)  # X = cells - 1 offset' - level 1'
    level = np.asarray(cells.mean(1), np.float32).ravel() - offset.mean()
    n_components = min(n_components, min(shape) - 1) or 1

    def times(right: np.ndarray) -> np.ndarray:  # X @ right, for right (G, r)
        return np.asarray(cells @ right - offset @ right - np.outer(level, right.sum(0)), np.float32)

    def transposed(left: np.ndarray) -> np.ndarray:  # X.T @ left, for left (n, r)
        return np.asarray(cells.T @ left - np.outer(offset, left.sum(0)) - level @ left, np.float32)

    if min(shape) <= MOST_EXACT:
        by_cells = shape[0] <= shape[1]
        gram = np.zeros((min(shape), min(shape)))
        for start in range(0, max(shape), CELLS_AT_A_TIME):
            part = slice(start, start + CELLS_AT_A_TIME)
            if by_cells:  # some genes of all cells
                dense = cells[:, part].toarray() - offset[part] - level[:, None]
                gram += dense @ dense.T
            else:
                dense = cells[part].toarray() - offset - level[part, None]
                gram += dense.T @ dense
        squares, vectors = np.linalg.eigh(gram)
        scores = transposed(vectors) if by_cells else vectors * np.sqrt(np.maximum(squares, 0))
        return np.ascontiguousarray(scores[:, ::-1][:, :n_components], np.float32)
    basis = np.random.default_rng(seed).standard_normal((shape[1], min(n_components + N_MORE, min(shape))))
    for _ in range(N_ITERATIONS):
        basis = np.linalg.qr(transposed(np.linalg.qr(times(basis.astype(np.float32)))[0]))[0]
    left, values, right = np.linalg.svd(times(basis), full_matrices=False)
    return np.ascontiguousarray((basis @ (right.T * values))[:, :n_components])
