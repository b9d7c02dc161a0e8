"""scVI: a variational autoencoder for counts.

Generative model, for cell n in batch s_n with covariates k_n, over G genes:

    z_n ~ N(0, I)                            D latent factors (or their softmax: `latent_distribution="ln"`)
    l_n = observed total count, a size factor, or log l_n ~ N(mean_s, sd_s^2) with the mean and sd of the batch
    h_n = MLP(z_n, k_n, s_n)
    rho_n = softmax(W h_n + b)               share of each gene, sums to 1
    x_ng ~ NB(mean l_n rho_ng, inverse dispersion theta_g)
           or ZINB (with probability sigmoid(W' h_n + b') the count is zero), or Poisson

theta has one value per gene, per gene and batch, or per gene and label.

Inference: q(z_n | x_n) = N(mu_n, diag sigma_n^2) with [mu_n, sigma_n] from an MLP of log(1 + x_n) (and of the
covariates if `encode_covariates`); a second one gives q(log l_n | x_n) when the library is latent.

Objective: sum_n E_q log p(x_n | z_n, l_n) - w KL(q(z_n) || N(0, I)) - KL(q(log l_n) || prior), where w grows from 0
to 1 over the first part of training; everything reported as ELBO has w = 1.

Read-outs: latent mean, normalised expression rho, loadings = mean Jacobian of log rho with respect to z.

Reference: Lopez et al. (2018), Nature Methods 15, 1053; Xu et al. (2021), Mol. Syst. Biol. 17, e9620.
Differences from both and from scvi-tools are listed in docs/scvi.md: the decoder's bias starts at the log mean
expression and theta at its moment estimate; warm-up is a fraction of training and always ends; the dropout head exists
for ZINB only; the library is observed by default (`reproduce="paper"`: latent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softmax

from lucidcell.cells.batch import Batch, SparseRows
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.chain import Affine
from lucidcell.maths.divergences import kl_gaussians, kl_standard_normal
from lucidcell.maths.fused import LogLikelihood, softmax_log_likelihood
from lucidcell.maths.gaussian import Draw, draw_gaussian
from lucidcell.maths.networks import MLP, GeneMLP
from lucidcell.models import initial
from lucidcell.models.arguments import fraction, one_of, whole_number, yes_or_no
from lucidcell.models.factor_model import FactorModel
from lucidcell.models.keywords import refuse_keywords
from lucidcell.training.phases import Loss, Phase
from lucidcell.training.schedule import warm_up

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.training.settings import Settings

SMALLEST_VARIANCE = 1e-4
CHOICES = {
    "gene_likelihood": ("nb", "zinb", "poisson"),
    "dispersion": ("gene", "gene-batch", "gene-label"),
    "latent_distribution": ("normal", "ln"),
}


@dataclass(frozen=True)
class SCVIConfig:
    """Structure of the model."""

    n_hidden: int = 128
    n_latent: int = 10
    n_layers: int = 1
    dropout_rate: float = 0.1  # encoder only
    gene_likelihood: str = "nb"
    dispersion: str = "gene"
    latent_distribution: str = "normal"
    use_observed_lib_size: bool = True
    encode_covariates: bool = False
    kl_warmup: float = 0.3  # fraction of training

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            one_of(self, name, allowed)
        for name in ("n_latent", "n_hidden", "n_layers"):
            whole_number(self, name)
        if self.latent_distribution == "ln" and self.n_latent < 2:
            raise SettingError("n_latent is 1; the factors of latent_distribution='ln' sum to 1, so use at least 2.")
        for name in ("use_observed_lib_size", "encode_covariates"):
            yes_or_no(self, name)
        for name in ("dropout_rate", "kl_warmup"):
            fraction(self, name)


class Sizes(NamedTuple):
    """What the module must know of the data."""

    n_genes: int
    n_batches: int
    n_labels: int
    n_covariates: int

    @classmethod
    def of(cls, schema: Schema) -> Sizes:
        return cls(schema.n_genes, schema.n_batches, schema.n_labels, schema.n_covariates)


class Posterior(NamedTuple):
    """q(z | x) and, where the library is latent, q(log l | x); sigmas are standard deviations."""

    mu: Tensor  # (B, D)
    sigma: Tensor  # (B, D)
    library_mu: Tensor | None = None  # (B,)
    library_sigma: Tensor | None = None  # (B,)


class LinearMap(NamedTuple):
    """inputs @ weight.T + bias."""

    inputs: Tensor  # (B, H)
    weight: Tensor  # (G, H)
    bias: Tensor | None  # (G,)


class SCVIModule(nn.Module):
    """The networks of scVI. Notation as in this file's docstring; `design` is [covariates, one-hot batch]."""

    library_prior: Tensor
    one_hot: Tensor  # (S, S)

    def __init__(self, config: SCVIConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        n_design = sizes.n_covariates + sizes.n_batches
        self.make_encoder(n_design if config.encode_covariates else 0)
        self.make_decoder(n_design)
        if config.gene_likelihood in ("nb", "zinb"):
            groups = {"gene": 1, "gene-batch": sizes.n_batches, "gene-label": sizes.n_labels}[config.dispersion]
            self.log_theta = nn.Parameter(torch.zeros(groups, sizes.n_genes))
        self.register_buffer("one_hot", torch.eye(sizes.n_batches), persistent=False)
        self.register_buffer("library_prior", torch.zeros(sizes.n_batches, 2))  # mean and sd of log library by batch

    def make_encoder(self, n_encoded: int) -> None:
        """The networks from the genes, and `n_encoded` columns of the design, to q(z | x) and q(log l | x)."""
        config, n_genes = self.config, self.sizes.n_genes
        hidden, latent = config.n_hidden, config.n_latent
        self.encoder = GeneMLP(n_genes, n_encoded, hidden, config.n_layers, config.dropout_rate)
        self.z_mean, self.z_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        if not config.use_observed_lib_size:
            self.library_encoder = GeneMLP(n_genes, n_encoded, hidden, 1, config.dropout_rate)
            self.library_mean, self.library_variance = nn.Linear(hidden, 1), nn.Linear(hidden, 1)

    def make_decoder(self, n_design: int) -> None:
        """The networks from z and the design to the genes."""
        config, n_genes = self.config, self.sizes.n_genes
        self.decoder = MLP(config.n_latent, n_design, config.n_hidden, config.n_layers)
        self.rho = nn.Linear(config.n_hidden, n_genes)
        if config.gene_likelihood == "zinb":
            self.dropout_logit = nn.Linear(config.n_hidden, n_genes)

    # --- inference ---

    def design(self, batch: Batch) -> Tensor:
        """Covariates and one-hot batch, (B, n_covariates + n_batches)."""
        return torch.cat([batch.covariates, self.one_hot[batch.batch]], dim=1)

    def encode(self, batch: Batch) -> Posterior:
        """Parameters of q(z | x) and q(log l | x)."""
        x, covariates = self.encoder_inputs(batch)
        hidden = self.encoder(x, covariates)
        sigma = (self.z_variance(hidden).exp() + SMALLEST_VARIANCE).sqrt()
        if self.config.use_observed_lib_size:
            return Posterior(self.z_mean(hidden), sigma)
        return Posterior(self.z_mean(hidden), sigma, *self.encode_library(x, covariates))

    def encoder_inputs(self, batch: Batch) -> tuple[SparseRows, Tensor]:
        """log(1 + counts), and the covariates that the encoder sees, (B, P) or (B, 0)."""
        encoded = self.config.encode_covariates
        return batch.counts.log1p(), self.design(batch) if encoded else batch.covariates[:, :0]

    def encode_library(self, x: SparseRows, covariates: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(log l | x), both (B,)."""
        hidden = self.library_encoder(x, covariates)
        sigma = (self.library_variance(hidden).exp() + SMALLEST_VARIANCE).sqrt()
        return self.library_mean(hidden)[:, 0], sigma[:, 0]

    def draw_library(self, x: SparseRows, covariates: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Log library and its KL divergence from the prior of the batch, both (B,); no divergence if it is observed."""
        if self.config.use_observed_lib_size:
            return batch.library.log(), None
        mu, sigma = self.encode_library(x, covariates)
        prior = self.library_prior[batch.batch]
        return mu + sigma * torch.randn_like(sigma), kl_gaussians(mu, sigma, prior[:, 0], prior[:, 1])

    def draw_z(self, x: SparseRows, covariates: Tensor) -> Draw:
        """One draw before the link, with its KL divergence: `encode` and `sample_z` in one operation, for training."""
        return draw_gaussian(self.encoder(x, covariates), self.z_mean, self.z_variance, SMALLEST_VARIANCE)

    def sample_z(self, posterior: Posterior) -> Tensor:
        """One draw of the latent factors, (B, D)."""
        return self.link(posterior.mu + posterior.sigma * torch.randn_like(posterior.sigma))

    def link(self, z: Tensor) -> Tensor:
        """From Gaussian to latent space: the softmax of the logistic normal, or nothing."""
        return softmax(z, dim=1) if self.config.latent_distribution == "ln" else z

    def sample_log_library(self, posterior: Posterior, batch: Batch) -> Tensor:
        """Log library, (B,): the observed one, or one draw."""
        if posterior.library_mu is None or posterior.library_sigma is None:
            return batch.library.log()
        return posterior.library_mu + posterior.library_sigma * torch.randn_like(posterior.library_sigma)

    # --- generation ---

    def logits(self, z: Tensor, design: Tensor) -> LinearMap:
        """The last layer before the softmax, (B, G), not yet multiplied out."""
        return LinearMap(self.decoder(z, design), self.rho.weight, self.rho.bias)

    def decode(self, z: Tensor, design: Tensor) -> Tensor:
        """log rho, (B, G): log share of each gene in the cell's counts."""
        return torch.log_softmax(linear(*self.logits(z, design)), dim=1)

    def expression(self, z: Tensor, design: Tensor) -> Tensor:
        """Expected share of each gene in the cell's counts, (B, G)."""
        return self.decode(z, design).exp()

    def dropout(self, z: Tensor, design: Tensor) -> Tensor:
        """Probability that a count is left out, (B, G); ZINB only."""
        return self.dropout_logit(self.logits(z, design).inputs).sigmoid()

    def gene_bias(self) -> nn.Parameter | None:
        """What the logits of the genes start from, (G,), where there is such a parameter."""
        return self.rho.bias

    def batch_weights(self) -> list[Tensor]:
        """Weights whose last columns are for the one-hot batch."""
        return [*(layer.linear.weight for layer in self.decoder.blocks()), *self.batch_weights_of_encoder()]

    def batch_weights_of_encoder(self) -> list[Tensor]:
        if not self.config.encode_covariates:
            return []
        return [*(layer.linear.weight for layer in self.encoder.rest.blocks()), self.encoder.first.covariate_weight]

    def group(self, batch: Batch) -> Tensor | None:
        """Row of log theta that holds for each cell, (B,)."""
        if self.config.dispersion == "gene-batch":
            return batch.batch
        if self.config.dispersion == "gene":
            return None
        n_without = int((batch.label < 0).sum())
        if n_without:
            raise DataError(
                f"dispersion='gene-label' needs a label for every cell, and {n_without} cells have none that the model "
                "knows: label them, leave them out, or use dispersion='gene'."
            )
        return batch.label

    def log_likelihood(self, batch: Batch, logits: LinearMap, log_library: Tensor) -> LogLikelihood:
        """log p(x | z, l), summed over the batch and for each cell, from the logits at z."""
        zinb, poisson = self.config.gene_likelihood == "zinb", self.config.gene_likelihood == "poisson"
        return softmax_log_likelihood(
            batch.counts,
            logits.inputs,
            logits.weight,
            logits.bias,
            log_library,
            likelihood=self.config.gene_likelihood,
            log_theta=None if poisson else self.log_theta,
            group=self.group(batch),
            dropout_weight=self.dropout_logit.weight if zinb else None,
            dropout_bias=self.dropout_logit.bias if zinb else None,
        )

    # --- the networks as chains, outside training ---

    @property
    def softmax(self) -> bool:
        """Whether the decoder ends in a softmax over genes."""
        return True

    def decoder_chain(self, design: Tensor) -> list[Affine]:
        """From z to the logits, for cells with this design (B, P)."""
        return [*self.decoder.chain(design), Affine(self.rho.weight, self.rho.bias, relu=False)]

    def encoder_chain(self, covariates: Tensor) -> list[Affine]:
        """From the dense x of `dense_inputs` to mu, for cells with these covariates."""
        return [*self.encoder.chain(covariates), Affine(self.z_mean.weight, self.z_mean.bias, relu=False)]

    def dense_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, G) as the encoder sees it, 0 for its baseline, and the covariates."""
        x, covariates = self.encoder_inputs(batch)
        return x.dense(), covariates

    def switched_off(self) -> Tensor:
        """x (G,) of genes without counts."""
        return torch.zeros(self.sizes.n_genes)

    # --- objective ---

    def kl_z(self, posterior: Posterior) -> Tensor:
        """KL(q(z | x) || N(0, I)), (B,)."""
        return kl_standard_normal(posterior.mu, posterior.sigma).sum(1)

    def kl_library(self, posterior: Posterior, batch: Batch) -> Tensor:
        """KL(q(log l | x) || prior of the batch), (B,); zero for an observed library."""
        if posterior.library_mu is None or posterior.library_sigma is None:
            return posterior.mu.new_zeros(posterior.mu.shape[0])
        prior = self.library_prior[batch.batch]
        return kl_gaussians(posterior.library_mu, posterior.library_sigma, prior[:, 0], prior[:, 1])

    def loss(self, batch: Batch, progress: float) -> Loss:
        """Negative ELBO of a batch, the KL of z weighted by the warm-up."""
        x, covariates = self.encoder_inputs(batch)
        drawn = self.draw_z(x, covariates)
        log_library, kl_library = self.draw_library(x, covariates, batch)
        logits = self.logits(self.link(drawn.z), self.design(batch))
        likelihood = self.log_likelihood(batch, logits, log_library)
        kl = drawn.kl.sum()
        cells = warm_up(progress, self.config.kl_warmup) * kl - likelihood.total
        if kl_library is not None:
            cells, kl = cells + kl_library.sum(), kl + kl_library.sum()
        terms = {"reconstruction": -likelihood.total.detach(), "kl": kl.detach()}
        return Loss(cells, batch.n_cells, terms, self.penalties(logits))

    def penalties(self, logits: LinearMap) -> dict[str, Tensor]:
        """What the loss has besides the ELBO, in nats per cell: nothing."""
        return {}

    def phases(self) -> list[Phase]:
        return [Phase("elbo", self.loss, list(self.parameters()), warmup=self.config.kl_warmup)]


def check_keys(config: SCVIConfig, labels_key: str | Sequence[str] | None, size_factor_key: str | None) -> None:
    """Refuse keys that do not fit the structure."""
    if config.dispersion == "gene-label" and labels_key is None:
        raise SettingError("dispersion='gene-label' needs labels; pass labels_key, or use dispersion='gene'.")
    if size_factor_key is not None and not config.use_observed_lib_size:
        raise SettingError("a size factor takes the place of the library; use it with use_observed_lib_size=True.")


def check_labels(config: SCVIConfig, cells: Cells) -> None:
    """Refuse cells without label where the dispersion needs one."""
    if config.dispersion == "gene-label" and (n_without := int((cells.label < 0).sum())):
        raise DataError(
            f"dispersion='gene-label' needs a label for every cell, and {n_without} of {len(cells)} have none in "
            f"obs[{cells.schema.labels_key!r}]: label them, leave them out, or use dispersion='gene'."
        )


class SCVI(FactorModel):
    """Variational autoencoder for counts (Lopez et al. 2018), with readable factors.

    Parameters
    ----------
    adata
        Counts, cells x genes: AnnData in memory, backed or lazy, or a list or dict of them. It is not changed.
    layer
        Layer with the counts; None for X.
    batch_key, labels_key
        Columns of obs. Labels are used for `dispersion="gene-label"` and for display only.
    categorical_covariate_keys, continuous_covariate_keys
        Columns of obs that the decoder corrects for, at every layer.
    size_factor_key
        Column of obs that takes the place of the total count.
    n_latent, n_hidden, n_layers
        Factors, and width and depth of encoder and decoder.
    dropout_rate
        In the encoder.
    gene_likelihood
        "nb", "zinb" or "poisson".
    dispersion
        Inverse dispersion by "gene", "gene-batch" or "gene-label".
    latent_distribution
        "normal", or "ln" for a logistic normal on the simplex.
    use_observed_lib_size
        Whether the library is the observed total count; otherwise it is latent, with a log-normal prior by batch.
    encode_covariates
        Whether the encoder sees batch and covariates too.
    kl_warmup
        Fraction of training over which the weight of the KL divergence grows to 1.
    reproduce
        "paper": ZINB with a latent library, as in Lopez et al. (2018). None: our defaults.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "scvi"
    config_class = SCVIConfig
    config: SCVIConfig
    module: SCVIModule

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
        reproduce: str | None = None,
        **unknown: object,
    ) -> None:
        refuse_keywords("SCVI", unknown, tuple(signature(SCVI.__init__).parameters))
        if reproduce not in (None, "paper"):
            raise SettingError(f"reproduce is {reproduce!r}; it must be 'paper' or None.")
        if reproduce == "paper":
            gene_likelihood, use_observed_lib_size = "zinb", False
        config = SCVIConfig(
            n_hidden, n_latent, n_layers, dropout_rate, gene_likelihood, dispersion, latent_distribution,
            use_observed_lib_size, encode_covariates, kl_warmup,
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
            model="SCVI",
        )
        check_labels(config, cells)
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> SCVIModule:
        module = self._draw(self.config, cells.schema, settings.seed)
        initial.from_data(module, cells)
        return module

    @classmethod
    def _module(cls, config: SCVIConfig, schema: Schema) -> SCVIModule:
        return SCVIModule(config, Sizes.of(schema))

    @property
    def vae(self) -> SCVIModule:
        return self.module

    # --- other tools ---

    @classmethod
    def from_scvi_tools(cls, path: str | Path, adata: AnnData | None = None) -> SCVI:
        """Read a model saved by scvi-tools' `SCVI.save`; see `lucidcell.models.scvi_tools`."""
        from lucidcell.models.scvi_tools import read_scvi

        return read_scvi(Path(path), adata)
