"""VAE: a variational autoencoder for normalised expression, with the networks of siVAE's cell side.

Generative model, for cell n in batch s_n with covariates k_n, over G genes:

    z_n ~ N(0, I)                            D latent factors
    h_n = MLP([z_n, k_n, s_n])               ReLU between layers, the last one linear; [z_n, k_n, s_n] itself if linear
    x_ng ~ N(w_g . h_n + b_g, sd_n^2)        sd_n = softplus(u . h_n + c) + 1e-5, one for all genes of a cell
           or, for counts, NB(mean l_n softmax_g(w_g . h_n + b_g), inverse dispersion theta_g)

x is log(1 + 10,000 counts / library), centred and scaled gene by gene with the moments of the cells that train; or,
with `input="values"`, whatever numbers the data hold, centred and scaled alike. Counts stay as they are for NB.

Inference: q(z_n | x_n) = N(mu_n, diag sigma_n^2) from an MLP of x_n (for NB of log(1 + counts)), k_n and s_n;
sigma = softplus(linear) + 1e-5, which starts at log 2.

Objective: sum_n E_q log p(x_n | z_n) - w KL(q(z_n) || N(0, I)), less l2 / 2 times the squares of the weights of hidden
layers and a tenth of that of the output's. w grows from 0 to 1 over the first part of training.

Reference: Choi, Li and Quon (2023), Genome Biology 24, 29, equations 1 to 3. Deviations are in docs/sivae.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from lucidcell.cells.batch import TARGET_SUM, Batch, SparseRows
from lucidcell.cells.cells import Cells
from lucidcell.errors import SettingError
from lucidcell.maths.chain import Affine
from lucidcell.maths.fused import LogLikelihood
from lucidcell.maths.logarithms import log_normalized
from lucidcell.maths.networks import GeneLinear, Stack, xavier, xavier_linear
from lucidcell.models import initial
from lucidcell.models.arguments import fraction, not_negative, one_of, whole_number, widths, yes_or_no
from lucidcell.models.factor_model import FactorModel
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import LinearMap, Posterior, SCVIModule, Sizes
from lucidcell.readouts.explained import explained_variance
from lucidcell.training.phases import Loss, Phase
from lucidcell.training.schedule import warm_up

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.schema import Schema
    from lucidcell.training.settings import Settings

SMALLEST_SD = 1e-5
L2_OF_OUTPUT = 0.1  # as a share of `l2`
BLOCK_ENTRIES = 2**22  # of cells x genes that a sum over genes holds at once where there are no gradients
CHOICES = {"gene_likelihood": ("gaussian", "nb"), "input": ("counts", "values")}


@dataclass(frozen=True)
class VAEConfig:
    """Structure of the model."""

    n_hidden: list[int] = field(default_factory=lambda: [1024, 512, 128])  # from genes to latent; the decoder mirrors
    n_latent: int = 10
    gene_likelihood: str = "gaussian"
    input: str = "counts"
    linear_decoder: bool = False
    l2: float = 1e-3
    kl_warmup: float = 0.3  # fraction of training

    # what the read-outs ask of any structure
    dispersion: ClassVar[str] = "gene"
    latent_distribution: ClassVar[str] = "normal"
    use_observed_lib_size: ClassVar[bool] = True
    encode_covariates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            one_of(self, name, allowed)
        whole_number(self, "n_latent")
        widths(self, "n_hidden")
        yes_or_no(self, "linear_decoder")
        not_negative(self, "l2")
        fraction(self, "kl_warmup")
        if self.input == "values" and self.gene_likelihood == "nb":
            raise SettingError(
                "gene_likelihood='nb' is for counts, and input is 'values'; use input='counts', or the Gaussian."
            )


class VAEModule(SCVIModule):
    """The networks of the cells. Notation as in this file's docstring; `design` is [covariates, one-hot batch]."""

    config: VAEConfig  # type: ignore[assignment]
    gene_mean: Tensor  # (G,) of x before scaling
    gene_scale: Tensor  # (G,)

    def make_encoder(self, n_encoded: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        self.first = GeneLinear(n_genes, n_encoded, config.n_hidden[0])
        self.encoder = Stack(config.n_hidden)  # type: ignore[assignment]
        self.z_mean = xavier_linear(config.n_hidden[-1], config.n_latent)
        self.z_scale = nn.Linear(config.n_hidden[-1], config.n_latent)
        nn.init.zeros_(self.z_scale.weight)
        nn.init.zeros_(self.z_scale.bias)
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("gene_scale", torch.ones(n_genes))

    def make_decoder(self, n_design: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        n_inputs = config.n_latent + n_design
        n_last = n_inputs if config.linear_decoder else config.n_hidden[0]
        if not config.linear_decoder:
            self.decoder = Stack([n_inputs, *config.n_hidden[::-1]])  # type: ignore[assignment]
        self.weight = nn.Parameter(xavier(n_genes, n_last))
        self.bias = nn.Parameter(torch.zeros(n_genes))
        if config.gene_likelihood == "gaussian":
            self.spread = nn.Linear(n_last, 1)
            nn.init.zeros_(self.spread.weight)
            nn.init.zeros_(self.spread.bias)

    @property
    def softmax(self) -> bool:
        """Whether the decoder ends in a softmax over genes."""
        return self.config.gene_likelihood == "nb"

    # --- data ---

    def transformed(self, batch: Batch) -> SparseRows:
        """x before centring and scaling."""
        counts = batch.counts
        if self.config.input == "values":
            return counts
        if self.softmax:
            return counts.log1p()
        return log_normalized(counts, batch.library)

    def target(self, batch: Batch, genes: Tensor | None = None) -> Tensor:
        """x, centred and scaled, (B, G), or of some genes."""
        x = self.transformed(batch)
        if genes is None:
            return (x.dense() - self.gene_mean) / self.gene_scale
        return (x.columns(genes) - self.gene_mean[genes]) / self.gene_scale[genes]

    @torch.no_grad()
    def set_moments(self, batches: Iterable[Batch]) -> None:
        """Mean and standard deviation of each gene over these cells; for NB the scale stays 1."""
        n, total = 0, torch.zeros(self.sizes.n_genes, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for batch in batches:
            x = self.transformed(batch)
            n += batch.n_cells
            total.index_add_(0, x.indices.long(), x.values.double())
            squares.index_add_(0, x.indices.long(), x.values.double().square())
        mean = total / n
        sd = (squares / n - mean.square()).clamp(min=0).sqrt()
        self.gene_mean.copy_(mean)
        if not self.softmax:
            self.gene_scale.copy_(torch.where(sd > 1e-6 * (1 + mean.abs()), sd, 1.0))

    # --- inference ---

    def encode(self, batch: Batch) -> Posterior:
        x = self.transformed(batch)
        scaled = x._replace(values=x.values / self.gene_scale[x.indices.long()])
        hidden = self.encoder(self.first(scaled, self.gene_mean / self.gene_scale, self.design(batch)).relu()).relu()
        return Posterior(self.z_mean(hidden), softplus(self.z_scale(hidden)) + SMALLEST_SD)

    # --- generation ---

    def hidden(self, z: Tensor, design: Tensor) -> Tensor:
        """h, (B, H)."""
        inputs = torch.cat([z, design], dim=1)
        return inputs if self.config.linear_decoder else self.decoder(inputs)

    def logits(self, z: Tensor, design: Tensor) -> LinearMap:
        """The mean of x, or what goes into the softmax; not yet multiplied out."""
        return LinearMap(self.hidden(z, design), self.weight, self.bias)

    def decode(self, z: Tensor, design: Tensor) -> Tensor:
        """Mean of the scaled x, (B, G); for NB log rho."""
        return super().decode(z, design) if self.softmax else linear(*self.logits(z, design))

    def expression(self, z: Tensor, design: Tensor) -> Tensor:
        """Expected share of each gene in the cell's counts, (B, G).

        Of a Gaussian the mean of log(1 + normalised counts) transformed back, which is below the mean of the counts; of
        other values their mean.
        """
        if self.softmax:
            return super().expression(z, design)
        x = self.decode(z, design) * self.gene_scale + self.gene_mean
        return x if self.config.input == "values" else torch.expm1(x).clamp(min=0) / TARGET_SUM

    def sd(self, hidden: Tensor) -> Tensor:
        """Standard deviation of x around its mean, one for each cell, (B,)."""
        return softplus(self.spread(hidden))[:, 0] + SMALLEST_SD

    def gene_bias(self) -> nn.Parameter:
        return self.bias

    def batch_weights(self) -> list[Tensor]:
        first = self.weight if self.config.linear_decoder else self.decoder.steps()[0].weight  # type: ignore[operator]
        return [first, self.first.covariate_weight]

    def log_likelihood(self, batch: Batch, logits: LinearMap, log_library: Tensor) -> LogLikelihood:
        if self.softmax:
            return super().log_likelihood(batch, logits, log_library)
        per_cell = gaussian(self.squared_error(batch, logits), self.sd(logits.inputs), self.sizes.n_genes)
        return LogLikelihood(per_cell.sum(), per_cell.detach())

    def squared_error(self, batch: Batch, logits: LinearMap) -> Tensor:
        """Sum over genes of (x - mean)^2, (B,)."""
        assert logits.bias is not None
        n_genes = self.sizes.n_genes
        size = n_genes if torch.is_grad_enabled() else max(1, BLOCK_ENTRIES // batch.n_cells)
        total = logits.inputs.new_zeros(batch.n_cells)
        for start in range(0, n_genes, size):
            genes = torch.arange(start, min(start + size, n_genes), device=total.device)
            chosen = slice(start, start + size)
            x = self.target(batch, None if size >= n_genes else genes)
            mean = torch.addmm(logits.bias[chosen], logits.inputs, logits.weight[chosen].t())
            total = total + (x - mean).square().sum(1)
        return total

    # --- the networks as chains ---

    def decoder_chain(self, design: Tensor) -> list[Affine]:
        n_latent = self.config.n_latent
        if self.config.linear_decoder:
            return [Affine(self.weight[:, :n_latent], linear(design, self.weight[:, n_latent:], self.bias), relu=False)]
        first, *others = self.decoder.chain()  # type: ignore[call-arg]
        effects = linear(design, first.weight[:, n_latent:], first.shift)
        first = Affine(first.weight[:, :n_latent], effects, first.relu)
        return [first, *others, Affine(self.weight, self.bias, relu=False)]

    def encoder_chain(self, covariates: Tensor) -> list[Affine]:
        first = Affine(self.first.gene_weight.t(), self.first.shift(covariates), relu=True)
        hidden = [layer._replace(relu=True) for layer in self.encoder.chain()]  # type: ignore[call-arg]
        return [first, *hidden, Affine(self.z_mean.weight, self.z_mean.bias, relu=False)]

    def dense_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.target(batch), self.design(batch)

    def switched_off(self) -> Tensor:
        """x (G,) of genes without counts; the mean where there are no counts."""
        return torch.zeros_like(self.gene_mean) if self.config.input == "values" else -self.gene_mean / self.gene_scale

    # --- objective ---

    def loss(self, batch: Batch, progress: float) -> Loss:
        """Negative ELBO of a batch, the KL weighted by the warm-up."""
        posterior = self.encode(batch)
        logits = self.logits(self.sample_z(posterior), self.design(batch))
        likelihood = self.log_likelihood(batch, logits, batch.library.log())
        kl = self.kl_z(posterior).sum()
        cells = warm_up(progress, self.config.kl_warmup) * kl - likelihood.total
        terms = {"reconstruction": -likelihood.total.detach(), "kl": kl.detach()}
        return Loss(cells, batch.n_cells, terms, self.penalties(logits))

    def penalties(self, logits: LinearMap) -> dict[str, Tensor]:
        if not self.config.l2:
            return {}
        total = half_squares([self.first.gene_weight, *(step.weight for step in self.hidden_steps())])
        share = logits.weight.shape[0] / self.sizes.n_genes  # of the genes that this step has
        return {"l2": self.config.l2 * (total + L2_OF_OUTPUT * half_squares([logits.weight]) / share)}

    def hidden_steps(self) -> list[nn.Linear]:
        """Hidden layers with a weight to be kept small."""
        networks = (self.encoder,) if self.config.linear_decoder else (self.encoder, self.decoder)
        return [step for network in networks for step in network.steps()]  # type: ignore[operator]

    def phases(self) -> list[Phase]:
        warmup = self.config.kl_warmup
        return [Phase("elbo", self.loss, list(self.parameters()), warmup=warmup, large_products=True)]


def gaussian(squared_error: Tensor, sd: Tensor, n_genes: int) -> Tensor:
    """Log-density of cells with this sum of squares over genes, (B,)."""
    return -0.5 * squared_error / sd.square() - n_genes * (sd.log() + 0.5 * math.log(2 * math.pi))


def half_squares(weights: Sequence[Tensor]) -> Tensor:
    """Half the sum of the squares of all elements."""
    total: Tensor = _HalfSquares.apply(*weights)
    return total


class _HalfSquares(torch.autograd.Function):
    """One pass over each weight forwards and one backwards, where torch's own operations take five."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return torch.stack(torch._foreach_norm(weights)).square().sum() / 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
        return tuple(weight * gradient if wanted else None for weight, wanted in needed)


class GaussianModel(FactorModel):
    """What `VAE` and `SIVAE` share: cells of counts or other values, and the read-outs of normalised expression."""

    config: VAEConfig
    module: VAEModule
    share_of_learning_rate = 0.2  # networks without batch-norm
    fewest_steps = 1000  # with fewer, the factors of some hundred cells stay at the prior (LOG.md, 2026-11-29)

    def _start_from_data(self, module: VAEModule, training: Cells) -> None:
        """Moments of the genes and, for NB, bias and dispersion from the cells that train."""
        module.set_moments(self.batches(training))
        if module.softmax:
            initial.from_data(module, training)

    @property
    def vae(self) -> VAEModule:
        return self.module

    @property
    def of_counts(self) -> bool:
        return self.module.softmax

    def gene_table(self) -> pd.DataFrame:
        """Mean and standard deviation of each gene before scaling, and the share of its variance that is explained."""
        if self.module.softmax:
            return super().gene_table()
        names = pd.Index(self.schema.gene_names, name="gene")
        moments = {"mean": self.module.gene_mean.numpy(), "sd": self.module.gene_scale.numpy()}
        return pd.DataFrame(moments, index=names).assign(explained=explained_variance(self, None))

    def mean_expression(self) -> np.ndarray:
        """Mean of each gene, (G,), of the cells that trained: of counts, or of other values their absolute mean."""
        if self.config.input == "values":
            return self.module.gene_mean.abs().double().numpy() + 1e-12
        return torch.expm1(self.module.gene_mean).double().numpy()


class VAE(GaussianModel):
    """Variational autoencoder for normalised expression: siVAE without its gene side, for comparison.

    Parameters
    ----------
    adata, layer, batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys
        As for `SCVI`. Counts are normalised to 10,000 per cell, and their logarithms centred and scaled, by the model.
    size_factor_key
        As for `SCVI`; takes the place of the total count in normalisation.
    n_latent
        Factors.
    n_hidden
        Widths of the encoder's layers, from genes to factors; the decoder has them in reverse.
    gene_likelihood
        "gaussian" on normalised expression, or "nb" on counts.
    input
        "counts", or "values" for data that are normalised already or are no counts: any finite numbers, which are then
        centred and scaled only.
    linear_decoder
        Whether the decoder is one linear layer, as in probabilistic PCA.
    l2
        Weight of the squares of the networks' weights, in nats per cell.
    kl_warmup
        Fraction of training over which the weight of the KL divergence grows to 1.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "vae"
    config_class = VAEConfig

    def _start(self, config: Any, module: torch.nn.Module, schema: Schema, cells: Cells | None) -> None:
        super()._start(config, module, schema, cells)
        if config.linear_decoder:
            self.share_of_learning_rate = 2.0  # its weights have far to go (LOG.md, 2026-11-29)

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
        n_hidden: int | Sequence[int] = (1024, 512, 128),
        gene_likelihood: str = "gaussian",
        input: str = "counts",
        linear_decoder: bool = False,
        l2: float = 1e-3,
        kl_warmup: float = 0.3,
        **unknown: object,
    ) -> None:
        refuse_keywords("VAE", unknown, tuple(signature(VAE.__init__).parameters))
        config = VAEConfig(n_hidden, n_latent, gene_likelihood, input, linear_decoder, l2, kl_warmup)  # type: ignore[arg-type]
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            model="VAE",
            counts=config.input == "counts",
        )
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> VAEModule:
        module = self._draw(self.config, cells.schema, settings.seed)
        self._start_from_data(module, self._training_cells(cells, settings))
        return module

    @classmethod
    def _module(cls, config: VAEConfig, schema: Schema) -> VAEModule:
        return VAEModule(config, Sizes.of(schema))  # type: ignore[arg-type]
