"""Genes x factors: how much each factor moves each gene, by the attribution methods of neural networks.

A network's score of gene g and factor d in one cell, for the decoder f from factors to genes at the cell's z:

    saliency                  d f_g / d z_d                              (signed)
    gradient_x_input          (z_d - z0_d) d f_g / d z_d
    integrated_gradients      (z_d - z0_d) times the mean of d f_g / d z_d from z0 to z    (Sundararajan 2017)
    deeplift                  (z_d - z0_d) times the multiplier of the rescale rule         (Shrikumar 2017)
    shapley                   mean change of f_g when z_d moves from z0_d to its value, over orders        (Castro 2009)

f is log expression before sampling for counts, the mean of scaled expression for a Gaussian. For the encoder, f is the
posterior mean of a factor, and the gene is the input.

The table sums the cells up, factor by factor, while they stream by: no tensor of cells x genes x factors exists, and
for the decoder not even one of cells x genes, because the last layer is the same in all cells (`Changes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import SettingError
from lucidcell.maths import chain as chains
from lucidcell.maths.chain import Changes
from lucidcell.maths.sampling import some_rows
from lucidcell.maths.shapley import orders, shapley, shapley_of_many
from lucidcell.readouts.arguments import is_whole
from lucidcell.readouts.attribution_summary import SUMMARIES, WORDS, Basis, entries, new_summary

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.cells.cells import Cells
    from lucidcell.maths.chain import Chain, Local
    from lucidcell.models.factor_model import FactorModel

METHODS = ("saliency", "gradient_x_input", "integrated_gradients", "deeplift", "shapley")
EVALUATIONS = {"integrated_gradients": 32, "shapley": 24}
MOST_CELLS = 5000  # by default
MOST_CELLS_OF_SHAPLEY = 1000
MOST_CELLS_AT_A_TIME = 512
ENTRIES_AT_A_TIME = 2**24  # of the largest tensor that a batch of cells makes
ENTRIES_OF_SUMMARIES = 2**27  # of the summaries of the factors that are read in one pass


@dataclass(frozen=True)
class How:
    """What is computed in each cell."""

    method: str = "gradient_x_input"
    of: str = "decoder"
    mode: str = "auto"
    baseline: str = "zero"
    n_evaluations: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "method": METHODS, "of": ("decoder", "encoder"), "mode": ("auto", "forward", "reverse"),
            "baseline": ("zero", "mean"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise SettingError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        if self.n_evaluations is not None and not (is_whole(self.n_evaluations) and self.n_evaluations >= 1):
            raise SettingError(f"n_evaluations is {self.n_evaluations!r}; it must be a whole number of at least 1.")
        if self.method == "shapley" and self.mode != "auto":
            raise SettingError(f"mode is {self.mode!r}, and 'shapley' has no derivatives; leave it out.")

    @property
    def evaluations(self) -> int:
        return self.n_evaluations or EVALUATIONS.get(self.method, 1)


def attributions(
    model: FactorModel,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    how: How,
    summary: str,
) -> pd.DataFrame:
    """Genes x factors (G, D); see `FactorModel.get_attributions`."""
    if summary not in SUMMARIES:
        raise SettingError(f"summary is {summary!r}; it must be one of {', '.join(SUMMARIES)}.")
    cells = model.cells_of(adata, indices)
    most = MOST_CELLS_OF_SHAPLEY if how.method == "shapley" else MOST_CELLS
    if indices is None and len(cells) > most:
        cells = cells.select(some_rows(len(cells), most))
    network = Network(model, cells, how)
    n_factors = model.vae.config.n_latent
    size = max(1, ENTRIES_OF_SUMMARIES // entries(network.width))
    columns, shares = [], []
    for start in range(0, n_factors, size):
        factors = range(start, min(start + size, n_factors))
        found = {d: new_summary(summary, network.n_genes, network.width) for d in factors}
        for scores in network.scores(factors):
            for k, d in enumerate(factors):
                found[d].add(scores.of_factor(k), None if scores.sign is None else scores.sign[:, k])
        for d in factors:
            columns.append(found[d].column(network.basis))
            shares.append(found[d].share)
    table = pd.DataFrame(
        np.stack(columns, 1), index=pd.Index(model.schema.gene_names, name="gene"), columns=model.factor_names
    )
    table.attrs = _description(model, how, summary, len(cells), shares)
    return table


def cell_attributions(
    model: FactorModel,
    factor: str,
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    how: How,
) -> pd.DataFrame:
    """Cells x genes: the scores of one factor; see `FactorModel.get_cell_attributions`."""
    if factor not in model.factor_names:
        raise SettingError(f"factor is {factor!r}; this model has {', '.join(model.factor_names)}.")
    d = model.factor_names.index(factor)
    cells = model.cells_of(adata, indices)
    network = Network(model, cells, how)
    found = [scores.of_factor(0).dense()[:, 0] for scores in network.scores([d])]
    return pd.DataFrame(
        torch.cat(found).double().numpy(),
        index=cells.cell_names,
        columns=pd.Index(model.schema.gene_names, name="gene"),
    )


@dataclass(frozen=True)
class Scores:
    """Some factors' scores in some cells, and the signs of the inputs that they have."""

    changes: Changes  # (B, k, G)
    sign: Tensor | None  # (B, k, 1) or (B, k, G)

    def of_factor(self, k: int) -> Changes:
        """Of the k-th factor, (B, 1, G)."""
        return self.changes._replace(coefficients=self.changes.coefficients[:, k : k + 1])


