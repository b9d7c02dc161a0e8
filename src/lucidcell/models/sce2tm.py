"""scE2TM: an embedded topic model whose topics stay apart, taught by a second view of the cells.

Generative model, for cell n with design row s_n = [covariates, one-hot batch], over K topics and G genes:

    z_n ~ N(0, (1 - 1/K) / alpha I)              the Laplace approximation of a symmetric Dirichlet(alpha)
    theta_n = softmax(z_n)                       shares of the topics
    beta_kg = softmax_k(-|t_k - e_g|^2 / tau)    how much gene g belongs to topic k; e_g, t_k points in d dimensions
    p_n = softmax_g(BN_g(theta_n beta + U s_n))  shares of the genes; batch-norm of each gene, folded (linear_model.py)
    x_n ~ weights with log-density c sum_g x_ng log p_ng

x is log(1 + counts scaled to 10,000 a cell) (`target`), and c makes the mean of sum_g x_ng 3,900 in the cells that
train, so that the weights below mean the same on any data.

Inference: q(z_n | x_n) = N(mu_n, diag sigma_n^2), both from an MLP of log-normalised counts, each under batch-norm.

Objective, per cell: -E log p(x | z) + KL(q || p) + CVE + lambda ECR, with

    ECR = sum_kg P_kg |t_k - e_g|^2    P: entropic transport between topics and genes (transport.py). Every topic must
                                       take its share of the genes, so that no two topics can take the same
    CVE = CON + NEI - alpha_R REG      theta against the shares phi of an external embedding (cross_view.py), with a
                                       neighbour of each cell in either view; needs `external_key`

Neighbours are mutual nearest neighbours among the cells that train, by 50 principal components and by the external
embedding (neighbor_graph.py).

Read-outs: topic_model.py. Loadings are the decoder's weights with batch-norm folded in, exact.

Reference: Chen et al., scE2TM. docs/sce2tm.md lists where paper and public code differ from each other and from this:
batch-norm in the decoder, the transport, the contrast of neighbours and the entropy have the code's form; the library
size, neighbours among principal components, the scale of lambda, batches and covariates are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lucidcell.cells.batch import TARGET_SUM, Batch, SparseRows
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.across import Norm
from lucidcell.maths.chain import Affine
from lucidcell.maths.divergences import kl_gaussians
from lucidcell.maths.fused import LogLikelihood, softmax_log_likelihood
from lucidcell.maths.logarithms import log_expm1, log_normalized, total_of_logarithms
from lucidcell.maths.networks import GeneMLP, fold
from lucidcell.maths.points import squared_distances
from lucidcell.maths.transport import GRADIENTS, transport_cost
from lucidcell.models.arguments import not_negative, one_of, whole_number
from lucidcell.models.cross_view import ExternalView, consistency, neighbor_contrast, spread
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import LinearMap, Posterior, Sizes
from lucidcell.models.topic_model import TopicModel, TopicModule
from lucidcell.models.view_neighbors import NeighborSearch, partners
from lucidcell.training.phases import Loss, Phase
from lucidcell.training.split import hold_out

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.training.settings import Settings

MEAN_WEIGHT = 3900.0  # of a cell, for which the paper's lambda is meant
EPSILON = 0.05  # of the transport, in units of squared distance
WIDTHS_OF_EXTERNAL = 64, 128  # of its hidden layer: the columns of the embedding, but not fewer or more (LOG.md)
PACE = 0.1  # how much less far than other parameters Adam moves the points (LOG.md)
GAMMA_PACE, FIRST_GAMMA = 4.0, 0.3  # of batch-norm after the decoder, as in LDVAE
MOMENTUM = 0.1  # of the encoder's running moments: large batches make few steps
FIRST_CONSIDERED = 0.5  # of training: before it points move too fast for the running moments, and held-out ELBOs lie
CHOICES = {
    "external_use": ("view", "concatenate"),
    "ecr_grad": GRADIENTS,
    "target": ("log", "counts", "normalized"),
    "normalize": ("total", "none"),
    "con": ("mean_log", "log_mean"),
    "reg": ("batch", "cell"),
}
PRESETS: dict[str, dict[str, Any]] = {  # where they differ from our defaults
    "paper": {"normalize": "none", "ecr_grad": "unroll", "con": "log_mean", "reg": "cell"},
    "reference": {"normalize": "none", "ecr_grad": "unroll", "con": "mean_log", "reg": "batch"},
}


@dataclass(frozen=True)
class SCE2TMConfig:
    """Structure of the model; n_latent is the number of topics K."""

    n_latent: int = 100
    n_hidden: int = 200
    n_embedding: int = 200  # d
    external_key: str | None = None
    external_use: str = "view"
    n_external: int = 0  # columns of the external embedding
    ecr_weight: float = 100.0  # lambda
    ecr_grad: str = "implicit"
    temperature: float = 0.2  # tau
    cve_weight: float = 1.0
    nei_temperature: float = 0.5
    reg_weight: float = 5.0  # alpha_R
    n_neighbors: int = 15
    prior_alpha: float = 1.0
    target: str = "log"
    normalize: str = "total"
    con: str = "mean_log"
    reg: str = "batch"

    # what the read-outs ask of any structure
    n_layers: ClassVar[int] = 1
    dispersion: ClassVar[str] = "gene"
    latent_distribution: ClassVar[str] = "ln"
    use_observed_lib_size: ClassVar[bool] = True
    encode_covariates: ClassVar[bool] = False

    @property
    def gene_likelihood(self) -> str:
        """Counts given their total are Poisson counts given their sum; anything else has weights and no likelihood."""
        return "poisson" if self.target == "counts" else "multinomial"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            one_of(self, name, allowed)
        whole_number(self, "n_latent", 2, said="n_topics")
        for name in ("n_hidden", "n_embedding", "n_neighbors"):
            whole_number(self, name)
        for name in ("ecr_weight", "cve_weight", "reg_weight", "temperature", "nei_temperature", "prior_alpha"):
            not_negative(self, name)
        for name in ("temperature", "nei_temperature", "prior_alpha"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} is 0; it must be a positive number.")

    @property
    def two_views(self) -> bool:
        """Whether the external embedding is a view of its own."""
        return self.external_key is not None and self.external_use == "view" and self.cve_weight > 0


class SCE2TMModule(TopicModule):
    """The networks and points. Notation as in this file's docstring; z is that of the read-outs, theta here."""

    config: SCE2TMConfig  # type: ignore[assignment]
    weight_scale: Tensor  # c
    mean_total: Tensor  # mean of sum_g x_ng before c
    start: Tensor  # (K,): potentials of the last transport

    def make_encoder(self, n_encoded: int) -> None:
        config = self.config
        n_more = n_encoded + (config.n_external if config.external_use == "concatenate" else 0)
        self.encoder = GeneMLP(self.sizes.n_genes, n_more, config.n_hidden, 1)
        self.encoder.first.norm.momentum = MOMENTUM
        self.z_mean, self.z_variance = (nn.Linear(config.n_hidden, config.n_latent) for _ in range(2))
        self.mean_norm, self.variance_norm = (Norm(config.n_latent, momentum=MOMENTUM) for _ in range(2))
        if config.two_views:
            width = int(np.clip(config.n_external, *WIDTHS_OF_EXTERNAL))
            self.external_view = ExternalView(config.n_external, width, config.n_latent)

    def make_decoder(self, n_design: int) -> None:
        config, n_genes = self.config, self.sizes.n_genes
        self.genes, self.topics = (
            nn.Parameter(normalize(torch.randn(n, config.n_embedding), dim=1) / PACE)
            for n in (n_genes, config.n_latent)
        )
        self.design_weight = nn.Parameter(torch.zeros(n_genes, n_design))  # U
        self.gamma = nn.Parameter(torch.full((n_genes,), FIRST_GAMMA / GAMMA_PACE))
        self.beta = nn.Parameter(torch.zeros(n_genes))  # of batch-norm
        self.make_moments()
        self.register_buffer("weight_scale", torch.ones(()))
        self.register_buffer("mean_total", torch.ones(()))
        self.register_buffer("start", torch.zeros(config.n_latent))
        self.prior_sd: float = ((1 - 1 / config.n_latent) / config.prior_alpha) ** 0.5

    def set_scale(self, batches: Iterable[Batch]) -> None:
        """c, the mean total and the first bias, from the cells that train."""
        n, total = 0, torch.zeros(self.sizes.n_genes, dtype=torch.float64)
        for batch in batches:
            x = self.unscaled_target(batch)
            n += batch.n_cells
            total.index_add_(0, x.indices.long(), x.values.double())
        self.mean_total.fill_(float(total.sum()) / n)
        self.weight_scale.fill_(MEAN_WEIGHT / float(self.mean_total))
        share = (total + total.sum() * 1e-6) / (total.sum() * (1 + 1e-6 * len(total)))
        self.beta.data.copy_(share.log())

    def gene_bias(self) -> nn.Parameter:
        return self.beta

    def batch_weights(self) -> list[Tensor]:
        return [self.design_weight]

    # --- data ---

    def logarithms(self, batch: Batch) -> SparseRows:
        """log(1 + counts scaled to 10,000 a cell), or unscaled."""
        return batch.counts.log1p() if self.config.normalize == "none" else log_normalized(batch.counts, batch.library)

    def unscaled_target(self, batch: Batch) -> SparseRows:
        """x without c."""
        if self.config.target == "counts":
            return batch.counts
        if self.config.target == "log":
            return self.logarithms(batch)
        return batch.counts.shares(batch.library)

    def encoder_inputs(self, batch: Batch) -> tuple[SparseRows, Tensor]:
        x = self.logarithms(batch)
        if self.config.external_use == "concatenate" and self.config.n_external:
            assert batch.external is not None
            return x, batch.external
        return x, batch.covariates[:, :0]

    # --- inference ---

    def encode(self, batch: Batch) -> Posterior:
        hidden = self.encoder(*self.encoder_inputs(batch))
        log_variance = self.variance_norm(self.z_variance(hidden))
        return Posterior(self.mean_norm(self.z_mean(hidden)), (log_variance / 2).exp())

    def kl_z(self, posterior: Posterior) -> Tensor:
        """KL(q(z | x) || p(z)), (B,)."""
        return kl_gaussians(posterior.mu, posterior.sigma, 0.0, self.prior_sd).sum(1)

    # --- generation ---

    def gene_points(self) -> Tensor:
        return PACE * self.genes

    def topic_points(self) -> Tensor:
        return PACE * self.topics

    def distances(self) -> Tensor:
        """|t_k - e_g|^2, (G, K)."""
        return squared_distances(self.genes, self.topics, PACE**2)

    def membership(self, distances: Tensor | None = None) -> Tensor:
        """beta, (G, K); each row sums to 1."""
        return torch.softmax((self.distances() if distances is None else distances) / -self.config.temperature, dim=1)

    def free_weight(self) -> Tensor:
        return torch.cat([self.membership(), self.design_weight], dim=1)

    def free_gamma(self) -> Tensor:
        return GAMMA_PACE * self.gamma

    def log_expression(self, z: Tensor, design: Tensor) -> Tensor:
        """Log of the expected share of each gene in the cell's counts, (B, G).

        For `target="log"` the shares of logarithms are transformed back, at the total at which the counts of the cell
        sum to 10,000; where they were not scaled to it, at the mean total of the cells that trained.
        """
        log_p = self.decode(z, design)
        if self.config.target != "log":
            return log_p
        scaled = self.config.normalize == "total"
        total = total_of_logarithms(log_p.exp(), TARGET_SUM) if scaled else self.mean_total
        return torch.log_softmax(log_expm1(log_p + total.log()), dim=1)

    def log_likelihood(self, batch: Batch, logits: LinearMap, log_library: Tensor) -> LogLikelihood:
        """c sum_g x_ng log p_ng; the library has no part in it."""
        x = self.unscaled_target(batch)
        x = x._replace(values=x.values * self.weight_scale)
        return softmax_log_likelihood(x, *logits, torch.zeros_like(batch.library), likelihood="multinomial")

    # --- the networks as chains ---

    def encoder_chain(self, covariates: Tensor) -> list[Affine]:
        last = fold(self.z_mean.weight, self.z_mean.bias, self.mean_norm)
        return [*self.encoder.chain(covariates), last._replace(relu=False)]

    # --- objective ---

    def loss(self, batch: Batch, progress: float) -> Loss:
        """Negative ELBO, and the terms of the data set: ECR in training, and CVE where neighbours were drawn."""
        config, posterior = self.config, self.encode(batch)
        theta, of_data_set = self.sample_z(posterior), {}
        inputs = torch.cat([theta, self.design(batch)], dim=1)
        if self.training:
            distances = self.distances()
            logits = self.fold(inputs, torch.cat([self.membership(distances), self.design_weight], dim=1))
            if config.ecr_weight:
                cost, potentials = transport_cost(distances.t(), EPSILON, gradient=config.ecr_grad, start=self.start)
                of_data_set["ecr"] = config.ecr_weight * cost
                self.start.copy_(potentials)
        else:  # of held-out cells, which ECR says nothing about
            logits = LinearMap(inputs, *self.folded())
        likelihood, kl = self.log_likelihood(batch, logits, batch.library), self.kl_z(posterior).sum()
        if config.two_views and batch.pair is not None:
            of_data_set |= self.cross_view(batch, theta)
        terms = {"reconstruction": -likelihood.total.detach(), "kl": kl.detach()}
        return Loss(kl - likelihood.total, batch.n_cells, terms, of_data_set)

    def cross_view(self, batch: Batch, theta: Tensor) -> dict[str, Tensor]:
        """The terms of CVE, weighted."""
        config, pair = self.config, batch.pair
        assert pair is not None
        assert pair.external is not None
        assert batch.external is not None
        theta_n = self.sample_z(self.encode(pair))
        phi, phi_n = self.external_view(torch.cat([batch.external, pair.external])).chunk(2)
        found = {
            "con": consistency(theta, phi, config.con),
            "nei": neighbor_contrast(theta, phi, theta_n, phi_n, config.nei_temperature),
            "reg": -config.reg_weight * spread(theta, phi, config.reg),
        }
        return {name: config.cve_weight * term for name, term in found.items()}

    def phases(self) -> list[Phase]:
        return [Phase("elbo", self.loss, list(self.parameters()), warmup=FIRST_CONSIDERED)]


