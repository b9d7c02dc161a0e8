"""LDVAE: scVI with a linear decoder, so that every factor is a list of genes with weights.

Generative model, for cell n with design row s_n = [covariates, one-hot batch], over G genes:

    z_n ~ N(0, I)                            D factors; or their softmax on the simplex (`latent_distribution="ln"`)
    a_n = W [z_n, s_n]                       W: G x (D + columns of the design)
    y_ng = gamma_g (a_ng - m_g) / sd_g + beta_g     batch-norm of each gene, or y_n = a_n + bias without it
    rho_n = softmax(y_n)                     share of each gene
    x_ng ~ NB, ZINB or Poisson with mean l_n rho_ng, as in scvi.py

Batch-norm is never computed cell by cell. The moments of a linear map follow from those of its inputs h = [z, s] over
the mini-batch, m_g = W_g . mean(h) and sd_g^2 = W_g' Cov(h) W_g, so it is folded into the weight and the bias:

    y_n = W~ h_n + b,   W~_g = gamma_g W_g / sqrt(sd_g^2 + eps),   b_g = beta_g - W~_g . mean(h)

which is one matrix product for the fused likelihood. After training m and sd are computed once more, over the cells
that trained.

Inference and objective are those of scVI; `l1` adds a penalty in nats per cell, l1 x sum over factors of
mean_g |W~_gd|.

Read-outs: loadings W~ of z (exact: y = z @ loadings.T + intercept + effects of batch and covariates); the prior is
isotropic, so that factors are identified up to a rotation, which `rotate="varimax"` settles for loadings and scores
together.

Reference: Svensson et al. (2020), Bioinformatics 36, 3418. docs/ldvae.md lists the differences from it and from
scvi-tools' LinearSCVI: the mean that the paper prints lacks the softmax; without batch-norm there is a bias here
(`decoder_bias`), of which the lack confounds the paper's comparison; the library is observed by default
(`reproduce="paper"`: latent); covariates, size factors and query mapping work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import SettingError
from lucidcell.maths.chain import Affine
from lucidcell.maths.folded_norm import fold_batch_norm
from lucidcell.maths.sampling import some_rows
from lucidcell.models import initial
from lucidcell.models.arguments import not_negative, yes_or_no
from lucidcell.models.factor_model import FactorModel
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import LinearMap, SCVIConfig, SCVIModule, Sizes, check_keys, check_labels
from lucidcell.readouts import linear_decoder
from lucidcell.readouts.random import seeded

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.training.settings import Settings

EPS, MOMENTUM = 1e-3, 0.05  # of the batch-norm after the decoder; the running moments serve validation only
WEIGHT_PACE, GAMMA_PACE = 16.0, 4.0  # how much farther than other parameters Adam moves W and gamma (LOG.md)
FIRST_GAMMA = 0.3  # of every gene's logit, its standard deviation in the beginning
DRAWS = 16  # of z, for the moments of its posterior over all cells
MOST_DECODED_CELLS = 5000
NOTHING = 0.01  # of the largest loading of its factor: what is smaller, with `l1`, is set to zero after training


@dataclass(frozen=True)
class LDVAEConfig(SCVIConfig):
    """Structure of the model."""

    use_batch_norm: bool = True
    decoder_bias: bool = False  # of the logits, where there is no batch-norm
    l1: float = 0.0
    nonnegative: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("use_batch_norm", "decoder_bias", "nonnegative"):
            yes_or_no(self, name)
        not_negative(self, "l1")
        if self.use_batch_norm and self.decoder_bias:
            raise SettingError(
                "decoder_bias=True has no effect under batch-norm, which has a shift of its own for every gene; leave "
                "it out, or pass use_batch_norm=False."
            )


class LDVAEModule(SCVIModule):
    """scVI's networks with one linear layer for a decoder. Notation as in this file's docstring."""

    config: LDVAEConfig
    mean_expression: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def make_decoder(self, n_design: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        n_inputs = config.n_latent + n_design
        self.weight = nn.Parameter(nn.Linear(n_inputs, n_genes).weight.detach() / WEIGHT_PACE)  # W / pace
        if config.decoder_bias:
            self.bias = nn.Parameter(torch.zeros(n_genes))
        if config.use_batch_norm:
            self.gamma = nn.Parameter(torch.full((n_genes,), FIRST_GAMMA / GAMMA_PACE))
            self.beta = nn.Parameter(torch.zeros(n_genes))
            self.register_buffer("running_mean", torch.zeros(n_genes))  # m
            self.register_buffer("running_variance", torch.ones(n_genes))  # sd^2
        if config.gene_likelihood == "zinb":
            self.dropout_logit = nn.Linear(n_inputs, n_genes)
        self.register_buffer("mean_expression", torch.full((n_genes,), 1 / n_genes))  # mean of rho over cells

    def gene_bias(self) -> nn.Parameter | None:
        if self.config.use_batch_norm:
            return self.beta
        return self.bias if self.config.decoder_bias else None

    def batch_weights(self) -> list[Tensor]:
        heads = [self.weight, self.dropout_logit.weight] if self.config.gene_likelihood == "zinb" else [self.weight]
        return [*heads, *self.batch_weights_of_encoder()]

    def free_weight(self) -> Tensor:
        """W, (G, D + design), its columns for z without their sign if they must not be negative."""
        weight = WEIGHT_PACE * self.weight
        if not self.config.nonnegative:
            return weight
        n_latent = self.config.n_latent
        return torch.cat([weight[:, :n_latent].abs(), weight[:, n_latent:]], dim=1)

    def free_gamma(self) -> Tensor:
        """gamma, without its sign if loadings must not be negative."""
        gamma = GAMMA_PACE * self.gamma
        return gamma.abs() if self.config.nonnegative else gamma

    def logits(self, z: Tensor, design: Tensor) -> LinearMap:
        """y, not multiplied out: the inputs [z, s], the folded weight W~ and the folded bias b."""
        inputs = torch.cat([z, design], dim=1)
        if not (self.config.use_batch_norm and self.training):
            return LinearMap(inputs, *self.folded())
        folded = fold_batch_norm(inputs, self.free_weight(), self.free_gamma(), self.beta, EPS)
        with torch.no_grad():
            bessel = len(inputs) / max(len(inputs) - 1, 1)
            self.running_mean.lerp_(folded.mean, MOMENTUM)
            self.running_variance.lerp_(folded.variance * bessel, MOMENTUM)
        return LinearMap(inputs, folded.weight, folded.bias)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """W~ and b with the moments of all cells that trained."""
        if not self.config.use_batch_norm:
            return self.free_weight(), self.gene_bias()
        scale = self.free_gamma() * torch.rsqrt(self.running_variance + EPS)
        return scale[:, None] * self.free_weight(), self.beta - scale * self.running_mean

    def decoder_chain(self, design: Tensor) -> list[Affine]:
        weight, bias = self.folded()
        of_z, of_design = weight.split([self.config.n_latent, design.shape[1]], dim=1)
        return [Affine(of_z, torch.nn.functional.linear(design, of_design, bias), relu=False)]

    def penalties(self, logits: LinearMap) -> dict[str, Tensor]:
        if not self.config.l1:
            return {}
        return {"l1": self.config.l1 * logits.weight[:, : self.config.n_latent].abs().mean(0).sum()}

    @torch.no_grad()
    def settle(self, batches: Iterable[Batch]) -> None:
        """After training: the moments of batch-norm over these cells, and zeros in the place of tiny loadings."""
        if self.config.use_batch_norm:
            mean, covariance = self.moments_of_inputs(batches)
            weight = self.free_weight().double()
            self.running_mean.copy_(weight @ mean)
            self.running_variance.copy_(((weight @ covariance) * weight).sum(1))
        if self.config.l1:
            sizes = self.folded()[0][:, : self.config.n_latent].abs()
            self.weight[:, : self.config.n_latent][sizes < NOTHING * sizes.amax(0)] = 0

    @torch.no_grad()
    def expression_of(self, batches: Iterable[Batch]) -> Tensor:
        """Mean of rho over cells, (G,), at the means of their posteriors."""
        rhos = [self.decode(self.link(self.encode(batch).mu), self.design(batch)).exp() for batch in batches]
        return torch.cat(rhos).mean(0)

    def moments_of_inputs(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Mean (P,) and covariance (P, P) of [z, s] over cells and draws of their posteriors."""
        n_inputs = self.weight.shape[1]
        n, total = 0, torch.zeros(n_inputs, dtype=torch.float64)
        products = torch.zeros(n_inputs, n_inputs, dtype=torch.float64)
        for batch in batches:
            posterior, design = self.encode(batch), self.design(batch)
            for _ in range(DRAWS):
                inputs = torch.cat([self.sample_z(posterior), design], dim=1).double()
                n, total, products = n + len(inputs), total + inputs.sum(0), products + inputs.t() @ inputs
        mean = total / n
        return mean, (products / n - torch.outer(mean, mean)) * n / max(n - 1, 1)