class Network:
    """Decoder or encoder of a model, ready to be attributed in some cells."""

    def __init__(self, model: FactorModel, cells: Cells, how: How) -> None:
        self.model, self.cells, self.how, self.vae = model, cells, how, model.vae
        self.decoder = how.of == "decoder"
        n_latent, self.n_genes = self.vae.config.n_latent, model.schema.n_genes
        self.forward = how.mode == "forward" or (how.mode == "auto" and self.decoder == (self.n_genes >= n_latent))
        self.log_softmax = self.decoder and self.vae.softmax
        with torch.no_grad():
            one = next(iter(model.batches(cells, 1)))
            x, chain = self._at(one)
            self.widest = max(layer.weight.shape[0] for layer in chain[:-1]) if len(chain) > 1 else x.shape[1]
            self.baseline = torch.zeros(x.shape[1]) if how.baseline == "zero" else self._mean_input()
            factored = self.decoder and (self.forward or how.method == "shapley")
            basis = chain[-1].weight.detach() if factored else None
            if basis is not None and self.log_softmax:
                basis = torch.cat([basis, basis.new_ones(len(basis), 1)], 1)
            self.basis = Basis(basis)
            self.width = self.n_genes if basis is None else basis.shape[1]

    def scores(self, factors: Sequence[int]) -> Iterator[Scores]:
        """Of these factors, batch by batch."""
        entries = len(factors) * max(self.width, self.widest)
        if self.how.method == "shapley" and self.decoder:
            entries = (self.vae.config.n_latent + 1) * max(self.widest, self.n_genes if self.log_softmax else 0)
        size = max(1, min(MOST_CELLS_AT_A_TIME, ENTRIES_AT_A_TIME // entries))
        rng = np.random.default_rng(self.how.seed)
        with torch.no_grad():
            for batch in self.model.batches(self.cells, size):
                yield self._scores(batch, factors, rng)

    def _scores(self, batch: Batch, factors: Sequence[int], rng: np.random.Generator) -> Scores:
        x, chain = self._at(batch)
        chosen = list(factors)
        inputs = (x - self.baseline)[:, chosen, None] if self.decoder else (x - self.baseline)[:, None]
        if self.how.method == "shapley":
            changes = self._shapley(chain, x, chosen, rng)
        else:
            changes = self._derivatives(chain, x, chosen)
            coefficients = changes.coefficients
            if self.how.method == "saliency":
                coefficients = coefficients.expand(len(x), -1, -1)
            else:
                coefficients = coefficients * inputs
            changes = changes._replace(coefficients=coefficients)
        sign = None if self.how.method == "saliency" else inputs.sign().expand(-1, len(chosen), -1)
        return Scores(changes, sign)

    def _at(self, batch: Batch) -> tuple[Tensor, Chain]:
        """Where the cells are, and the network there."""
        if self.decoder:
            return self.vae.link(self.vae.encode(batch).mu), self.vae.decoder_chain(self.vae.design(batch))
        x, covariates = self.vae.dense_inputs(batch)
        return x, self.vae.encoder_chain(covariates)

    def _mean_input(self) -> Tensor:
        sums = [self._at(batch)[0].double().sum(0) for batch in self.model.batches(self.cells)]
        return (torch.stack(sums).sum(0) / len(self.cells)).float()

    # --- derivatives, and what stands for them ---

    def _derivatives(self, chain: Chain, x: Tensor, factors: list[int]) -> Changes:
        path = self._path(chain, x)
        if self.decoder and self.forward:
            return chains.columns(path(), factors)
        if not self.decoder and not self.forward:
            return Changes(chains.rows(path(), factors).dense(), None)
        found = []  # the other way round, some genes at a time
        step = max(1, ENTRIES_AT_A_TIME // (len(x) * max(self.widest, self.vae.config.n_latent)))
        read = chains.columns if self.forward else chains.rows
        for genes in torch.arange(self.n_genes).split(step):
            found.append(read(path(), genes.tolist()).dense()[:, :, factors])
        return Changes(torch.cat(found, 1).transpose(1, 2), None)

    def _path(self, chain: Chain, x: Tensor) -> Callable[[], chains.Path]:
        method, baseline, log_softmax = self.how.method, self.baseline, self.log_softmax

        def path() -> Iterator[tuple[float, Local]]:
            if method == "integrated_gradients":
                yield from chains.gradients(chain, x, baseline, self.how.evaluations, log_softmax=log_softmax)
            elif method == "deeplift":
                yield 1.0, chains.rescaled(chain, x, baseline, log_softmax=log_softmax)
            else:
                yield 1.0, chains.gradient(chain, x, log_softmax=log_softmax)

        return path

    def _shapley(self, chain: Chain, x: Tensor, factors: list[int], rng: np.random.Generator) -> Changes:
        if not self.decoder:
            baseline = self.baseline.expand_as(x)
            return Changes(shapley_of_many(chain, x, baseline, self.how.evaluations, rng)[:, factors], None)
        order = orders(x.shape[1], self.how.evaluations, len(x), rng)
        values = shapley(chain, x, self.baseline, order, log_softmax=self.log_softmax)
        return values._replace(coefficients=values.coefficients[:, factors])


def _description(model: FactorModel, how: How, summary: str, n_cells: int, shares: list[float]) -> dict[str, object]:
    if how.of == "encoder":
        what = "the factor's posterior mean"
    else:
        what = "log expression" if model.vae.softmax else "scaled expression"
    sign = "none: absolute" if summary == "mean_abs" else "positive: the gene rises with the factor"
    if how.method != "saliency" and summary == "mean":
        sign = "that of the factor and the gene together"
    return {
        "how": f"{how.method} of the {how.of} in {n_cells} cells, {WORDS[summary]}",
        "unit": f"change of {what} per unit of the input" if how.method == "saliency" else f"change of {what}",
        "sign": sign,
        "rotation": "none",
        "explained": dict(zip(model.factor_names, shares, strict=True)),
    }
