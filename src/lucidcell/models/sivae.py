"""siVAE: a variational autoencoder whose output weights come from an embedding of the genes.

Generative model, for cell n in batch s_n with covariates k_n, and gene g, over D factors:

    z_n ~ N(0, I)                            scores
    v_g ~ N(0, I)                            loadings
    h_n = MLP([z_n, k_n, s_n]),  w_g = MLP(v_g)
    x_ng ~ N(w_g . h_n + b_g, sd_n^2)        or NB(mean l_n softmax_g(w_g . h_n + b_g), theta_g), as in the VAE
    x_ng ~ N(v_g . z_n + j_g . [k_n, s_n] + b_g, sd_n^2)        for a linear decoder, which has no further term

Inference: q(z_n | x_n) as in the VAE; q(v_g | x_.g) = N(mu_g, diag sigma_g^2) from an MLP of the gene's values over the
cells that train: their principal components, a sample of them, or all.

Objective, with the KL of the genes once per data set:

    sum_n E_q log p(x_n | z_n, v) - w sum_n KL(q(z_n)) - w n lambda mean_g KL(q(v_g))
    + gamma sum_n E_q log N(x_n; v . z_n + j . [k_n, s_n] + b, 1)          the interpretability term

which makes dimension d of the loadings say how genes move along dimension d of the scores. lambda is 1
(`feature_kl_weight="mean"`), G / n ("elbo"), or a number. For NB the term is the NB log-likelihood at
softmax(v . z + j . s + b).

Training in three phases: the VAE with free output weights W; then the genes' encoder and decoder, a VAE from the gene's
values to its row of W with a standard deviation per gene of its own; then all together, with W out of use.

Reference: Choi, Li and Quon (2023), Genome Biology 24, 29, equations 4 to 23. docs/sivae.md lists where we differ from
paper and public code.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.errors import SettingError
from lucidcell.maths.divergences import kl_standard_normal
from lucidcell.maths.networks import Stack, xavier_linear
from lucidcell.models.arguments import not_negative, one_of, whole_number, yes_or_no
from lucidcell.models.gene_inputs import KINDS, gene_inputs, n_gene_inputs
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import LinearMap, Posterior, Sizes
from lucidcell.models.vae import (
    SMALLEST_SD,
    GaussianModel,
    VAEConfig,
    VAEModule,
    gaussian,
    half_squares,
)
from lucidcell.readouts import explained, networks, samples
from lucidcell.readouts.gene_embedding import gene_embedding
from lucidcell.training.phases import Loss, Phase
from lucidcell.training.schedule import warm_up

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from networkx import Graph

    from lucidcell.cells.schema import Schema
    from lucidcell.training.settings import Settings

logger = logging.getLogger(__name__)

L2_OF_GENES = 0.01  # of the gene side's hidden layers, as a share of `l2`
SHARES = (0.15, 0.3, 0.55)  # of the steps of training: cells, genes, together (LOG.md)
MOST_PRETRAINED_GENES = 20_000  # by default; of more genes, free output weights would fill the memory
GENES_AT_A_TIME = 4096  # of a step of the joint phase, by default


@dataclass(frozen=True)
class SIVAEConfig(VAEConfig):
    """Structure of the model."""

    gamma: float = 0.05
    feature_input: str = "pca"
    n_feature_inputs: int = 0  # columns of the gene encoder's input
    feature_kl_weight: str | float = "mean"
    gene_batch_size: int = 0  # genes of a step of the joint phase; 0 for all
    pretrain: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "gamma")
        one_of(self, "feature_input", KINDS)
        whole_number(self, "n_feature_inputs")
        whole_number(self, "gene_batch_size", 0)
        yes_or_no(self, "pretrain")
        if self.pretrain and self.linear_decoder:
            raise SettingError(
                "pretrain is True, and the loadings of a linear decoder are its weights, so that there is nothing to "
                "train before: leave it out."
            )
        if isinstance(self.feature_kl_weight, str):
            one_of(self, "feature_kl_weight", ("mean", "elbo"))
        else:
            not_negative(self, "feature_kl_weight")
        if self.gene_likelihood == "nb" and self.gene_batch_size:
            raise SettingError(
                f"gene_batch_size is {self.gene_batch_size}, and the softmax of gene_likelihood='nb' needs all genes "
                "at once; leave it out, or use the Gaussian."
            )


class SIVAEModule(VAEModule):
    """The networks of cells and genes. Notation as in this file's docstring."""

    config: SIVAEConfig
    gene_inputs: Tensor  # (G, C)
    n_train: Tensor  # number of cells that train

    def make_decoder(self, n_design: int) -> None:
        super().make_decoder(n_design)
        config = self.config
        self.gene_encoder = Stack([config.n_feature_inputs, *config.n_hidden])
        self.v_mean = xavier_linear(config.n_hidden[-1], config.n_latent)
        self.v_scale = nn.Linear(config.n_hidden[-1], config.n_latent)
        nn.init.zeros_(self.v_scale.weight)
        nn.init.zeros_(self.v_scale.bias)
        self.j = nn.Parameter(torch.zeros(self.sizes.n_genes, n_design))
        if not config.linear_decoder:
            self.gene_decoder = Stack([config.n_latent, *config.n_hidden[::-1]])
            self.gene_spread = nn.Linear(config.n_hidden[0], 1)
            nn.init.zeros_(self.gene_spread.weight)
            nn.init.zeros_(self.gene_spread.bias)
        self.register_buffer("gene_inputs", torch.zeros(self.sizes.n_genes, config.n_feature_inputs))
        self.register_buffer("n_train", torch.ones((), dtype=torch.int64))

    # --- the gene side ---

    def encode_genes(self, genes: Tensor | None = None) -> Posterior:
        """q(v | x) of all genes, or of some, (g, D)."""
        hidden = self.gene_encoder(self.gene_inputs if genes is None else self.gene_inputs[genes]).relu()
        return Posterior(self.v_mean(hidden), softplus(self.v_scale(hidden)) + SMALLEST_SD)

    def output_weight(self, v: Tensor, genes: Tensor | None = None) -> Tensor:
        """w of genes with these loadings, (g, H); of a linear decoder the loadings and the effects of the design."""
        if not self.config.linear_decoder:
            return self.gene_decoder(v)
        return torch.cat([v, self.j if genes is None else self.j[genes]], dim=1)

    @torch.no_grad()
    def settle(self) -> None:
        """After training: the output weights at the means of the loadings, for all read-outs of the cells."""
        n_genes = self.sizes.n_genes
        for start in range(0, n_genes, GENES_AT_A_TIME):
            genes = torch.arange(start, min(start + GENES_AT_A_TIME, n_genes))
            self.weight[genes] = self.output_weight(self.encode_genes(genes).mu, genes)

    def batch_weights(self) -> list[Tensor]:
        return [*super().batch_weights(), self.j]

    # --- phase 2: the genes alone ---

    def gene_loss(self, genes: Tensor, progress: float) -> Loss:
        """Negative ELBO of some genes' rows of the output weights W, which stay as phase 1 left them."""
        posterior = self.encode_genes(genes)
        w = self.gene_decoder(self.sample_z(posterior))
        error = (w - self.weight[genes].detach()).square().sum(1)
        sd = softplus(self.gene_spread(w))[:, 0] + SMALLEST_SD
        reconstruction = -gaussian(error, sd, w.shape[1]).sum()
        kl = kl_standard_normal(posterior.mu, posterior.sigma).sum()
        total = reconstruction + warm_up(progress, self.config.kl_warmup) * kl
        terms = {"gene_reconstruction": reconstruction.detach(), "gene_kl": kl.detach()}
        return Loss(total, len(genes), terms, self.penalties_of_genes())

    # --- phase 3: cells and genes together ---

    def joint_loss(self, batch: Batch, progress: float) -> Loss:
        """Negative ELBO of cells and genes, and the interpretability term."""
        config, design = self.config, self.design(batch)
        weight_of_kl = 1.0 if config.pretrain else warm_up(progress, config.kl_warmup)
        posterior = self.encode(batch)
        z = self.sample_z(posterior)
        hidden = self.hidden(z, design)
        genes = self.some_genes()
        of_genes = self.encode_genes(genes)
        v = self.sample_z(of_genes)
        bias = self.bias if genes is None else self.bias[genes]
        logits = LinearMap(hidden, self.output_weight(v, genes), bias)
        linear_part = LinearMap(
            torch.cat([z, design], dim=1), torch.cat([v, self.j if genes is None else self.j[genes]], dim=1), bias
        )
        if self.softmax:
            likelihood = self.log_likelihood(batch, logits, batch.library.log()).total
        else:
            n_genes = self.sizes.n_genes
            x = self.target(batch, genes)
            scale = n_genes / x.shape[1]
            likelihood = gaussian(scale * squared_error(x, logits), self.sd(hidden), n_genes).sum()
        kl = self.kl_z(posterior).sum()
        gene_kl = kl_standard_normal(of_genes.mu, of_genes.sigma).sum(1).mean()
        others = {"gene_kl": weight_of_kl * self.weight_of_gene_kl() * gene_kl} | self.penalties_of_genes()
        if config.gamma and not config.linear_decoder:
            if self.softmax:
                misfit = -self.log_likelihood(batch, linear_part, batch.library.log()).total
            else:
                misfit = scale * squared_error(x, linear_part).sum() / 2
            others["interpretability"] = config.gamma * misfit / batch.n_cells
        others |= self.penalties(logits)
        terms = {"reconstruction": -likelihood.detach(), "kl": kl.detach()}
        return Loss(weight_of_kl * kl - likelihood, batch.n_cells, terms, others)

    def some_genes(self) -> Tensor | None:
        """Genes of this step; None for all."""
        size, n_genes = self.config.gene_batch_size, self.sizes.n_genes
        if not self.training or not 0 < size < n_genes:
            return None
        return torch.randperm(n_genes, device=self.bias.device)[:size]

    def weight_of_gene_kl(self) -> float:
        """Of the mean KL divergence of the genes, against means over cells."""
        weight = self.config.feature_kl_weight
        if isinstance(weight, str):
            return 1.0 if weight == "mean" else self.sizes.n_genes / int(self.n_train)
        return weight

    def penalties_of_genes(self) -> dict[str, Tensor]:
        if not self.config.l2:
            return {}
        steps = self.gene_encoder.steps() + ([] if self.config.linear_decoder else self.gene_decoder.steps())
        return {"gene_l2": L2_OF_GENES * self.config.l2 * half_squares([step.weight for step in steps])}

    def phases(self) -> list[Phase]:
        config = self.config
        of_genes = [*self.gene_encoder.parameters(), *self.v_mean.parameters(), *self.v_scale.parameters()]
        decoder = [] if config.linear_decoder else [*self.gene_decoder.parameters()]
        spread = [] if config.linear_decoder else [*self.gene_spread.parameters()]
        alone = [*of_genes, *decoder, *spread]
        held = {id(one) for one in (*alone, self.j)}
        of_cells = [one for one in self.parameters() if id(one) not in held]
        together = [*(one for one in of_cells if one is not self.weight), *of_genes, *decoder, self.j]
        warmup = 0.0 if config.pretrain else config.kl_warmup
        joint = Phase("joint", self.joint_loss, together, SHARES[2], warmup, large_products=True)
        if not config.pretrain:
            return [joint]
        return [
            Phase("cells", self.loss, of_cells, SHARES[0], config.kl_warmup, large_products=True),
            Phase("genes", self.gene_loss, alone, SHARES[1], large_products=True, n_items=self.sizes.n_genes),
            joint,
        ]


