"""scANVI: scVI whose cells belong to types, some of them known.

Generative model, for cell n in batch s_n, over C types (those that labels name, and `n_unobserved_types` more):

    c_n ~ Uniform(1 ... C)                            type
    u_n ~ N(0, I)                                     place of the cell within its type, D numbers
    z_n | u_n, c_n ~ N(f(u_n, c_n), g(u_n, c_n))      in place of scVI's N(0, I)
    x_n | z_n, l_n, s_n                               as in scVI (models/scvi.py); the decoder does not see c_n

Inference: q(z | x) q(log l | x) q(c | z) q(u | z, c). The first two are scVI's. q(c | z) is the classifier; where the
labels form a tree, it is the product of the conditionals at every node on the way down. Types are its leaves.

Objective: let S be the leaves that a cell's label allows: one for a cell labelled with a leaf, those under the node for
one labelled at a node, and all for an unlabelled cell. With q~ = q(c | z) / sum_S q(c' | z),

    bound = E log p(x | z, l) - KL(q(log l)) - log q(z | x)
            + sum over c in S of q~(c) [ log p(c) - log q~(c) + E log p(z | u, c) - KL(q(u | z, c) || N(0, I)) ]

and z is one draw. For |S| = 1 it is the bound L of the paper (with log p(c) = -log C), for |S| = C its bound U.
`elbo="marginal"` takes U for every cell, as the published code did. Where C is large, `label_sum="sampled"` takes the 8
likeliest types and one draw from the others, weighted so that value and gradient stay right on average.

The bound alone hardly teaches the classifier, so that it is trained on the labels (cross-entropy) too:

    "alternate"   the paper's Algorithm 2: after each epoch on the bound, the classifier's weights alone are trained, on
                  draws from q(z | x) of labelled cells. They stay as they are while the bound is trained, whose
                  gradients pass through the classifier to z.
    "joint"       Algorithm 1: the bound and `classification_ratio` times the cross-entropy, together
    "both"        "joint", and the classifier once more after each epoch

A model from scratch first trains scVI, then this; `SCANVI.from_scvi_model` starts from a trained SCVI.

Read-outs: those of scVI, with q(c | z) at the mean of q(z | x) as the prediction.

Reference: Xu et al. (2021), Mol. Syst. Biol. 17, e9620, with supplementary notes 3, 5 and 6.
docs/scanvi.md lists the differences from it, from its code and from scvi-tools, and why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import nll_loss

from lucidcell.cells.batch import Batch
from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.cells.taxonomy import Taxonomy
from lucidcell.errors import DataError, SettingError
from lucidcell.maths.normalise import linear_relu_dropout
from lucidcell.maths.pairs import GivenLabel, pair_terms
from lucidcell.maths.tree_softmax import TreeSoftmax
from lucidcell.models import initial
from lucidcell.models.arguments import fraction, not_negative, one_of, whole_number, yes_or_no
from lucidcell.models.factor_model import FactorModel
from lucidcell.models.keywords import refuse_keywords
from lucidcell.models.scvi import SMALLEST_VARIANCE, Posterior, SCVIConfig, SCVIModule, Sizes, check_keys
from lucidcell.readouts import annotation, label_draws, new_types
from lucidcell.readouts.annotation_tables import annotation_tables
from lucidcell.readouts.calibration import FEWEST_CELLS
from lucidcell.training.phases import Loss, Phase, Turn

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.cells.read_taxonomy import TaxonomySource
    from lucidcell.models.scvi import SCVI
    from lucidcell.readouts.groups import Groups
    from lucidcell.readouts.scale_samples import DrawZ
    from lucidcell.training.settings import Settings

logger = logging.getLogger("lucidcell")

LIKELIEST = 8  # types that a sampled sum takes exactly
WORTH_SAMPLING = 17  # types; below, finding the likeliest takes longer than all of them
SHARE_OF_SCVI = 0.6  # of the epochs of a model from scratch
LOOK_FROM = 0.5  # fraction of the phase: the high rate at its start first undoes some of what scVI has learned
CHOICES = {
    "elbo": ("paper", "marginal"),
    "training": ("alternate", "joint", "both"),
    "label_sum": ("exact", "sampled"),
}


@dataclass(frozen=True)
class SCANVIConfig(SCVIConfig):
    """Structure of the model; the fields of scVI come first."""

    n_unobserved_types: int = 0
    elbo: str = "paper"
    training: str = "alternate"
    label_sum: str = "exact"
    classification_ratio: float = 50.0
    classifier_steps: int = 100
    classifier_hidden: int = 128
    classifier_layers: int = 1
    classifier_dropout: float = 0.1
    label_hidden: int = 64  # of q(u | z, c) and p(z | u, c)
    from_scvi: bool = False  # whether training starts from a trained SCVI

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in CHOICES.items():
            one_of(self, name, allowed)
        for name in ("classifier_steps", "classifier_hidden", "label_hidden"):
            whole_number(self, name)
        for name in ("n_unobserved_types", "classifier_layers"):
            whole_number(self, name, smallest=0)
        fraction(self, "classifier_dropout")
        not_negative(self, "classification_ratio")
        yes_or_no(self, "from_scvi")


class Pairs(NamedTuple):
    """P pairs of a cell and a leaf, over which a sum over leaves is taken."""

    cell: Tensor  # (P,) position in the batch
    leaf: Tensor  # (P,)
    weight: Tensor  # (P,) q~(c), divided by the probability that the pair was drawn


class LabelTerms(NamedTuple):
    """Parts of the negative bound that replace scVI's KL divergence of z, each (B,)."""

    z: Tensor  # log q(z | x) - E log p(z | u, c)
    u: Tensor  # KL(q(u | z, c) || N(0, I))
    c: Tensor  # KL(q~(c) || p(c)), with p(c) = 1 / C on all leaves

    @property
    def total(self) -> Tensor:
        return self.z + self.u + self.c


