"""What topic models share: cells as shares of topics, topics as shares of genes, and both as points of one space.

    theta_n = softmax(z_n)                          shares of K topics, z Gaussian
    p_n = softmax(BN(W [theta_n, s_n]) or + bias)   shares of G genes

`get_latent_representation` is the mean of z, in which cells are clustered; `get_topics` its softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lucidcell.errors import SettingError
from lucidcell.models.linear_model import LinearModel, LinearModule
from lucidcell.readouts import explained, latent, topics

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from anndata import AnnData

    from lucidcell.cells.cells import Cells


class TopicModule(LinearModule):
    """Topics and genes as points."""

    mean_count: Tensor

    def make_moments(self) -> None:
        super().make_moments()
        self.register_buffer("mean_count", torch.zeros(self.sizes.n_genes))  # of each gene in the cells that trained

    def gene_points(self) -> Tensor:
        """(G, d)."""
        raise NotImplementedError

    def topic_points(self) -> Tensor:
        """(K, d)."""
        raise NotImplementedError

    def log_expression(self, z: Tensor, design: Tensor) -> Tensor:
        """Log of `expression`, (B, G), finite however small that is."""
        return self.decode(z, design)

    def expression(self, z: Tensor, design: Tensor) -> Tensor:
        return self.log_expression(z, design).exp()

    def membership(self) -> Tensor:
        """Topic-gene scores as the model's paper has them, (G, K)."""
        raise NotImplementedError


class TopicModel(LinearModel):
    """A model whose cells are mixtures of topics."""

    module: TopicModule

    def _after_training(self) -> None:
        super()._after_training()
        assert self.record is not None
        training = self._own_cells("train it").select(self.record.train_rows)
        self.module.mean_count.copy_(torch.from_numpy(training.mean_counts()))

    @property
    def factor_names(self) -> list[str]:
        """T1 ... TK."""
        return [f"T{k + 1}" for k in range(self.config.n_latent)]

    def rotation(self, rotate: str | None) -> np.ndarray | None:
        if rotate is not None:
            raise SettingError(
                f"rotate={rotate!r} would mix topics, the corners of a simplex, which need no rotation: leave it out."
            )
        return None

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_dist: bool = False,
        seed: int = 0,
        rotate: str | None = None,
        out: str | Path | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray] | zarr.Array:
        """Each cell before the softmax: the mean of q(z | x), (n, K), in which cells are clustered.

        The shares of the topics are `get_topics`. Arguments are those of `SCVI.get_latent_representation`; draws
        (`give_mean=False`) are before the softmax, too, and `mc_samples` has no meaning here.
        """
        if not give_mean and not return_dist and out is None:
            self.rotation(rotate)
            return latent.latent_samples(self, adata, indices, n_samples, batch_size, seed, linked=False)
        return super().get_latent_representation(
            adata, indices=indices, give_mean=give_mean, batch_size=batch_size, return_dist=return_dist, rotate=rotate,
            out=out,
        )  # fmt: skip

    def _scores(
        self, cells: Cells, *, rotation: np.ndarray | None, mc_samples: int, batch_size: int | None, seed: int
    ) -> np.ndarray:
        """Mean of q(z | x) before the softmax, (n, K)."""
        return latent.distribution_of_cells(self, cells, batch_size)[0]

    def get_topics(
        self, adata: AnnData | None = None, *, indices: Sequence[int] | np.ndarray | None = None
    ) -> pd.DataFrame:
        """Cells x topics: shares of the topics at the mean of q(z | x), each row sums to 1."""
        return topics.topic_shares(self, adata, indices)

    def get_topic_genes(self, *, ranking: str = "signal", weight: float = 0.6) -> pd.DataFrame:
        """Genes x topics: how much a gene stands for a topic.

        Parameters
        ----------
        ranking
            "signal": centred loading times the square root of the gene's mean count, how much a gene of one cell tells
            about the topic (`lucidcell.gene_signal`); "relevance": weight log p(gene | topic) + (1 - weight) log lift,
            where p(gene | topic) is the decoder's for a cell that is all of one topic, and the lift its ratio to the
            mean over cells that trained (Sievert & Shirley 2014); "lift": log lift alone; "probability": p(gene |
            topic); "published": the scores of the model's paper, for scE2TM each gene's shares of the topics.
        weight
            Of the relevance, 0 to 1: 0 ranks by how specific a gene is, 1 by how common.

        Raises
        ------
        SettingError
            If an argument has no meaning.
        """
        return topics.topic_genes(self, ranking, weight)

    def get_gene_embedding(self) -> pd.DataFrame:
        """Genes as points, (G, d), in the space of `get_topic_embedding`."""
        return topics.points(self, self.module.gene_points, self.schema.gene_names, "gene")

    def get_topic_embedding(self) -> pd.DataFrame:
        """Topics as points, (K, d), in the space of `get_gene_embedding`."""
        return topics.points(self, self.module.topic_points, self.factor_names, "topic")

    def perturb_topics(
        self,
        off: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        mode: str = "renormalize",
    ) -> pd.DataFrame:
        """Cells x genes: log2 fold change of expression when topics are switched off.

        Parameters
        ----------
        off
            Topics by name.
        adata, indices
            As in `get_latent_representation`.
        mode
            "renormalize": the other topics take over, in proportion to their shares; "zero": nothing does, so that
            shares no longer sum to 1.

        Raises
        ------
        SettingError
            If a topic is unknown, none would be left, or the mode is unknown.
        """
        return topics.perturbed(self, off, adata, indices, mode)

    def readable_loadings(self) -> pd.DataFrame:
        """Genes x topics, centred: log-fold by which a gene of a cell that is all of one topic stands out."""
        return self.get_loadings(center=True)

    def readable_shares(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Of the shares of the topics, whatever scores are shown."""
        return super().readable_shares(topics.topic_shares(self, None, None).reset_index(drop=True))

    def gene_table(self) -> pd.DataFrame:
        """Mean and sd of log-normalised expression, and the share of its variance that the topics explain."""
        return explained.gene_moments(self)

    def write(self, adata: AnnData) -> None:
        """Write the read-outs into `adata`, and nothing else.

        Beside what `SCVI.write` sets, here for scE2TM: `obsm["sce2tm_topics"]` (n, K), shares of the topics, and
        `varm["sce2tm_topic_genes"]` (genes, K; NaN for genes that the model lacks). `evaluate` takes both keys for its
        measures of topics.
        """
        super().write(adata)
        topics.write(self, adata)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Also topics: shares of the topics of each cell; topic_genes, which the report ranks genes by; and points."""
        shares, genes = self.get_topics().reset_index(), self.get_topic_genes().reset_index()
        return super().tables() | {"topics": shares, "topic_genes": genes, "points": topics.principal_points(self)}