def squared_error(x: Tensor, logits: LinearMap) -> Tensor:
    """Sum over genes of (x - mean)^2, (B,)."""
    assert logits.bias is not None
    return (x - torch.addmm(logits.bias, logits.inputs, logits.weight.t())).square().sum(1)


class SIVAE(GaussianModel):
    """Variational autoencoder with an embedding of the genes that explains that of the cells (Choi et al. 2023).

    Parameters
    ----------
    adata, layer, batch_key, labels_key, categorical_covariate_keys, continuous_covariate_keys, size_factor_key
        As for `VAE`.
    n_latent
        Factors. 2 for a picture of cells and genes; the paper takes 16 to 64 for gene networks.
    n_hidden, gene_likelihood, input, l2, kl_warmup
        As for `VAE`, for cells and genes alike.
    gamma
        Weight of the interpretability term: 0 for none. The public code's is twice the paper's; this is the paper's.
    linear_decoder
        Whether expression is the product of loadings and scores itself (siVAE-linear).
    feature_input
        What the gene encoder sees of a gene in the cells that train: "pca", the scores on its principal components;
        "sample", its values in some cells; "all".
    n_feature_inputs
        Components or cells of it; None: at most 512 components, or 10,000 cells.
    feature_kl_weight
        Weight of the mean KL divergence of the genes: "mean" for 1, "elbo" for genes / cells as the ELBO has it, or a
        number.
    gene_batch_size
        Genes of a step of the joint phase, for the Gaussian; None: all up to 4,096.
    pretrain
        Whether the cells alone, then the genes alone, train first; None: yes, for at most 20,000 genes and a decoder
        that is not linear.

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "sivae"
    config_class = SIVAEConfig
    share_of_epochs, fewest_steps = 2.6, 2000  # three phases
    config: SIVAEConfig
    module: SIVAEModule

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
        gamma: float = 0.05,
        linear_decoder: bool = False,
        feature_input: str = "pca",
        n_feature_inputs: int | None = None,
        feature_kl_weight: str | float = "mean",
        gene_batch_size: int | None = None,
        pretrain: bool | None = None,
        l2: float = 1e-3,
        kl_warmup: float = 0.3,
        **unknown: object,
    ) -> None:
        refuse_keywords("SIVAE", unknown, tuple(signature(SIVAE.__init__).parameters))
        config = SIVAEConfig(  # as far as it does not depend on the data
            n_hidden, n_latent, gene_likelihood, input, linear_decoder, l2, kl_warmup, gamma, feature_input,  # type: ignore[arg-type]
            1 if n_feature_inputs is None else n_feature_inputs, feature_kl_weight, gene_batch_size or 0,
            False if pretrain is None else pretrain,
        )  # fmt: skip
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            model="SIVAE",
            counts=config.input == "counts",
        )
        n_genes, gaussian = cells.n_genes, config.gene_likelihood == "gaussian"
        config = replace(
            config,
            n_feature_inputs=n_gene_inputs(feature_input, n_feature_inputs, len(cells), n_genes),
            gene_batch_size=GENES_AT_A_TIME if gene_batch_size is None and gaussian else config.gene_batch_size,
            pretrain=n_genes <= MOST_PRETRAINED_GENES and not linear_decoder if pretrain is None else pretrain,
        )
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> SIVAEModule:
        module = self._draw(self.config, cells.schema, settings.seed)
        training = self._training_cells(cells, settings)
        self._start_from_data(module, training)
        config = self.config
        inputs = gene_inputs(module, training, config.feature_input, config.n_feature_inputs, settings.seed)
        module.gene_inputs.copy_(inputs)
        module.n_train.fill_(len(training))
        return module

    def _after_training(self) -> None:
        if "joint" in set(self.history.get("phase", ())):
            self.module.settle()
        else:  # interrupted: the output weights are those of the cells' own phase
            logger.warning(
                "training ended before cells and genes trained together; what is said of genes is not learnt."
            )

    @classmethod
    def _module(cls, config: SIVAEConfig, schema: Schema) -> SIVAEModule:
        return SIVAEModule(config, Sizes.of(schema))  # type: ignore[arg-type]

    # --- read-outs of the gene side ---

    def get_loadings(self, *, rotate: str | None = None, layer: int = 1) -> pd.DataFrame:
        """Genes x factors: the posterior means of the gene embedding v.

        Parameters
        ----------
        rotate
            None: the decoder is not linear, so that no rotation leaves expression as it is.
        layer
            1 for the embedding itself; 2, 3, ... for the hidden layers of the gene decoder after it, after their ReLU,
            up to its output, the weights of the genes.

        Returns
        -------
        DataFrame (G, D), of deeper layers (G, units), with `attrs` that say how it was derived.

        Raises
        ------
        SettingError
            If there is no such layer, or a rotation is asked for.
        """
        self.rotation(rotate)
        return gene_embedding(self, layer)

    def sample(
        self, adata: AnnData | None = None, *, n_cells: int | None = None, of: str = "posterior", seed: int = 0
    ) -> pd.DataFrame:
        """Cells drawn from the model, (n, G): counts for NB, otherwise centred and scaled x with its noise.

        Parameters
        ----------
        adata
            Cells to draw from; the training data for None.
        n_cells
            How many; None for one of each.
        of
            "posterior": z from q(z | x) of these cells, which are drawn with replacement unless `n_cells` is None;
            "prior": z from N(0, I), and batch, covariates and library from such cells.
        seed
            Of the draws.
        """
        return samples.sample(self, adata, n_cells, of=of, seed=seed)

    def get_degree_centrality(self, adata: AnnData | None = None, *, how: str = "explained") -> pd.Series:
        """How well each gene is predicted from the embedding of the cells, (G,): its degree in the gene network.

        Parameters
        ----------
        adata
            Cells; the training data for None.
        how
            "explained": share of the gene's variance over cells, 1 - MSE / variance, so that it does not depend on the
            gene's scale; "mse": -MSE, as the paper has it; "distance": the norm of the gene's loadings.
        """
        return explained.degree_centrality_of(self, adata, how)

    def get_gene_neighbors(self, k: int = 20) -> pd.DataFrame:
        """The `k` genes nearest to each in the gene embedding; see `lucidcell.gene_neighbors`."""
        return networks.gene_neighbors(self.get_loadings(), k)

    def get_gene_network(self, quantile: float = 0.01, genes: Sequence[str] | None = None) -> Graph:
        """Graph with an edge for each pair of genes among the nearest; see `lucidcell.gene_network`."""
        return networks.gene_network(self.get_loadings(), quantile, genes)
