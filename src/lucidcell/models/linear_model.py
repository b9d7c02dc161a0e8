"""What models with a linear decoder share: batch-norm folded into its weight, and the read-outs of exact loadings.

    a_n = W [z_n, s_n]                              W: G x (D + columns of the design), `free_weight`
    y_ng = gamma_g (a_ng - m_g) / sd_g + beta_g     batch-norm of each gene, or y_n = a_n + bias without it
    rho_n = softmax(y_n)

Batch-norm is never computed cell by cell. The moments of a linear map follow from those of its inputs h = [z, s] over
the mini-batch, m_g = W_g . mean(h) and sd_g^2 = W_g' Cov(h) W_g, so it is folded into the weight and the bias:

    y_n = W~ h_n + b,   W~_g = gamma_g W_g / sqrt(sd_g^2 + eps),   b_g = beta_g - W~_g . mean(h)

which is one matrix product for the fused likelihood. After training m and sd are computed once more, over the cells
that trained.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lucidcell.cells.batch import Batch
from lucidcell.maths.chain import Affine
from lucidcell.maths.folded_norm import fold_batch_norm
from lucidcell.maths.sampling import some_rows
from lucidcell.models.factor_model import FactorModel
from lucidcell.models.scvi import LinearMap, SCVIModule
from lucidcell.readouts import linear_decoder
from lucidcell.readouts.random import seeded

EPS, MOMENTUM = 1e-3, 0.05  # of the batch-norm after the decoder; the running moments serve validation only
DRAWS = 16  # of z, for the moments of its posterior over all cells
MOST_DECODED_CELLS = 5000


class LinearModule(SCVIModule):
    """A linear decoder. A subclass has `free_weight`, `gene_bias` and, with batch-norm, `free_gamma`."""

    mean_expression: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def make_moments(self) -> None:
        """Buffers for what is known after training."""
        n_genes = self.sizes.n_genes
        if self.normalised:
            self.register_buffer("running_mean", torch.zeros(n_genes))  # m
            self.register_buffer("running_variance", torch.ones(n_genes))  # sd^2
        self.register_buffer("mean_expression", torch.full((n_genes,), 1 / n_genes))  # mean of rho over cells

    @property
    def normalised(self) -> bool:
        """Whether there is batch-norm after the decoder."""
        return True

    def free_weight(self) -> Tensor:
        """W, (G, D + columns of the design)."""
        raise NotImplementedError

    def free_gamma(self) -> Tensor:
        """gamma, (G,)."""
        raise NotImplementedError

    def shift(self) -> Tensor:
        """beta, (G,)."""
        bias = self.gene_bias()
        assert bias is not None
        return bias

    def logits(self, z: Tensor, design: Tensor) -> LinearMap:
        """y, not multiplied out: the inputs [z, s], the folded weight W~ and the folded bias b."""
        inputs = torch.cat([z, design], dim=1)
        if not (self.normalised and self.training):
            return LinearMap(inputs, *self.folded())
        return self.fold(inputs, self.free_weight())

    def fold(self, inputs: Tensor, weight: Tensor) -> LinearMap:
        """The same in training, with the moments of the mini-batch, which the running ones learn from."""
        folded = fold_batch_norm(inputs, weight, self.free_gamma(), self.shift(), EPS)
        with torch.no_grad():
            bessel = folded.n / (folded.n - 1).clamp(min=1)
            self.running_mean.lerp_(folded.mean, MOMENTUM)
            self.running_variance.lerp_(folded.variance * bessel, MOMENTUM)
        return LinearMap(inputs, folded.weight, folded.bias)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """W~ and b with the moments of all cells that trained."""
        if not self.normalised:
            return self.free_weight(), self.gene_bias()
        scale = self.free_gamma() * torch.rsqrt(self.running_variance + EPS)
        return scale[:, None] * self.free_weight(), self.shift() - scale * self.running_mean

    def decoder_chain(self, design: Tensor) -> list[Affine]:
        weight, bias = self.folded()
        of_z, of_design = weight.split([self.config.n_latent, design.shape[1]], dim=1)
        return [Affine(of_z, torch.nn.functional.linear(design, of_design, bias), relu=False)]

    # --- after training ---

    @torch.no_grad()
    def settle(self, batches: Iterable[Batch]) -> None:
        """After training: the moments of batch-norm over these cells."""
        if not self.normalised:
            return
        mean, covariance = self.moments_of_inputs(batches)
        weight = self.free_weight().double()
        self.running_mean.copy_(weight @ mean)
        self.running_variance.copy_(((weight @ covariance) * weight).sum(1))

    @torch.no_grad()
    def expression_of(self, batches: Iterable[Batch]) -> Tensor:
        """Mean of rho over cells, (G,), at the means of their posteriors."""
        rhos = [self.decode(self.link(self.encode(batch).mu), self.design(batch)).exp() for batch in batches]
        return torch.cat(rhos).mean(0)

    def moments_of_inputs(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Mean (P,) and covariance (P, P) of [z, s] over cells and draws of their posteriors."""
        n_inputs = self.config.n_latent + self.sizes.n_covariates + self.sizes.n_batches
        n, total = 0, torch.zeros(n_inputs, dtype=torch.float64)
        products = torch.zeros(n_inputs, n_inputs, dtype=torch.float64)
        for batch in batches:
            posterior, design = self.encode(batch), self.design(batch)
            for _ in range(DRAWS):
                inputs = torch.cat([self.sample_z(posterior), design], dim=1).double()
                n, total, products = n + len(inputs), total + inputs.sum(0), products + inputs.t() @ inputs
        mean = total / n
        return mean, (products / n - torch.outer(mean, mean)) * n / max(n - 1, 1)


