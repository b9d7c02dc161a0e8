"""scETM: an embedded topic model with a free linear decoder; the comparator of scE2TM.

    z_n ~ N(0, I),  theta_n = softmax(z_n)               shares of K topics
    p_n = softmax_g(theta_n A R + U s_n)                 A: K x d points of topics, R: d x G points of genes
    loss per cell: -sum_g (x_ng / l_n) log p_ng + w KL(q(z_n | x_n) || N(0, I))

with x_ng / l_n the shares of the genes in the cell's counts, an MLP of these shares for q, and w growing to
`kl_weight` over the first third of training. With the paper's w = 1e-7 it is an autoencoder but in name.

Reference: Zhao et al. (2021), Nature Communications 12, 5261, and its code. Differences: docs/sce2tm.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from lucidcell.cells.batch import Batch, SparseRows
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.maths.divergences import kl_standard_normal
from lucidcell.maths.fused import LogLikelihood, softmax_log_likelihood
from lucidcell.models.arguments import fraction, not_negative, whole_number
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import LinearMap, Posterior, Sizes
from lucidcell.models.topic_model import TopicModel, TopicModule
from lucidcell.training.phases import Loss, Phase
from lucidcell.training.schedule import warm_up

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.training.settings import Settings


@dataclass(frozen=True)
class SCETMConfig:
    """Structure of the model; n_latent is the number of topics K."""

    n_latent: int = 50
    n_hidden: int = 128
    n_embedding: int = 400  # d
    dropout_rate: float = 0.1  # encoder only
    kl_weight: float = 1e-7
    kl_warmup: float = 1 / 3  # fraction of training

    # what the read-outs ask of any structure
    n_layers: ClassVar[int] = 1
    gene_likelihood: ClassVar[str] = "multinomial"
    dispersion: ClassVar[str] = "gene"
    latent_distribution: ClassVar[str] = "ln"
    use_observed_lib_size: ClassVar[bool] = True
    encode_covariates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole_number(self, "n_latent", 2, said="n_topics")
        for name in ("n_hidden", "n_embedding"):
            whole_number(self, name)
        for name in ("dropout_rate", "kl_warmup"):
            fraction(self, name)
        not_negative(self, "kl_weight")


class SCETMModule(TopicModule):
    """The networks and points."""

    config: SCETMConfig  # type: ignore[assignment]

    def make_decoder(self, n_design: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        self.topics = nn.Parameter(torch.randn(config.n_latent, config.n_embedding))  # A
        self.genes = nn.Parameter(torch.randn(n_genes, config.n_embedding))  # R transposed
        self.design_weight = nn.Parameter(torch.randn(n_genes, n_design))  # U
        self.make_moments()

    @property
    def normalised(self) -> bool:
        return False

    def gene_bias(self) -> nn.Parameter | None:
        return None

    def batch_weights(self) -> list[Tensor]:
        return [self.design_weight]

    def encoder_inputs(self, batch: Batch) -> tuple[SparseRows, Tensor]:
        """Shares of the genes in the cell's counts."""
        return batch.counts.shares(batch.library), batch.covariates[:, :0]

    def encode(self, batch: Batch) -> Posterior:
        hidden = self.encoder(*self.encoder_inputs(batch))
        return Posterior(self.z_mean(hidden).clamp(-10, 10), self.z_variance(hidden).clamp(-10, 10).exp())

    def gene_points(self) -> Tensor:
        return self.genes

    def topic_points(self) -> Tensor:
        return self.topics

    def membership(self) -> Tensor:
        return self.genes @ self.topics.t()

    def free_weight(self) -> Tensor:
        return torch.cat([self.membership(), self.design_weight], dim=1)

    def log_likelihood(self, batch: Batch, logits: LinearMap, log_library: Tensor) -> LogLikelihood:
        """sum_g (x_ng / l_n) log p_ng."""
        x = self.encoder_inputs(batch)[0]
        return softmax_log_likelihood(x, *logits, torch.zeros_like(batch.library), likelihood="multinomial")

    def kl_z(self, posterior: Posterior) -> Tensor:
        """KL(q(z | x) || N(0, I)) times its weight, (B,)."""
        return self.config.kl_weight * kl_standard_normal(posterior.mu, posterior.sigma).sum(1)

    def loss(self, batch: Batch, progress: float) -> Loss:
        posterior = self.encode(batch)
        logits = self.logits(self.sample_z(posterior), self.design(batch))
        likelihood = self.log_likelihood(batch, logits, batch.library)
        kl = self.kl_z(posterior).sum()
        cells = warm_up(progress, self.config.kl_warmup) * kl - likelihood.total
        return Loss(cells, batch.n_cells, {"reconstruction": -likelihood.total.detach(), "kl": kl.detach()})

    def phases(self) -> list[Phase]:
        return [Phase("elbo", self.loss, list(self.parameters()), warmup=self.config.kl_warmup)]


class SCETM(TopicModel):
    """Embedded topic model (Zhao et al. 2021), for comparison with `SCE2TM`.

    Parameters
    ----------
    adata, layer, batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys
        As for `SCVI`; batches and covariates are further inputs of the linear decoder.
    size_factor_key
        As for `SCVI`; takes the place of the total count in the shares of the genes.
    n_topics
        K.
    n_hidden, dropout_rate
        Width and dropout of the encoder.
    n_embedding
        Dimensions of the space of topics and genes.
    kl_weight, kl_warmup
        Weight of the KL divergence, and fraction of training over which it grows to it.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "scetm"
    config_class = SCETMConfig
    with_counts = "SCVI"
    batch_size_by_default = 512
    config: SCETMConfig
    module: SCETMModule

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
        n_topics: int = 50,
        n_hidden: int = 128,
        n_embedding: int = 400,
        dropout_rate: float = 0.1,
        kl_weight: float = 1e-7,
        kl_warmup: float = 1 / 3,
        **unknown: object,
    ) -> None:
        refuse_keywords("SCETM", unknown, tuple(signature(SCETM.__init__).parameters))
        config = SCETMConfig(n_topics, n_hidden, n_embedding, dropout_rate, kl_weight, kl_warmup)
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            model="SCETM",
        )
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> SCETMModule:
        return self._draw(self.config, cells.schema, settings.seed)

    @classmethod
    def _module(cls, config: SCETMConfig, schema: Schema) -> SCETMModule:
        return SCETMModule(config, Sizes.of(schema))  # type: ignore[arg-type]

    @property
    def of_counts(self) -> bool:
        return False