class LDVAE(FactorModel):
    """Variational autoencoder with a linear decoder: factors with exact loadings (Svensson et al. 2020).

    Parameters
    ----------
    adata, layer, batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys, size_factor_key
        As for `SCVI`; batches and covariates are further columns of the linear decoder.
    n_latent
        Factors.
    n_hidden, n_layers, dropout_rate
        Width, depth and dropout of the encoder.
    gene_likelihood, dispersion, use_observed_lib_size, encode_covariates, kl_warmup
        As for `SCVI`.
    latent_distribution
        "normal", or "ln": the factors of a cell are positive and sum to 1, so that it lies between D archetypes.
    use_batch_norm
        Whether the logits of each gene are normalised; folded into the loadings.
    decoder_bias
        Whether every gene has an intercept where there is no batch-norm; None: yes. The paper's variants without
        batch-norm have none.
    l1
        Weight of the sum over factors of the mean absolute loading, in nats per cell: 0 for none, 5 to 50 for few genes
        in a factor. Loadings below a hundredth of their factor's largest are then set to zero. It settles the rotation.
    nonnegative
        Whether loadings must not be negative.
    reproduce
        "paper": a latent library, and no bias without batch-norm, as in Svensson et al. (2020). None: our defaults.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "ldvae"
    share_of_learning_rate = 1.6  # (LOG.md, 2026-11-28)
    config: LDVAEConfig
    module: LDVAEModule

    def __init__(
        self,
        adata: AnnData | Sequence[AnnData] | dict[str, AnnData],
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        size_factor_key: str | None = None,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        gene_likelihood: str = "nb",
        dispersion: str = "gene",
        latent_distribution: str = "normal",
        use_observed_lib_size: bool = True,
        encode_covariates: bool = False,
        kl_warmup: float = 0.3,
        use_batch_norm: bool = True,
        decoder_bias: bool | None = None,
        l1: float = 0.0,
        nonnegative: bool = False,
        reproduce: str | None = None,
        **unknown: object,
    ) -> None:
        refuse_keywords("LDVAE", unknown, tuple(signature(LDVAE.__init__).parameters))
        if reproduce not in (None, "paper"):
            raise SettingError(f"reproduce is {reproduce!r}; it must be 'paper' or None.")
        if reproduce == "paper":
            use_observed_lib_size = False
        if decoder_bias is None:
            decoder_bias = reproduce is None and not use_batch_norm
        config = LDVAEConfig(
            n_hidden, n_latent, n_layers, dropout_rate, gene_likelihood, dispersion, latent_distribution,
            use_observed_lib_size, encode_covariates, kl_warmup, use_batch_norm, decoder_bias, l1, nonnegative,
        )  # fmt: skip
        check_keys(config, labels_key, size_factor_key)
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            model="LDVAE",
        )
        check_labels(config, cells)
        with torch.random.fork_rng(devices=[]):
            module = LDVAEModule(config, Sizes.of(cells.schema))
        self._start(config, module, cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> LDVAEModule:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            module = LDVAEModule(self.config, Sizes.of(cells.schema))
        initial.from_data(module, cells)
        return module

    def _after_training(self) -> None:
        """Moments of batch-norm, and mean expression, over the cells that trained."""
        assert self.record is not None
        cells = self._own_cells("train").select(self.record.train_rows)
        with seeded(self.record.settings.seed):
            self.module.settle(self.batches(cells))
            some = cells.select(some_rows(len(cells), MOST_DECODED_CELLS))
            self.module.mean_expression.copy_(self.module.expression_of(self.batches(some)))

    @classmethod
    def _restore(cls, config: dict[str, Any], schema: Schema, cells: Cells | None) -> Self:
        model = cls.__new__(cls)
        structure = LDVAEConfig(**config)
        with torch.random.fork_rng(devices=[]):
            module = LDVAEModule(structure, Sizes.of(schema))
        model._start(structure, module, schema, cells)
        return model

    @property
    def vae(self) -> LDVAEModule:
        return self.module

    # --- read-outs of the linear decoder ---

    @property
    def on_simplex(self) -> bool:
        """Whether the factors of a cell sum to 1."""
        return self.config.latent_distribution == "ln"

    @property
    def readable_rotation(self) -> str | None:
        """Varimax, unless something else settles the rotation: a simplex, a penalty, loadings of one sign."""
        settled = self.on_simplex or self.config.l1 > 0 or self.config.nonnegative
        return None if settled else "varimax"

    def readable_loadings(self) -> pd.DataFrame:
        """Genes x factors as they are shown: in `readable_rotation`, centred unless zeros or signs would be lost."""
        center = self.config.l1 == 0 and not self.config.nonnegative
        return self.get_loadings(rotate=self.readable_rotation, center=center)

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
