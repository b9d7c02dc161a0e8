"""LDVAE: scVI with a linear decoder, so that every factor is a list of genes with weights.

Generative model, for cell n with design row s_n = [covariates, one-hot batch], over G genes:

    z_n ~ N(0, I)                            D factors; or their softmax on the simplex (`latent_distribution="ln"`)
    a_n = W [z_n, s_n]                       W: G x (D + columns of the design)
    y_ng = gamma_g (a_ng - m_g) / sd_g + beta_g     batch-norm of each gene, or y_n = a_n + bias without it
    rho_n = softmax(y_n)                     share of each gene
    x_ng ~ NB, ZINB or Poisson with mean l_n rho_ng, as in scvi.py

Batch-norm is folded into the weight, W~, and the bias: y_n = W~ [z_n, s_n] + b; linear_model.py says how.

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
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import SettingError
from lucidcell.models import initial
from lucidcell.models.arguments import not_negative, yes_or_no
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.linear_model import LinearModel, LinearModule
from lucidcell.models.scvi import LinearMap, SCVIConfig, Sizes, check_keys, check_labels

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.training.settings import Settings

WEIGHT_PACE, GAMMA_PACE = 16.0, 4.0  # how much farther than other parameters Adam moves W and gamma (LOG.md)
FIRST_GAMMA = 0.3  # of every gene's logit, its standard deviation in the beginning
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


class LDVAEModule(LinearModule):
    """scVI's networks with one linear layer for a decoder. Notation as in this file's docstring."""

    config: LDVAEConfig

    def make_decoder(self, n_design: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        n_inputs = config.n_latent + n_design
        self.weight = nn.Parameter(nn.Linear(n_inputs, n_genes).weight.detach() / WEIGHT_PACE)  # W / pace
        if config.decoder_bias:
            self.bias = nn.Parameter(torch.zeros(n_genes))
        if config.use_batch_norm:
            self.gamma = nn.Parameter(torch.full((n_genes,), FIRST_GAMMA / GAMMA_PACE))
            self.beta = nn.Parameter(torch.zeros(n_genes))
        if config.gene_likelihood == "zinb":
            self.dropout_logit = nn.Linear(n_inputs, n_genes)
        self.make_moments()

    @property
    def normalised(self) -> bool:
        return self.config.use_batch_norm

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

    def penalties(self, logits: LinearMap) -> dict[str, Tensor]:
        if not self.config.l1:
            return {}
        return {"l1": self.config.l1 * logits.weight[:, : self.config.n_latent].abs().mean(0).sum()}

    @torch.no_grad()
    def settle(self, batches: Iterable[Batch]) -> None:
        """Also zeros in the place of tiny loadings."""
        super().settle(batches)
        if self.config.l1:
            sizes = self.folded()[0][:, : self.config.n_latent].abs()
            self.weight[:, : self.config.n_latent][sizes < NOTHING * sizes.amax(0)] = 0


class LDVAE(LinearModel):
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
    config_class = LDVAEConfig
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
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> LDVAEModule:
        module = self._draw(self.config, cells.schema, settings.seed)
        initial.from_data(module, cells)
        return module

    @classmethod
    def _module(cls, config: LDVAEConfig, schema: Schema) -> LDVAEModule:
        return LDVAEModule(config, Sizes.of(schema))

    @property
    def readable_rotation(self) -> str | None:
        """Varimax, unless something else settles the rotation: a simplex, a penalty, loadings of one sign."""
        settled = self.on_simplex or self.config.l1 > 0 or self.config.nonnegative
        return None if settled else "varimax"

    def readable_loadings(self) -> pd.DataFrame:
        """Genes x factors as they are shown: in `readable_rotation`, centred unless zeros or signs would be lost."""
        center = self.config.l1 == 0 and not self.config.nonnegative
        return self.get_loadings(rotate=self.readable_rotation, center=center)
