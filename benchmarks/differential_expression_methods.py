"""The methods that `differential_expression.py` compares: each gives every gene an effect and what speaks for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from annotation_tasks import UNKNOWN, quiet_scvi
from scipy.stats import false_discovery_control, norm
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc


class Result(NamedTuple):
    """For each gene, in the order of the data; positive where the first group has more."""

    effect: np.ndarray  # log fold change
    evidence: np.ndarray  # signed test statistic or log odds
    found: np.ndarray | None = None  # whether it is called, at a false discovery rate of 0.05


@dataclass
class Task:
    """Cells of which some have a label, and two types to compare."""

    adata: ad.AnnData
    batch_key: str
    labels: np.ndarray  # UNKNOWN for cells that are to be labelled first
    seed: int = 0
    max_epochs: int | None = None

    @cached_property
    def scvi(self) -> lc.SCVI:
        model = lc.SCVI(self.adata, batch_key=self.batch_key)
        model.train(self.max_epochs, seed=self.seed, progress=False)
        return model

    @cached_property
    def scanvi(self) -> lc.SCANVI:
        adata = self.adata.copy()
        adata.obs["label"] = self.labels
        model = lc.SCANVI.from_scvi_model(self.scvi, UNKNOWN if UNKNOWN in self.labels else None, "label", adata)
        model.train(self.max_epochs, seed=self.seed, progress=False)
        return model

    @cached_property
    def peer_scvi(self):
        """scvi-tools' SCVI by its default recipe."""
        scvi = quiet_scvi()
        scvi.settings.seed = self.seed
        adata = self.adata.copy()
        scvi.model.SCVI.setup_anndata(adata, batch_key=self.batch_key)
        model = scvi.model.SCVI(adata)
        model.train(self.max_epochs, accelerator="auto", enable_progress_bar=False)
        return model

    @cached_property
    def logged(self) -> ad.AnnData:
        """Counts per median cell, log(1 + x), with the types in obs["type"]."""
        adata = ad.AnnData(self.adata.X.copy(), obs=self.adata.obs.copy(), var=self.adata.var[[]])
        adata.obs["type"] = pd.Categorical(self.types)
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        return adata

    @cached_property
    def types(self) -> np.ndarray:
        """Labels, of unlabelled cells by their neighbours in the latent space of our SCVI."""
        return self.transferred(self.scvi.get_latent_representation)

    @cached_property
    def peer_types(self) -> np.ndarray:
        """The same in scvi-tools' latent space."""
        return self.transferred(self.peer_scvi.get_latent_representation)

    def transferred(self, embed: Callable[[], np.ndarray]) -> np.ndarray:
        known = self.labels != UNKNOWN
        if known.all():
            return self.labels
        latent, types = embed(), self.labels.copy()
        nearest = KNeighborsClassifier(10).fit(latent[known], self.labels[known])
        types[~known] = nearest.predict(latent[~known])
        return types


Method = Callable[[Task, str, str], Result]


def ours(model: lc.SCVI | lc.SCANVI, task: Task, groups: dict[str, object], **settings: object) -> Result:
    table = model.differential_expression(**groups, seed=task.seed, **settings).loc[task.adata.var_names]
    effect, evidence = table["lfc_mean"].to_numpy(), table["bayes_factor"].to_numpy()
    if "is_de" not in table:
        return Result(effect, evidence)
    odds = evidence - evidence.min()  # log odds are symmetric in the sign of the change
    return Result(effect, np.sign(effect) * odds, table["is_de"].to_numpy())


def our_scvi(**settings: object) -> Method:
    def run(task: Task, first: str, second: str) -> Result:
        masks = {"idx1": task.types == first, "idx2": task.types == second}
        return ours(task.scvi, task, masks, **settings)

    return run


def our_scanvi(**settings: object) -> Method:
    def run(task: Task, first: str, second: str) -> Result:
        return ours(task.scanvi, task, {"group1": first, "group2": second}, **settings)

    return run


def peer_change(task: Task, first: str, second: str) -> Result:
    """scvi-tools' change mode, over all batches."""
    masks = {"idx1": task.peer_types == first, "idx2": task.peer_types == second}
    table = task.peer_scvi.differential_expression(**masks, mode="change", batch_correction=True, silent=True)
    table = table.loc[task.adata.var_names]
    effect = table["lfc_mean"].to_numpy()
    odds = table["bayes_factor"].to_numpy()
    called = table["is_de_fdr_0.05"].to_numpy()
    return Result(effect, np.sign(effect) * (odds - odds.min()), called)


def scanpy_test(method: str) -> Method:
    def run(task: Task, first: str, second: str) -> Result:
        adata = task.logged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.tl.rank_genes_groups(adata, "type", groups=[first], reference=second, method=method)
        table = sc.get.rank_genes_groups_df(adata, first).set_index("names").loc[adata.var_names]
        found = table["pvals_adj"].to_numpy() < 0.05  # Benjamini and Hochberg
        return Result(table["logfoldchanges"].to_numpy(), np.nan_to_num(table["scores"].to_numpy()), found)

    return run


def nb_regression(task: Task, first: str, second: str) -> Result:
    """NB regression of each gene on group and batch (statsmodels), with the total as offset and a moment dispersion."""
    import statsmodels.api as sm

    chosen = np.isin(task.types, [first, second])
    adata = task.adata[chosen]
    batch = pd.get_dummies(adata.obs[task.batch_key].astype(str), drop_first=True)
    design = np.column_stack([np.ones(chosen.sum()), task.types[chosen] == first, batch]).astype(float)
    counts = np.asarray(adata.X.todense())
    offset = np.log(counts.sum(1))
    effect, statistic = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for g, y in enumerate(counts.T):
        if not y.any():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean = sm.GLM(y, design, sm.families.Poisson(), offset=offset).fit().mu
            alpha = max(float((((y - mean) ** 2 - mean) / mean**2).mean()), 1e-4)
            fit = sm.GLM(y, design, sm.families.NegativeBinomial(alpha=alpha), offset=offset).fit()
        effect[g], statistic[g] = fit.params[1], fit.tvalues[1]
    statistic = np.nan_to_num(statistic)
    found = false_discovery_control(2 * norm.sf(np.abs(statistic))) < 0.05
    return Result(np.clip(effect, -20, 20), statistic, found)


OURS = "lucidcell SCVI"
TYPES = "lucidcell SCANVI"
METHODS: dict[str, Method] = {
    OURS: our_scvi(),
    f"{OURS}, vanilla": our_scvi(mode="vanilla"),
    f"{OURS}, posterior of z alone": our_scvi(calibrate=False),
    TYPES: our_scanvi(),
    f"{TYPES}, vanilla": our_scanvi(mode="vanilla"),
    f"{TYPES}, z of cells": our_scanvi(scanvi_latent="cells"),
    "scvi-tools SCVI, change": peer_change,
    "scanpy Wilcoxon": scanpy_test("wilcoxon"),
    "scanpy t-test": scanpy_test("t-test"),
    "NB regression": nb_regression,
}
