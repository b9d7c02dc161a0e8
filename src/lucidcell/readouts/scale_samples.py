"""Draws of the expression of a group of cells: z from its posterior, decoded in every batch that is compared.

    z_i ~ q(z | x_i) for cells i of the group (or another law of z: `DrawZ`)
    e_is = f(z_i, s) = rho decoded as batch s,    e_i = sum_s w_s e_is

Only z is kept for all draws. Expression is decoded again for each block of genes, so that memory does not grow with
genes x draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lucidcell.cells.covariates import some
from lucidcell.errors import DataError
from lucidcell.readouts.expression import as_batch

if TYPE_CHECKING:
    from lucidcell.cells.cells import Cells, CellWindow
    from lucidcell.models.factor_model import FactorModel
    from lucidcell.readouts.groups import Comparison

CELLS_AT_A_TIME = 256
GENES_AT_A_TIME = 256  # of one block; results do not depend on how many blocks are decoded at once
BYTES_OF_EXPRESSION = 2**28  # kept at once, for each group; beyond, all genes are decoded once more


class DrawZ(Protocol):
    """A law of z for each cell; how label-conditional sampling plugs in.

    It is called with the cells, the positions `rows` (N,) of one cell for each draw (a cell may occur more than once)
    and a generator, and returns z (N, D).
    """

    def __call__(self, cells: Cells, rows: np.ndarray, rng: np.random.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Batches:
    """Batches to decode as, with weights that sum to 1; a code of None is each cell's own batch."""

    codes: tuple[int | None, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Draws:
    """N draws for one group."""

    cells: Cells | CellWindow
    rows: np.ndarray  # (N,) position in `cells` of the cell behind each draw
    z: Tensor  # (N, D)
    n_cells: int  # different cells among them
    first_row: int  # of the group; it names the group's random streams

    def generator(self, seed: int, stream: int) -> np.random.Generator:
        """Random numbers of this group alone, so that exchanging the groups of a comparison changes no draw."""
        return np.random.default_rng([seed, self.first_row, stream])


def shared_batches(cells: Cells, comparison: Comparison, weights: str, correct: bool) -> Batches:
    """The batches in which both groups have cells, weighted equally ("uniform") or by the cells compared in each.

    Raises
    ------
    DataError
        If there is none.
    """
    names = cells.schema.batch_categories
    if not correct or len(names) == 1:
        return Batches((None,), (1.0,))
    sizes = [np.bincount(cells.batch[rows], minlength=len(names)) for rows in (comparison.rows1, comparison.rows2)]
    codes = np.flatnonzero((sizes[0] > 0) & (sizes[1] > 0))
    if not len(codes):
        found = [some([names[s] for s in np.flatnonzero(size)]) for size in sizes]
        raise DataError(
            f"group {comparison.group1!r} has cells in {found[0]} and group {comparison.group2!r} in {found[1]}, so no "
            "batch has both: pass batch_correction=False to compare them as they are, with the batches' differences."
        )
    size = (sizes[0] + sizes[1])[codes].astype(float) if weights == "empirical" else np.ones(len(codes))
    return Batches(tuple(int(s) for s in codes), tuple(float(w) for w in size / size.sum()))


def draw(cells: Cells, rows: np.ndarray, n: int, seed: int, draw_z: DrawZ) -> Draws:
    """Take `n` draws from a group: every cell equally often, or `n` of its cells once where it has more."""
    rng = np.random.default_rng([seed, int(rows[0]), 0])
    whole, remainder = divmod(n, len(rows))
    positions = np.concatenate([np.tile(np.arange(len(rows)), whole), rng.permutation(len(rows))[:remainder]])
    chosen = rows[rng.permutation(positions)]
    return Draws(cells.window(chosen), chosen, draw_z(cells, chosen, rng), min(n, len(rows)), int(rows[0]))


@dataclass(frozen=True)
class PosteriorOfCells:
    """z_i ~ q(z | x_i); a `DrawZ`."""

    model: FactorModel

    def __call__(self, cells: Cells, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        return self.model.vae.link(draw_posterior(self.model, cells, rows, rng))


def draw_posterior(model: FactorModel, cells: Cells, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """One draw of q(z | x) for each of the cells `rows`, (N, D), before the softmax of a logistic normal."""
    different, back = np.unique(rows, return_inverse=True)
    with torch.no_grad():
        posteriors = [model.vae.encode(batch) for batch in model.batches(cells.select(different))]
        mu, sigma = torch.cat([one.mu for one in posteriors]), torch.cat([one.sigma for one in posteriors])
        noise = torch.from_numpy(rng.standard_normal((len(rows), mu.shape[1]), dtype=np.float32))
        return mu[back] + sigma[back] * noise


def expression_blocks(
    model: FactorModel, draws: Sequence[Draws], batches: Batches, *, average: bool
) -> Iterator[tuple[slice, list[list[np.ndarray]]]]:
    """Expression of some genes after the other: the genes, and for each group its draws (N, genes) in each batch.

    With `average` there is one array for each group, the weighted mean over the batches.
    """
    n_kept = 1 if average else len(batches.codes)
    n_genes = model.schema.n_genes
    bytes_of_block = 4 * GENES_AT_A_TIME * n_kept * max(len(one.rows) for one in draws)
    blocks = max(1, BYTES_OF_EXPRESSION // bytes_of_block)
    for start in range(0, n_genes, blocks * GENES_AT_A_TIME):
        genes = slice(start, min(start + blocks * GENES_AT_A_TIME, n_genes))
        decoded = [_decoded(model, one, batches, genes, n_kept) for one in draws]
        for first in range(0, genes.stop - genes.start, GENES_AT_A_TIME):
            last = min(first + GENES_AT_A_TIME, genes.stop - genes.start)
            yield slice(start + first, start + last), [[array[:, first:last] for array in one] for one in decoded]


def _decoded(model: FactorModel, draws: Draws, batches: Batches, genes: slice, n_kept: int) -> list[np.ndarray]:
    vae = model.vae
    kept = [np.zeros((len(draws.rows), genes.stop - genes.start), np.float32) for _ in range(n_kept)]
    with torch.no_grad():
        for start in range(0, len(draws.rows), CELLS_AT_A_TIME):
            rows = slice(start, start + CELLS_AT_A_TIME)
            batch, z = draws.cells.take(draws.rows[rows]), draws.z[rows]
            for k, (code, weight) in enumerate(zip(batches.codes, batches.weights, strict=True)):
                rho = vae.decode(z, vae.design(as_batch(batch, code)))[:, genes].exp().numpy()
                if n_kept == 1:
                    kept[0][rows] += np.float32(weight) * rho
                else:
                    kept[k][rows] = rho
    return kept