def _preset(config: SCE2TMConfig, reproduce: str | None) -> SCE2TMConfig:
    """The options of the paper or of the public code in place of our defaults.

    Raises
    ------
    SettingError
        If there is no such preset, or an option is given another value besides.
    """
    if reproduce is None:
        return config
    if reproduce not in PRESETS:
        raise SettingError(f"reproduce is {reproduce!r}; it must be one of {', '.join(PRESETS)}, or None.")
    for name, value in PRESETS[reproduce].items():
        given, default = getattr(config, name), getattr(SCE2TMConfig, name)
        if given not in (value, default):
            raise SettingError(f"reproduce={reproduce!r} means {name}={value!r}, and it is {given!r}: leave one out.")
    return replace(config, **PRESETS[reproduce])


class SCE2TM(TopicModel):
    """Embedded topic model with topics that do not collapse (scE2TM).

    Parameters
    ----------
    adata, layer, batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys
        As for `SCVI`; batches and covariates are further inputs of the linear decoder, which the paper does not have.
    size_factor_key
        As for `SCVI`; takes the place of the total count in normalisation.
    external_key
        Key of obsm with an embedding made elsewhere (scGPT, Geneformer, PCA ...), of any width; None for no second
        view. Needed for training only.
    external_use
        "view": a second view of the cells, whose topics should be the same; "concatenate": more inputs of the encoder.
    n_topics
        K.
    n_hidden, n_embedding
        Width of the encoder, and dimensions of the space of topics and genes.
    ecr_weight
        Lambda, the weight of the transport that keeps topics apart; 0 for none.
    ecr_grad
        Its gradient: "implicit" (exact), "unroll" (the same, slow) or "envelope" (the plan taken as given).
    temperature
        Tau; the smaller, the more a gene belongs to its nearest topic alone.
    cve_weight
        Of all terms of the second view.
    nei_temperature, reg_weight
        Of the contrast of neighbours, and weight of the entropy of mean shares.
    n_neighbors
        Nearest neighbours in either view that count as mutual ones.
    prior_alpha
        Of the Dirichlet prior of the shares of topics.
    target
        What is reconstructed: "log" (log-normalised expression), "counts" (a multinomial), "normalized" (shares).
    normalize
        "total": counts are scaled to 10,000 a cell before the logarithm; "none": they are not.
    con, reg
        Form of the agreement of the views, "mean_log" or "log_mean", and of the entropy, "batch" or "cell"; the latter
        are those that the paper prints.
    reproduce
        "paper" or "reference": `normalize`, `ecr_grad`, `con` and `reg` as the paper prints them, or as in the public
        code; docs/sce2tm.md says what no option reproduces. None: our defaults.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "sce2tm"
    config_class = SCE2TMConfig
    with_counts = "target='counts', or SCVI"
    batch_size_by_default = 512
    fewest_steps = 1000  # as many as 2,430 cells make in 200 epochs; what more bring is within the noise (LOG.md)
    config: SCE2TMConfig
    module: SCE2TMModule

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
        external_key: str | None = None,
        external_use: str = "view",
        n_topics: int = 100,
        n_hidden: int = 200,
        n_embedding: int = 200,
        ecr_weight: float = 100.0,
        ecr_grad: str = "implicit",
        temperature: float = 0.2,
        cve_weight: float = 1.0,
        nei_temperature: float = 0.5,
        reg_weight: float = 5.0,
        n_neighbors: int = 15,
        prior_alpha: float = 1.0,
        target: str = "log",
        normalize: str = "total",
        con: str = "mean_log",
        reg: str = "batch",
        reproduce: str | None = None,
        **unknown: object,
    ) -> None:
        refuse_keywords("SCE2TM", unknown, tuple(signature(SCE2TM.__init__).parameters))
        if external_key is None and external_use != "view":
            raise SettingError(f"external_use={external_use!r} needs external_key, a key of obsm: pass it.")
        config = _preset(
            SCE2TMConfig(
                n_topics, n_hidden, n_embedding, external_key, external_use, 0, ecr_weight, ecr_grad, temperature,
                cve_weight, nei_temperature, reg_weight, n_neighbors, prior_alpha, target, normalize, con, reg,
            ),
            reproduce,
        )  # fmt: skip
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            external_key=external_key,
            model="SCE2TM",
        )
        if cells.external is not None:
            config = replace(config, n_external=cells.external.shape[1])
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    # --- training ---

    def _new_module(self, cells: Cells, settings: Settings) -> SCE2TMModule:
        module = self._draw(self.config, cells.schema, settings.seed)
        module.set_scale(self.batches(self._training_cells(cells, settings)))
        return module

    def _cells_to_train(self, cells: Cells, settings: Settings) -> Cells:
        """With neighbours among the cells that train, in both views; of cells in files, among those of a window."""
        if not self.config.two_views:
            return cells
        if cells.external is None:
            raise DataError(
                f"this model learns from obsm[{self.config.external_key!r}], which these data do not have: add it, or "
                "make a model without external_key."
            )
        if not cells.in_memory:
            return replace(cells, partners=NeighborSearch(self.config.n_neighbors, settings.seed))
        rows, _ = hold_out(len(cells), settings.train_size, settings.seed)
        return replace(cells, partners=partners(cells, rows, self.config.n_neighbors, settings.seed))

    @staticmethod
    def external_of(config: Mapping[str, Any]) -> tuple[str | None, bool]:
        key: str | None = config.get("external_key")
        return key, key is not None and config.get("external_use") == "concatenate"

    @classmethod
    def _module(cls, config: SCE2TMConfig, schema: Schema) -> SCE2TMModule:
        return SCE2TMModule(config, Sizes.of(schema))  # type: ignore[arg-type]

    @property
    def of_counts(self) -> bool:
        return self.config.target == "counts"

    @property
    def prior_sd(self) -> float:
        return self.module.prior_sd