class Classifier(nn.Module):
    """Logits of the nodes of a taxonomy from z."""

    def __init__(self, n_latent: int, n_nodes: int, n_hidden: int, n_layers: int, dropout_rate: float) -> None:
        super().__init__()
        widths = [n_latent] + [n_hidden] * n_layers
        self.layers = nn.ModuleList(nn.Linear(*ends) for ends in zip(widths[:-1], widths[1:], strict=True))
        self.logits = nn.Linear(widths[-1], n_nodes)
        self.dropout_rate = dropout_rate

    def forward(self, z: Tensor, *, learning: bool = False) -> Tensor:
        """(B, nodes); `learning` adds dropout."""
        rate = self.dropout_rate if learning and self.training else 0.0
        for layer in self.layers:
            z = linear_relu_dropout(z, cast(nn.Linear, layer), rate)
        return self.logits(z)


class SCANVIModule(nn.Module):
    """The networks of scANVI. Notation as in this file's docstring."""

    allowed: Tensor  # (nodes + 1, leaves) bool: S for each label; the last row, also -1, for cells without

    def __init__(self, config: SCANVIConfig, sizes: Sizes, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.vae = SCVIModule(config, sizes)
        n_nodes, n_leaves = taxonomy.holds.shape
        self.log_n_leaves = math.log(n_leaves)
        self.classifier = Classifier(
            config.n_latent, n_nodes, config.classifier_hidden, config.classifier_layers, config.classifier_dropout
        )
        self.tree = TreeSoftmax(taxonomy.parents)
        self.q_u, self.p_z = (
            GivenLabel(config.n_latent, n_leaves, config.label_hidden, SMALLEST_VARIANCE) for _ in range(2)
        )
        everything = torch.ones(1, n_leaves, dtype=torch.bool)
        self.register_buffer("allowed", torch.cat([torch.from_numpy(taxonomy.holds), everything]), persistent=False)

    # --- q(c | z) ---

    def log_q_nodes(self, z: Tensor, *, learning: bool = False) -> Tensor:
        """log q(node | z), (B, nodes)."""
        return self.tree(self.classifier(z, learning=learning))

    def log_q_leaves(self, z: Tensor) -> Tensor:
        """log q(c | z) of every type, (B, C)."""
        log_q = self.log_q_nodes(z)
        return log_q if self.tree.flat else log_q[:, self.tree.leaves]

    # --- the sum over types ---

    def visible(self, label: Tensor) -> Tensor:
        """Labels as the bound sees them: -1 for every cell that it takes for unlabelled. No other label leaves here."""
        return label.clamp(min=-1) if self.config.elbo == "paper" else torch.full_like(label, -1)

    def pairs(self, log_q: Tensor) -> Pairs:
        """The pairs that a sum over leaves weighted by exp(log_q) takes; log_q (B, C) is -inf where there are none."""
        if self.config.label_sum == "exact" or log_q.shape[1] < WORTH_SAMPLING:
            cell, leaf = torch.nonzero(log_q > -torch.inf, as_tuple=True)
            return Pairs(cell, leaf, log_q[cell, leaf].exp())
        fixed = log_q.detach()
        likeliest = fixed.topk(LIKELIEST, dim=1).indices
        others = fixed.scatter(1, likeliest, -torch.inf)
        log_total = others.logsumexp(1, keepdim=True)
        reached = (others - log_total).exp().cumsum(1)
        below = torch.rand(len(others), 1, dtype=others.dtype, device=others.device) * reached[:, -1:]
        drawn = torch.searchsorted(reached, below, right=True).clamp(max=others.shape[1] - 1)
        chance = others.gather(1, drawn) - log_total  # NaN where there are no others
        log_chance = torch.cat([fixed.new_zeros(likeliest.shape), chance], dim=1)
        leaves = torch.cat([likeliest, drawn], dim=1)
        cell, k = torch.nonzero(fixed.gather(1, leaves) - log_chance > -torch.inf, as_tuple=True)
        leaf = leaves[cell, k]
        return Pairs(cell, leaf, (log_q[cell, leaf] - log_chance[cell, k]).exp())

    def label_terms(self, z: Tensor, log_q_z: Tensor, label: Tensor) -> LabelTerms:
        """What the types add to the negative bound, at a draw z (B, D) whose log-density (B,) under q(z | x) is given.

        Densities of z leave out -D/2 log(2 pi), which cancels.
        """
        allowed = self.allowed[label]
        masked = self.log_q_leaves(z).masked_fill(~allowed, -torch.inf)
        log_q = masked - masked.logsumexp(1, keepdim=True)
        pairs = self.pairs(log_q)
        terms = pair_terms(z, pairs.cell, pairs.leaf, self.q_u, self.p_z)
        zero = z.new_zeros(len(z))
        expected_log_p = zero.index_add(0, pairs.cell, pairs.weight * terms.log_p)
        kl_u = zero.index_add(0, pairs.cell, pairs.weight * terms.kl)
        negative_entropy = (log_q.exp() * log_q.masked_fill(~allowed, 0.0)).sum(1)
        return LabelTerms(log_q_z - expected_log_p, kl_u, negative_entropy + self.log_n_leaves)

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (B,), estimated with one draw of u for each type; its exponential is right on average."""
        n, n_leaves = len(z), len(self.tree.leaves)
        leaf, repeated = torch.arange(n_leaves).repeat(n), z.repeat_interleave(n_leaves, dim=0)
        q_u = Normal(*self.q_u(repeated, leaf))
        u = q_u.sample()
        log_ratio = Normal(0.0, 1.0).log_prob(u) - q_u.log_prob(u)
        log_p_z = Normal(*self.p_z(u, leaf)).log_prob(repeated)
        return (log_p_z + log_ratio).sum(1).view(n, n_leaves).logsumexp(1) - self.log_n_leaves

    # --- objective ---

    def loss(self, batch: Batch, progress: float) -> Loss:
        """Negative bound of a batch, at full weight: scVI's warm-up is over when this phase begins."""
        x, covariates = self.vae.encoder_inputs(batch)
        drawn = self.vae.draw_z(x, covariates)
        log_library, kl_library = self.vae.draw_library(x, covariates, batch)
        logits = self.vae.logits(self.vae.link(drawn.z), self.vae.design(batch))
        likelihood = self.vae.log_likelihood(batch, logits, log_library)
        terms = self.label_terms(drawn.z, drawn.log_q, self.visible(batch.label))
        kl = terms.total.sum()
        cells = kl - likelihood.total
        if kl_library is not None:
            cells, kl = cells + kl_library.sum(), kl + kl_library.sum()
        found = {"reconstruction": -likelihood.total.detach(), "kl": kl.detach()}
        return Loss(cells, batch.n_cells, found, self.joint_terms(drawn.z, batch.label))

    def joint_terms(self, z: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Algorithm 1's cross-entropy of the labelled cells of a batch, if it is used; 0 where there are none."""
        labelled = label >= 0
        if self.config.training == "alternate":
            return {}
        cross_entropy = self.cross_entropy(z[labelled], label[labelled]) if labelled.any() else z.new_zeros(())
        return {"weighted_classification": self.config.classification_ratio * cross_entropy}

    def cross_entropy(self, z: Tensor, label: Tensor) -> Tensor:
        """Mean of -log q(label | z), in nats; the label of a cell is any node."""
        return nll_loss(self.log_q_nodes(z, learning=True), label)

    def classifier_turn(self) -> Turn:
        """The classifier alone, on draws from q(z | x) of labelled cells, whose moments are computed once."""

        def inputs(batch: Batch) -> tuple[Tensor, ...]:
            posterior = self.vae.encode(batch)
            return posterior.mu, posterior.sigma, batch.label

        return Turn(
            "classification",
            concerns=lambda cells: cells.label >= 0,
            inputs=inputs,
            loss=lambda mu, sigma, label: self.cross_entropy(mu + sigma * torch.randn_like(mu), label),
            parameters=list(self.classifier.parameters()),
            steps=self.config.classifier_steps,
        )

    def phases(self) -> list[Phase]:
        config = self.config
        alone = set(map(id, self.classifier.parameters())) if config.training == "alternate" else set()
        scanvi = Phase(
            "scanvi",
            self.loss,
            [parameter for parameter in self.parameters() if id(parameter) not in alone],
            share=1 - SHARE_OF_SCVI,
            warmup=LOOK_FROM,
            turn=None if config.training == "joint" else self.classifier_turn(),
        )
        if config.from_scvi:
            return [scanvi]
        of_scvi = list(self.vae.parameters())
        return [Phase("scvi", self.vae.loss, of_scvi, share=SHARE_OF_SCVI, warmup=config.kl_warmup), scanvi]


class SCANVI(FactorModel):
    """scVI that knows the types of some cells, and finds those of the others (Xu et al. 2021).

    Parameters
    ----------
    adata, layer, batch_key, categorical_covariate_keys, continuous_covariate_keys, size_factor_key
        As in `SCVI`.
    labels_key
        Column of obs with the types; or several columns, from coarse to fine, of which a cell may have the coarse ones
        only.
    unlabeled_category
        Value of these columns that means no label. Missing values mean it too. The model never sees such cells' labels.
    taxonomy
        Tree over the labels of one column: a dict from child to parent, a DataFrame or CSV file with these two columns,
        or a networkx DiGraph with edges from parent to child. Cells may be labelled at any of its nodes.
    n_unobserved_types
        Types that no label names, besides those that labels do.
    n_latent, n_hidden, n_layers, dropout_rate, gene_likelihood, dispersion, latent_distribution, \
    use_observed_lib_size, encode_covariates, kl_warmup
        As in `SCVI`; dispersion "gene" or "gene-batch".
    elbo
        "paper": the bound of labelled cells knows their label. "marginal": no cell's does.
    training
        "alternate", "joint" or "both"; see the top of models/scanvi.py.
    classification_ratio
        Weight of the cross-entropy in "joint" and "both".
    label_sum
        "exact", or "sampled" for many types: the 8 likeliest and one draw from the others.
    classifier_steps
        Steps of the classifier after each epoch; passes over few labelled cells have few steps, and are more.
    classifier_hidden, classifier_layers, classifier_dropout
        Width, depth (0 for a linear one) and dropout of the classifier.
    label_hidden
        Width of the networks of q(u | z, c) and p(z | u, c).

    Raises
    ------
    DataError
        If the data cannot be used; the message says why and what to do.
    SettingError
        If an argument has no meaning.
    """

    name: ClassVar[str] = "scanvi"
    config_class = SCANVIConfig
    config: SCANVIConfig
    module: SCANVIModule
    start: dict[str, Tensor] | None = None  # weights of the SCVI that training starts from

    def __init__(
        self,
        adata: AnnData | Sequence[AnnData] | dict[str, AnnData],
        *,
        labels_key: str | Sequence[str] | None = None,
        unlabeled_category: str | None = None,
        taxonomy: TaxonomySource | None = None,
        n_unobserved_types: int = 0,
        layer: str | None = None,
        batch_key: str | None = None,
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
        elbo: str = "paper",
        training: str = "alternate",
        classification_ratio: float = 50.0,
        label_sum: str = "exact",
        classifier_steps: int = 100,
        classifier_hidden: int = 128,
        classifier_layers: int = 1,
        classifier_dropout: float = 0.1,
        label_hidden: int = 64,
        **unknown: object,
    ) -> None:
        refuse_keywords("SCANVI", unknown, tuple(signature(SCANVI.__init__).parameters))
        config = SCANVIConfig(
            n_hidden, n_latent, n_layers, dropout_rate, gene_likelihood, dispersion, latent_distribution,
            use_observed_lib_size, encode_covariates, kl_warmup, n_unobserved_types, elbo, training, label_sum,
            classification_ratio, classifier_steps, classifier_hidden, classifier_layers, classifier_dropout,
            label_hidden,
        )  # fmt: skip
        if labels_key is None:
            raise SettingError("SCANVI learns from labels: pass labels_key, or use SCVI, which needs none.")
        check_keys(config, labels_key, size_factor_key)
        cells = Cells.from_anndata(
            adata,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            taxonomy=taxonomy,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
            model="SCANVI",
        )
        self._begin(config, cells, None)

    @classmethod
    def from_scvi_model(
        cls,
        scvi_model: SCVI,
        unlabeled_category: str | None = None,
        labels_key: str | Sequence[str] | None = None,
        adata: AnnData | Sequence[AnnData] | dict[str, AnnData] | None = None,
        *,
        taxonomy: TaxonomySource | None = None,
        n_unobserved_types: int = 0,
        elbo: str = "paper",
        training: str = "alternate",
        classification_ratio: float = 50.0,
        label_sum: str = "exact",
        classifier_steps: int = 100,
        classifier_hidden: int = 128,
        classifier_layers: int = 1,
        classifier_dropout: float = 0.1,
        label_hidden: int = 64,
    ) -> SCANVI:
        """A scANVI that starts from a trained SCVI, which is not changed.

        Parameters
        ----------
        scvi_model
            Trained model; its structure is kept.
        unlabeled_category, labels_key, taxonomy
            As in `SCANVI`. Without `labels_key`, the labels that the SCVI was given.
        adata
            Cells with the labels; for None the SCVI's own, which must have been given the column `labels_key`.
        n_unobserved_types, elbo, training, classification_ratio, label_sum, classifier_steps, classifier_hidden, \
        classifier_layers, classifier_dropout, label_hidden
            As in `SCANVI`.

        Raises
        ------
        NotTrainedError
            If the SCVI has not been trained.
        DataError
            If the cells cannot be used, or there are no such labels.
        """
        scvi_model._check_trained()
        config = SCANVIConfig(
            **asdict(scvi_model.config),
            n_unobserved_types=n_unobserved_types,
            elbo=elbo,
            training=training,
            label_sum=label_sum,
            classification_ratio=classification_ratio,
            classifier_steps=classifier_steps,
            classifier_hidden=classifier_hidden,
            classifier_layers=classifier_layers,
            classifier_dropout=classifier_dropout,
            label_hidden=label_hidden,
            from_scvi=True,
        )
        if adata is None:
            cells = scvi_model._own_cells("take the labels from").relabelled(labels_key, unlabeled_category, taxonomy)
        else:
            cells = Cells.from_schema_with_labels(
                adata,
                scvi_model.schema,
                labels_key=labels_key,
                unlabeled_category=unlabeled_category,
                taxonomy=taxonomy,
                model="SCANVI",
            )
        if cells.schema.labels_key is None:
            raise SettingError("SCANVI learns from labels: pass labels_key, the column of adata with them.")
        model = cls.__new__(cls)
        model._begin(config, cells, {name: value.clone() for name, value in scvi_model.vae.state_dict().items()})
        return model

    def _begin(self, config: SCANVIConfig, cells: Cells, start: dict[str, Tensor] | None) -> None:
        """Refuse what cannot be trained, then make an untrained module."""
        if config.dispersion == "gene-label":
            raise SettingError(
                "dispersion='gene-label' needs a label for every cell, which SCANVI does not assume; use 'gene' or "
                "'gene-batch'."
            )
        key, n_types = cells.schema.labels_key, len(cells.schema.taxonomy.leaves) + config.n_unobserved_types
        if n_types < 2:
            raise DataError(
                f"SCANVI needs at least 2 types to tell apart, and obs[{key!r}] names {n_types}: give another column, "
                "or n_unobserved_types."
            )
        if not (cells.label >= 0).any():
            raise DataError(
                f"none of the {len(cells)} cells has a label in obs[{key!r}]: give another column, or use SCVI, which "
                "needs none."
            )
        self.start = start
        self.share_of_epochs = 1 - SHARE_OF_SCVI if config.from_scvi else 1.0
        self._start(config, self._draw(config, cells.schema), cells.schema, cells)

    def _new_module(self, cells: Cells, settings: Settings) -> SCANVIModule:
        if self.config.from_scvi and self.start is None:
            raise DataError(
                "this model started from a trained SCVI, which is not part of its run folder; make it anew with "
                "SCANVI.from_scvi_model to train it again."
            )
        module = self._draw(self.config, cells.schema, settings.seed)
        if self.start is None:
            initial.from_data(module.vae, cells)
        else:
            module.vae.load_state_dict(self.start)
        return module

    @classmethod
    def _module(cls, config: SCANVIConfig, schema: Schema) -> SCANVIModule:
        return SCANVIModule(config, Sizes.of(schema), schema.taxonomy.with_unobserved(config.n_unobserved_types))

    @property
    def vae(self) -> SCVIModule:
        return self.module.vae

    def divergence(self, batch: Batch, posterior: Posterior, z: Tensor) -> Tensor:
        scaled = (z - posterior.mu) / posterior.sigma
        log_q = -(posterior.sigma.log() + 0.5 * scaled.square()).sum(1)
        label_terms = self.module.label_terms(z, log_q, self.module.visible(batch.label))
        return label_terms.total + self.vae.kl_library(posterior, batch)

    def log_prior(self, z: Tensor) -> Tensor:
        return self.module.log_prior(z)

    def query_loss(self) -> Callable[[Batch, float], Loss]:
        """The bound U: labels of a query are not known, even where its data have them."""
        return lambda batch, progress: self.module.loss(
            batch._replace(label=torch.full_like(batch.label, -1)), progress
        )

    @property
    def taxonomy(self) -> Taxonomy:
        """The types as a tree; unobserved ones come last."""
        return self.schema.taxonomy.with_unobserved(self.config.n_unobserved_types)

    # --- read-outs ---

    def predict(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        soft: bool = False,
        level: int | str | None = None,
        threshold: float | None = None,
        unknown: str = annotation.UNKNOWN,
        calibrated: bool = True,
        batch_size: int | None = None,
    ) -> pd.Series | pd.DataFrame:
        """Type of each cell, from q(c | z) at the mean of q(z | x); labels that cells have do not matter.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        soft
            Return the probability of every type instead of the name of the likeliest. The probabilities are calibrated
            if there were labels enough for it; `model.calibration` says so, and what it changed.
        level
            Level of the taxonomy: 0 for the coarsest labels, or the name of a column of labels; None for the finest. A
            coarser type has the probability of its subtypes together, and is that of the likeliest finest one.
        threshold
            Least probability of a prediction. A cell whose type has less gets the type above it in the taxonomy that
            has enough, or else `unknown`.
        unknown
            What cells are called of which the model is not sure enough.
        calibrated
            Whether probabilities are at the temperature of `model.calibration`; otherwise as the classifier gives them.

        Returns
        -------
        Series (n,) of names, or DataFrame (n, types) of probabilities whose rows sum to 1; the index names the cells.

        Raises
        ------
        SettingError
            If there is no such level, or `threshold` or `unknown` has no meaning.
        """
        return annotation.predict(
            self, adata, indices, soft=soft, level=level, threshold=threshold, unknown=unknown, calibrated=calibrated,
            batch_size=batch_size,
        )  # fmt: skip

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        threshold: float | None = None,
        unknown: str = annotation.UNKNOWN,
        calibrated: bool = True,
    ) -> pd.DataFrame:
        """Prediction of each cell, and how sure it is.

        Parameters
        ----------
        adata, indices, threshold, unknown, calibrated
            As in `predict`.

        Returns
        -------
        DataFrame, a row for each cell: prediction; confidence, its probability (of an unknown cell, that of its type at
        the coarsest level); uncertainty, 1 - the largest probability of a finest type; entropy of the finest types, in
        nats. With a taxonomy also prediction_<level> and confidence_<level> for each level, before any rejection.

        Raises
        ------
        SettingError
            If `threshold` or `unknown` has no meaning.
        """
        return annotation.annotate(self, adata, indices, threshold=threshold, unknown=unknown, calibrated=calibrated)

    def find_new_types(
        self,
        adata: AnnData | None = None,
        *,
        clusters: np.ndarray | pd.Series | None = None,
        k: int = new_types.N_NEIGHBORS,
        least_mixing: float = new_types.LEAST_MIXING,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Clusters of unlabelled cells that mix little with labelled ones; see `lucidcell.readouts.new_types`."""
        return new_types.find_new_types(self, adata, clusters=clusters, k=k, least_mixing=least_mixing, seed=seed)

    def _never_held_out(self, cells: Cells, settings: Settings) -> np.ndarray | None:
        """Cells labelled with a type, where too few of them would be held out to judge probabilities by.

        Only if others than these can then judge: classifiers that had not seen them, and enough cells without a label.
        """
        labelled = np.isin(cells.label, self.taxonomy.leaves)
        held_out = 1 - settings.train_size
        too_few = round(held_out * labelled.sum()) < FEWEST_CELLS
        enough_others = 2 * held_out * len(cells) <= (~labelled).sum()
        return labelled if self.config.training == "alternate" and too_few and enough_others else None

    def _after_training(self) -> None:
        if "scanvi" not in set(self.history.get("phase", [])):
            logger.warning("training ended before the classifier's first epoch; predictions are those of chance.")
        self.calibration = annotation.calibrate_model(self)

    def own_groups(self, adata: AnnData | None) -> Groups:
        """Groups that `differential_expression` compares where no column is named: the predicted types."""
        return label_draws.predicted_groups(self, adata)

    def law_of_z(self, scanvi_latent: str | None, groups: Groups | None) -> DrawZ:
        return label_draws.law_of_z(self, scanvi_latent, groups)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Read-outs for the run folder: those of SCVI, and annotation, posterior, taxonomy and new_types."""
        return super().tables() | annotation_tables(self)

    def write(self, adata: AnnData) -> None:
        """Write the read-outs into `adata`, and nothing else.

        Sets `obsm["X_scanvi"]` (n, D), `varm["scanvi_loadings"]` (genes, D; NaN for genes that the model lacks),
        `obs["scanvi_prediction"]`, `obs["scanvi_confidence"]` and `uns["scanvi"]`.
        """
        super().write(adata)
        annotation.write(self, adata)