class LinearModel(FactorModel):
    """A model whose decoder is linear, with exact loadings."""

    module: LinearModule

    def _after_training(self) -> None:
        """Moments of batch-norm, and mean expression, over the cells that trained."""
        assert self.record is not None
        cells = self._own_cells("train it").select(self.record.train_rows)
        with seeded(self.record.settings.seed):
            self.module.settle(self.batches(cells))
            some = cells.select(some_rows(len(cells), MOST_DECODED_CELLS))
            self.module.mean_expression.copy_(self.module.expression_of(self.batches(some)))

    @property
    def vae(self) -> LinearModule:
        return self.module

    # --- read-outs of the linear decoder ---

    @property
    def on_simplex(self) -> bool:
        """Whether the factors of a cell sum to 1."""
        return self.config.latent_distribution == "ln"

    def readable_shares(self, scores: pd.DataFrame) -> pd.DataFrame:
        return linear_decoder.shares(self, scores, self.readable_rotation, None)

    def rotation(self, rotate: str | None) -> np.ndarray | None:
        return None if rotate is None else linear_decoder.rotation(self, rotate)

    def mean_expression(self) -> np.ndarray:
        """Mean of rho over cells that trained, (G,)."""
        return self.module.mean_expression.numpy().astype(float)

    def get_loadings(self, *, rotate: str | None = None, center: bool = False) -> pd.DataFrame:
        """Genes x factors: the weights W~ of the decoder, batch-norm folded in.

        The logits of gene expression are exactly z @ loadings.T + `get_intercept()` + `get_batch_effects()` of the
        cell's batch + `get_covariate_effects()` times its covariates, and expression is their softmax over genes.

        Parameters
        ----------
        rotate
            None, or "varimax": loadings and scores (`get_latent_representation(rotate="varimax")`) rotated together to
            where each factor has few genes with large loadings. Factors of a linear decoder under an isotropic prior
            are identified only up to such a rotation; raw ones differ from seed to seed.
        center
            Subtract from each factor its mean loading, weighted by mean expression. It changes no expression, and makes
            the sign meaningful: at the mean of the data a loading is d log rho_g / d z_d.

        Returns
        -------
        DataFrame (G, D) with `attrs` that say how it was derived.

        Raises
        ------
        SettingError
            If `rotate` is unknown.
        """
        return linear_decoder.loadings(self, rotate, center)

    def get_intercept(self) -> pd.Series:
        """Logit of each gene at z = 0 without batch and covariates, (G,)."""
        return linear_decoder.intercept(self)

    def get_batch_effects(self) -> pd.DataFrame:
        """Genes x batches: what a batch adds to each gene's logit, batch-norm folded in."""
        return linear_decoder.batch_effects(self)

    def get_covariate_effects(self) -> pd.DataFrame:
        """Genes x covariates: what one unit adds to each gene's logit, batch-norm folded in.

        Columns are "key=category" for the categories, and "key" for continuous covariates per standard deviation.
        """
        return linear_decoder.covariate_effects(self)

    def get_factor_shares(self, *, rotate: str | None = None, order: str | None = "share") -> pd.DataFrame:
        """Share of each factor in the variance of the linear predictor over the model's own cells.

        See `lucidcell.factor_shares`; shares sum to 1 and can be negative where factors are correlated.

        Parameters
        ----------
        rotate
            As in `get_loadings`.
        order
            "share", "drop_one" or "z_variance", largest first; None for the order of the factors.
        """
        names = self.get_loadings(rotate=rotate).columns
        scores = pd.DataFrame(self.get_latent_representation(rotate=rotate), columns=names)
        return linear_decoder.shares(self, scores, rotate, order)

    def get_archetypes(self) -> pd.DataFrame:
        """Genes x archetypes: expression rho of a cell that is wholly one factor of a logistic normal, each sums to 1.

        Batch effects enter with their mean, covariates with nothing.

        Raises
        ------
        SettingError
            If the latent is not a logistic normal, so that the factors are directions without ends.
        """
        return linear_decoder.archetypes(self)
