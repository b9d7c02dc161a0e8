"""`FactorModel`: what every model that encodes counts to z and decodes z to rho can say.

The networks for it are the property `vae`, whatever else a model has around them. Each method is one call of a function
in `readouts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import SettingError
from lucidcell.maths.likelihoods import gaussian_log_prob
from lucidcell.maths.sampling import some_rows
from lucidcell.models.base import Model
from lucidcell.readouts import (
    attribution,
    differential_expression,
    expression,
    latent,
    likelihood,
    loadings,
    predictive_check,
    tables,
)
from lucidcell.readouts.groups import groups_of
from lucidcell.readouts.scale_samples import PosteriorOfCells
from lucidcell.readouts.streamed import to_zarr

if TYPE_CHECKING:
    from pathlib import Path

    import zarr
    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from lucidcell.cells.batch import Batch
    from lucidcell.cells.cells import Cells
    from lucidcell.cells.schema import Schema
    from lucidcell.models.scvi import Posterior, SCVIModule
    from lucidcell.readouts.groups import GroupNames, Groups, Selection
    from lucidcell.readouts.scale_samples import DrawZ
    from lucidcell.training.phases import Loss


MOST_CHECKED_CELLS = 5000  # by the table of genes in the run folder


class FactorModel(Model):
    """Shell of the models of counts, with their read-outs. A subclass gives `name`, `config`, `module` and `vae`."""

    config_class: ClassVar[type[Any]]
    with_counts: ClassVar[str] = "gene_likelihood='nb', or SCVI"  # where the likelihood is not one of counts

    @property
    def vae(self) -> SCVIModule:
        """The networks that encode counts to z and decode z to rho."""
        raise NotImplementedError

    @classmethod
    def _module(cls, config: Any, schema: Schema) -> torch.nn.Module:
        """A module with this structure."""
        raise NotImplementedError

    @classmethod
    def _draw(cls, config: Any, schema: Schema, seed: int | None = None) -> Any:
        """The same drawn with a seed, or for weights to come; no global generator moves."""
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            return cls._module(config, schema)

    @classmethod
    def _restore(cls, config: dict[str, Any], schema: Schema, cells: Cells | None) -> Self:
        model, structure = cls.__new__(cls), cls.config_class(**config)
        model._start(structure, cls._draw(structure, schema), schema, cells)
        return model

    @property
    def of_counts(self) -> bool:
        """Whether the likelihood is one of counts."""
        return True

    def require_counts(self, what: str) -> None:
        """Raise `SettingError` if the likelihood is not one of counts, which `what` needs."""
        if not self.of_counts:
            raise SettingError(
                f"{what} needs a likelihood of counts, and this {type(self).__name__} has one of other values; "
                f"use {self.with_counts}."
            )

    def divergence(self, batch: Batch, posterior: Posterior, z: Tensor) -> Tensor:
        """KL divergence of all latent variables from their prior, (B,); at z (B, D) where it has no closed form."""
        return self.vae.kl_z(posterior) + self.vae.kl_library(posterior, batch)

    @property
    def prior_sd(self) -> float:
        """Standard deviation of each factor under a prior that does not depend on the cell."""
        return 1.0

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (B,), or an estimate whose exponential is right on average."""
        return gaussian_log_prob(z, torch.zeros(()), torch.tensor(self.prior_sd)).sum(1)

    def query_loss(self) -> Callable[[Batch, float], Loss]:
        """The loss that trains what a query adds to the model."""
        return self.vae.loss

    # --- read-outs ---

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
        """Factors of each cell.

        Parameters
        ----------
        adata
            Cells to embed; the training data for None. Genes are found by name.
        indices
            Positions of the cells, or a boolean mask; all for None.
        give_mean
            Posterior mean (of a logistic normal by `mc_samples` draws); otherwise `n_samples` draws.
        mc_samples, n_samples
            Number of draws.
        batch_size
            Cells at a time.
        return_dist
            Return mean and variance of q(z | x), both (n, D), instead; before the softmax of a logistic normal.
        seed
            Of the draws.
        rotate
            "varimax", for a linear decoder: the scores that belong to `get_loadings(rotate="varimax")`, so that
            scores @ loadings.T stays as it is. Variances are then those of the rotated factors, one by one.
        out
            Path of a zarr array to write the posterior mean to, some cells at a time: for more cells than fit into
            memory.

        Returns
        -------
        Array (n, D), or (n_samples, n, D) for several draws; with `out` the zarr array (n, D), float32.

        Raises
        ------
        SettingError
            If the decoder cannot be rotated, the Gaussian before a softmax is to be, or draws are to go to `out`.
        FileError
            If there is something at `out` already, or it cannot be written.
        """
        rotation = self.rotation(rotate)
        if out is not None:
            if return_dist or not give_mean:
                raise SettingError("out takes the posterior mean alone: leave out return_dist and give_mean.")
            return to_zarr(
                out, self.cells_of(adata, indices), self.config.n_latent,
                partial(self._scores, rotation=rotation, mc_samples=mc_samples, batch_size=batch_size, seed=seed),
            )  # fmt: skip
        if return_dist:
            if rotation is not None and self.vae.config.latent_distribution == "ln":
                raise SettingError(
                    "return_dist=True is the Gaussian before the softmax, and a rotation is of the factors after it; "
                    "leave out one of the two."
                )
            mean, variance = latent.latent_distribution(self, adata, indices, batch_size)
            return (mean, variance) if rotation is None else (mean @ rotation, variance @ rotation**2)
        if give_mean:
            cells = self.cells_of(adata, indices)
            return self._scores(cells, rotation=rotation, mc_samples=mc_samples, batch_size=batch_size, seed=seed)
        found = latent.latent_samples(self, adata, indices, n_samples, batch_size, seed)
        return found if rotation is None else found @ rotation

    def _scores(
        self, cells: Cells, *, rotation: np.ndarray | None, mc_samples: int, batch_size: int | None, seed: int
    ) -> np.ndarray:
        """Posterior mean of the factors, rotated, (n, D)."""
        found = latent.latent_mean(self, cells, mc_samples, batch_size, seed)
        return found if rotation is None else found @ rotation

    def rotation(self, rotate: str | None) -> np.ndarray | None:
        """Orthogonal matrix R (D, D): rotated loadings are loadings @ R, and rotated scores z @ R; None for none."""
        if rotate is not None:
            raise SettingError(
                f"rotate={rotate!r} needs a linear decoder; {type(self).__name__}'s is not, so its factors stay as "
                "they are."
            )
        return None

    def get_loadings(self, *, rotate: str | None = None) -> pd.DataFrame:
        """Genes x factors: mean over at most 5,000 cells of d log rho_g / d z_d; `attrs` say how it was derived.

        Raises
        ------
        SettingError
            If a rotation is asked for, which only a linear decoder has.
        """
        self.rotation(rotate)
        return loadings.mean_jacobian(self)

    def get_attributions(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        method: str = "gradient_x_input",
        of: str = "decoder",
        summary: str = "pca",
        baseline: str = "zero",
        mode: str = "auto",
        n_evaluations: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Genes x factors: how much each factor moves each gene, by a method that explains any neural network.

        Parameters
        ----------
        adata, indices
            Cells to score; for None at most 5,000 of the training data, for Shapley values 1,000.
        method
            "saliency" (derivatives, with their signs), "gradient_x_input", "integrated_gradients", "deeplift" (rescale
            rule) or "shapley".
        of
            "decoder": what a factor does to a gene's log expression, or to its scaled expression for a Gaussian;
            "encoder": what a gene does to a factor's posterior mean.
        summary
            Of the cells: "pca", their first principal component through zero, times the root of its eigenvalue;
            "pca_centred", around their mean (as in the paper; it sees nothing that is the same in all cells); "mean"
            or "mean_abs".
        baseline
            Where all but saliency start from: "zero", or the "mean" of the cells.
        mode
            "forward" (one factor, all genes at a time), "reverse", or "auto" for what is cheaper. The numbers agree.
        n_evaluations
            Points on the line of integrated gradients (None: 32), or orders of Shapley values (None: 24).
        seed
            Of the orders.

        Returns
        -------
        DataFrame (G, D) with `attrs` that say how it was derived, and in "explained" which share of the scores'
        squares the principal component of each factor holds.

        Raises
        ------
        SettingError
            If an argument has no meaning.
        """
        return attribution.attributions(
            self, adata, indices, attribution.How(method, of, mode, baseline, n_evaluations, seed), summary
        )

    def get_cell_attributions(
        self,
        factor: str,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        method: str = "gradient_x_input",
        of: str = "decoder",
        baseline: str = "zero",
        n_evaluations: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Cells x genes: the scores of one factor that `get_attributions` sums up; arguments as there."""
        how = attribution.How(method, of, "auto", baseline, n_evaluations, seed)
        return attribution.cell_attributions(self, factor, adata, indices, how)

    def mean_counts(self) -> np.ndarray:
        """Mean count of each gene in the model's own cells, (G,)."""
        return self.cells_of(None).mean_counts()

    @property
    def readable_rotation(self) -> str | None:
        """Rotation in which factors are shown, and compared between fits."""
        return None

    def readable_loadings(self) -> pd.DataFrame:
        """Genes x factors as they are shown: in `readable_rotation`."""
        return self.get_loadings()

    def readable_shares(self, scores: pd.DataFrame) -> pd.DataFrame | None:
        """Shares of the factors with these scores (n, D) in the variance of the linear predictor, if there is one."""
        return None

    def gene_table(self) -> pd.DataFrame:
        """What the run folder says of each gene: how well the model reproduces it."""
        cells = self.cells_of(None)
        return predictive_check.predictive_check(self, indices=some_rows(len(cells), MOST_CHECKED_CELLS))

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: str | Sequence[str] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | str = 1,
        n_samples: int = 1,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        out: str | Path | None = None,
    ) -> pd.DataFrame | np.ndarray | zarr.Array:
        """Expression rho, free of library size; also of batch when `transform_batch` names one or several.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        transform_batch
            Decode every cell as if it came from this batch; for several, their mean. None: each its own.
        gene_list
            Genes by name; all for None.
        library_size
            Multiply rho by this number, or by the cell's library for "latent".
        n_samples
            Draws of z; with 1, z is its posterior mean.
        return_mean
            Average the draws.
        return_numpy
            Return an array; by default only where draws are not averaged.
        seed
            Of the draws.
        out
            As in `get_latent_representation`.

        Returns
        -------
        Cells x genes as DataFrame, or as array; (n_samples, n, genes) where draws are not averaged; with `out` the zarr
        array (n, genes), float32.
        """
        cells = self.cells_of(adata, indices)
        read = partial(
            expression.normalized_expression, self, transform_batch=transform_batch, gene_list=gene_list,
            library_size=library_size, n_samples=n_samples, return_mean=return_mean, batch_size=batch_size, seed=seed,
        )  # fmt: skip
        genes = [self.schema.gene_names[g] for g in expression.gene_positions(self, gene_list)]
        if out is not None:
            if not return_mean:
                raise SettingError("out takes cells x genes: leave out return_mean=False.")
            return to_zarr(out, cells, len(genes), read)
        values = read(cells)
        return values if return_numpy or not return_mean else pd.DataFrame(values, cells.cell_names, genes)

    def posterior_predictive_sample(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        gene_list: Sequence[str] | None = None,
        transform_batch: str | Sequence[str] | None = None,
        seed: int = 0,
    ) -> csr_matrix | list[csr_matrix]:
        """Counts drawn from the fitted model for each cell: cells x genes, sparse; a list of them for several draws."""
        from scipy.sparse import csr_matrix, vstack

        self.require_counts("posterior_predictive_sample")
        genes = expression.gene_positions(self, gene_list)
        draws: list[list[csr_matrix]] = [[] for _ in range(n_samples)]
        for _, counts in expression.predictive_draws(
            self, adata, indices, transform_batch=transform_batch, n_samples=n_samples, seed=seed
        ):
            for sample, drawn in zip(draws, counts.numpy(), strict=True):
                sample.append(csr_matrix(drawn[:, genes]))
        stacked = [vstack(sample, format="csr") for sample in draws]
        return stacked[0] if n_samples == 1 else stacked

    def posterior_predictive_check(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Mean, coefficient of variation and zero fraction of each gene, observed and drawn from the model.

        `lucidcell.plots.predictive_check` draws the table.
        """
        self.require_counts("posterior_predictive_check")
        return predictive_check.predictive_check(self, adata, indices, n_samples=n_samples, seed=seed)

    def get_elbo(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        return_mean: bool = True,
        seed: int = 0,
    ) -> float | np.ndarray:
        """Evidence lower bound in nats per cell (higher is better), KL weight 1; of each cell unless `return_mean`."""
        return _mean_or_all(
            likelihood.fit_of_cells(self, adata, indices, n_samples=n_samples, seed=seed).elbo, return_mean
        )

    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        return_mean: bool = True,
        seed: int = 0,
    ) -> float | np.ndarray:
        """-E log p(x | z) in nats per cell (lower is better)."""
        fit = likelihood.fit_of_cells(self, adata, indices, n_samples=n_samples, seed=seed)
        return _mean_or_all(-fit.log_likelihood, return_mean)

    def get_marginal_ll(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_mc_samples: int = 1000,
        return_mean: bool = True,
        seed: int = 0,
    ) -> float | np.ndarray:
        """log p(x) in nats per cell by importance sampling (higher is better)."""
        values = likelihood.marginal_log_likelihood(self, adata, indices, n_samples=n_mc_samples, seed=seed)
        return _mean_or_all(values, return_mean)

    def get_feature_correlation_matrix(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 10,
        transform_batch: str | Sequence[str] | None = None,
        correlation_type: str = "spearman",
        rna_size_factor: float = 1000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Gene x gene correlation of denoised expression drawn from the posterior."""
        self.require_counts("get_feature_correlation_matrix")
        return expression.gene_correlation(
            self, adata, indices, n_samples=n_samples, transform_batch=transform_batch,
            correlation_type=correlation_type, rna_size_factor=rna_size_factor, seed=seed,
        )  # fmt: skip

    def get_likelihood_parameters(
        self, adata: AnnData | None = None, *, indices: Sequence[int] | np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Parameters of p(x | z, l) at the posterior mean, each (n, G): "mean", and as the likelihood has them
        "theta" (inverse dispersion) and "dropout" (probability).
        """  # noqa: D205
        self.require_counts("get_likelihood_parameters")
        batches = self.batches(self.cells_of(adata, indices))
        with torch.no_grad():
            found = [expression.likelihood_parameters(self, batch, [None], use_mean=True) for batch in batches]
        return {name: torch.cat([one[name] for one in found]).numpy() for name in found[0]}

    def get_latent_library_size(
        self, adata: AnnData | None = None, *, indices: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """Library size of each cell, (n,): median of q(l | x), or the observed total where it is not latent."""
        return latent.latent_library(self, adata, indices)

    def differential_expression(
        self,
        adata: AnnData | None = None,
        *,
        groupby: str | None = None,
        group1: GroupNames = None,
        group2: str | None = None,
        idx1: Selection | None = None,
        idx2: Selection | None = None,
        mode: str = "change",
        delta: float = 0.25,
        fdr: float = 0.05,
        pairs: bool = False,
        calibrate: bool = True,
        batch_correction: bool = True,
        batch_average: str = "expression",
        batch_weights: str = "empirical",
        n_samples_overall: int = 5000,
        pseudocounts: float | None = None,
        scanvi_latent: str | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Genes that differ between two groups of cells, by how much, and how sure that is.

        Parameters
        ----------
        adata
            Cells to compare; the training data for None, of which the model keeps labels and batches only.
        groupby
            Column of obs that sorts the cells into groups; for None the model's labels, or those that it predicts.
            Cells without a value are in no group.
        group1, group2
            Names of groups. Each of `group1` (a name, several, or None for all) is compared with `group2`, or with all
            other cells for None.
        idx1, idx2
            Instead of groups: masks, positions of cells, or queries on obs as text, such as "age > 60"; `idx2=None`
            for all other cells.
        mode
            "change": is the log2 fold change of the group means larger than `delta`? "vanilla": in random pairs of
            cells, which group's expresses the gene more?
        delta
            Smallest absolute log2 fold change that counts; 0 asks whether there is a change at all.
        fdr
            Expected share of wrong genes among those with `is_de`.
        pairs
            Of mode "change": compare random pairs of cells instead of group means, as scvi-tools does.
        calibrate
            Of mode "change", not for pairs: let the counts of each group correct the decoder's means and say how sure
            they are, and shrink the changes of all genes together. Without it the probabilities are far too sure.
        batch_correction
            Decode every cell in every batch that both groups have; otherwise each cell in its own.
        batch_average
            Of mode "vanilla": average the "expression" over these batches, or the "probability" of being higher.
        batch_weights
            Weigh the batches by the cells compared in each ("empirical"), or equally ("uniform").
        n_samples_overall
            Draws of z for each group, and most cells used of a group.
        pseudocounts
            Share of a cell's counts added to both means before the logarithm; by default 0.001 counts in a cell of
            median library size.
        scanvi_latent
            Of SCANVI, for groups that are its types: draw z from p(z | u, c) of the type c, with u from the posteriors
            of its cells ("aggregate", the default for such groups) or from the prior ("prior"); or draw z from
            q(z | x) of the "cells", as for all other groups and models.
        seed
            The same seed gives the same table.

        Returns
        -------
        One row for each gene and comparison. First stand, in mode "change", the genes that surely change most
        (lfc_sure, up or down); in mode "vanilla", those with the largest Bayes factor. "1" and "2" stand for the
        groups; changes are from 2 to 1.

        ========================= ==================================================================================
        proba_de, proba_not_de    probability of a change larger than `delta`, up or down, and its complement
        proba_m1, proba_m2        in mode "vanilla": P(expression in 1 > in 2) for a pair of cells, and its complement
        bayes_factor              natural log of the odds of the two; beyond 3 is strong
        is_de                     in the largest set of genes with expected false discovery rate of at most `fdr`
        lfc_sure                  the log2 fold change that is exceeded with 97.5 % probability: the end nearest to 0
                                  of the interval, 0 if it holds 0
        lfc_mean, _median, _std   posterior of the log2 fold change; in mode "vanilla" that of the mean scales
        lfc_low, lfc_high         its 95 % credible interval
        scale1, scale2            mean decoded expression, as a share of a cell's counts
        raw_mean1, raw_mean2      mean counts per cell
        raw_normalized_mean1, 2   the same after scaling every cell to 10,000 counts
        non_zeros_proportion1, 2  share of the cells in which the gene was counted
        comparison, group1, group2
        ========================= ==================================================================================

        Raises
        ------
        DataError
            If a column is missing, a group has fewer than two cells, or no batch has cells of both groups.
        SettingError
            If a group is unknown, the groups overlap, or an argument has no meaning.
        """
        self.require_counts("differential_expression")
        settings = differential_expression.Settings(
            mode, delta, fdr, pairs, calibrate, batch_correction, batch_average, batch_weights, n_samples_overall,
            pseudocounts, scanvi_latent, seed,
        )  # fmt: skip
        return differential_expression.differential_expression(
            self, adata, groupby, group1, group2, idx1, idx2, settings
        )

    def own_groups(self, adata: AnnData | None) -> Groups:
        """Groups that `differential_expression` compares where no column is named: the labels."""
        return groups_of(self.cells_of(adata), adata, None)

    def law_of_z(self, scanvi_latent: str | None, groups: Groups | None) -> DrawZ:
        """Law from which `differential_expression` draws z of cells in these groups: q(z | x)."""
        if scanvi_latent not in (None, "cells"):
            raise SettingError(
                f"scanvi_latent={scanvi_latent!r} is for SCANVI, whose types have laws of z of their own; "
                f"{type(self).__name__} has none: leave it out."
            )
        return PosteriorOfCells(self)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Read-outs for the run folder: cells, latent, loadings, factors, genes."""
        return tables.run_tables(self)

    def write(self, adata: AnnData) -> None:
        """Write the read-outs into `adata`, and nothing else.

        Sets, here for a model called scvi, `obsm["X_scvi"]` (n, D), `varm["scvi_loadings"]` (genes, D; NaN for genes
        that the model lacks) and `uns["scvi"]` (settings and how the loadings were derived). Factors of an LDVAE are
        written as they are shown: in the varimax rotation and centred, unless its options settle rotation or sign.
        """
        tables.write(self, adata)

    # --- other data ---

    def map_query(self, adata: AnnData, *, min_overlap: float = 0.5, max_epochs: int = 30, seed: int = 0) -> Self:
        """A model for new cells in the same latent space; see `lucidcell.models.query.map_query`."""
        from lucidcell.models.query import map_query

        return map_query(self, adata, min_overlap=min_overlap, max_epochs=max_epochs, seed=seed)


def _mean_or_all(values: np.ndarray, return_mean: bool) -> float | np.ndarray:
    return float(values.mean(dtype=float)) if return_mean else values
