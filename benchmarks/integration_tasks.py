"""What the benchmark of integration runs on and runs: pairs of data sets, embeddings, and their "before".

A pair is an AnnData with counts, obs["batch"] (two names) and obs["cell_type"]. All embeddings have 10 dimensions and
each method its own defaults, as in the scANVI paper. "Before" is the same method on each batch alone: SCVI for SCVI and
SCANVI, principal components for all others, which are these when there is nothing to correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from annotation_tasks import UNKNOWN, load

import lucidcell as lc
from lucidcell import comparators

N_DIMENSIONS = 10
PAIRS = ("kang_and_pbmc3k", "celseq2_and_10x", "v2_and_5prime")
FEWEST_CELLS = 100  # of a type in either batch, for the composition stress


def pair(name: str) -> ad.AnnData:
    """A pair of data sets with genes chosen."""
    if name == "kang_and_pbmc3k":
        adata = load(name)
        adata = adata[adata.obs["cell_type"].astype(str) != UNKNOWN].copy()
        adata.obs["batch"] = np.where(adata.obs["donor"] == "pbmc3k", "pbmc3k", "kang")
    elif name == "celseq2_and_10x":
        adata = load("sc_mixology_3tech")
        adata = adata[adata.obs["technology"].isin(["CEL-seq2", "10x v2"])].copy()
        adata.obs["batch"] = adata.obs["technology"].astype(str)
    else:
        adata = load("pbmc_3tech")
        adata = adata[adata.obs["batch"].isin(["V2", "VDJ"])].copy()
        adata = lc.select_genes(adata, n_top_genes=2000, batch_key="batch")
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    return adata


# --- composition stress: Figure 3 and Supplementary Figure 8 --------------------------------------------------------


class Stress(NamedTuple):
    """A pair with types taken away."""

    scenario: str
    types: str  # those that make it, joined
    adata: ad.AnnData
    unique: np.ndarray  # (n,) bool, cells whose type one batch lacks


def stresses() -> Iterator[Stress]:
    """kang has no type c, pbmc3k nothing else; kang lacks c; kang lacks two types and pbmc3k two others."""
    whole = pair("kang_and_pbmc3k")
    labels, in_kang = whole.obs["cell_type"].to_numpy(), (whole.obs["batch"] == "kang").to_numpy()
    sizes = pd.crosstab(labels, in_kang).min(axis=1)
    types = sorted(sizes.index[sizes >= FEWEST_CELLS])
    kept = np.isin(labels, types)
    for i, one in enumerate(types):  # the scenarios in turn, so that a run that is cut off has some of each
        yield _stress("no shared type", one, whole, kept & (in_kang != (labels == one)))
        yield _stress("one type missing", one, whole, kept & ~(in_kang & (labels == one)))
        if i % 2 == 0:
            first, second = types[i : i + 2], [types[(i + j) % len(types)] for j in (2, 3)]
            lost = (in_kang & np.isin(labels, first)) | (~in_kang & np.isin(labels, second))
            yield _stress("several unique", " + ".join(first) + " | " + " + ".join(second), whole, kept & ~lost)


def _stress(scenario: str, types: str, whole: ad.AnnData, keep: np.ndarray) -> Stress:
    adata = whole[keep].copy()
    batches = adata.obs.groupby("cell_type", observed=True)["batch"].nunique()
    return Stress(scenario, types, adata, (adata.obs["cell_type"].map(batches) == 1).to_numpy())


# --- trajectory: Figure 4 -------------------------------------------------------------------------------------------

N_BINS = 20
TRUTH = "true factors"


def trajectory(n_cells: int = 6000, n_genes: int = 1000, seed: int = 0) -> ad.AnnData:
    """Two branches from one root, in two protocols; the batch "short" lacks the outer 40 % of both branches.

    obs["position"] runs from -1, the end of one branch, over 0, the root, to 1; obs["cell_type"] are five stretches of
    it, as coarse as the labels of a study. Cells vary little but along the branches, and the rates of genes much, so
    that in the true factors (`obsm`) the ends do not mix and the middle does.
    """
    adata = lc.simulate_tree(
        n_cells,
        n_genes,
        tree={"left": {}, "right": {}},
        continuous=True,
        within_sd=0.1,
        effect_size=0.8,
        seed=seed,
    )
    away = np.asarray(adata.obs["pseudotime"], float)
    adata.obs["position"] = np.where(adata.obs["branch"].astype(str) == "left", -away, away)
    long = (adata.obs["batch"].astype(str) == adata.obs["batch"].astype(str).min()).to_numpy()
    adata.obs["batch"] = np.where(long, "long", "short")
    adata.obs["cell_type"] = [f"stretch {i}" for i in np.digitize(adata.obs["position"], [-0.6, -0.2, 0.2, 0.6])]
    return adata[long | (np.abs(adata.obs["position"]) < 0.6).to_numpy()].copy()


# --- methods: a pair in, an embedding of its cells out --------------------------------------------------------------


def scvi(adata: ad.AnnData, seed: int = 0) -> np.ndarray:
    one_batch = adata.obs["batch"].nunique() == 1  # "before"
    model = lc.SCVI(adata, batch_key=None if one_batch else "batch", n_latent=N_DIMENSIONS)
    model.train(seed=seed, progress=False)
    return model.get_latent_representation()


def scanvi(adata: ad.AnnData, labelled: str, seed: int = 0, n_types: int = 0) -> np.ndarray:
    """Labels of one batch only; with `n_types`, as many types as needed are added without a label."""
    known = adata.obs["batch"] == labelled
    shown = adata.copy()
    shown.obs["shown"] = np.where(known, adata.obs["cell_type"], UNKNOWN)
    model = lc.SCANVI(
        shown,
        batch_key="batch",
        labels_key="shown",
        unlabeled_category=UNKNOWN,
        n_unobserved_types=max(0, n_types - adata.obs.loc[known, "cell_type"].nunique()),
        n_latent=N_DIMENSIONS,
    )
    model.train(seed=seed, progress=False)
    return model.get_latent_representation()


def _corrected(name: str) -> Callable[[ad.AnnData, int], np.ndarray]:
    method = getattr(comparators, name)
    return lambda adata, seed: method(adata.X, adata.obs["batch"].to_numpy(), n_components=N_DIMENSIONS, seed=seed)


METHODS: dict[str, Callable[[ad.AnnData, int], np.ndarray]] = {
    "SCVI": scvi,
    "SCANVI, first labelled": lambda adata, seed: scanvi(adata, min(adata.obs["batch"]), seed),
    "SCANVI, second labelled": lambda adata, seed: scanvi(adata, max(adata.obs["batch"]), seed),
    "PCA": lambda adata, seed: comparators.pca(adata.X, n_components=N_DIMENSIONS, seed=seed),
    "ComBat": _corrected("combat"),
    "MNN": _corrected("mnn"),
    "Harmony": _corrected("harmony"),
    "Scanorama": _corrected("scanorama"),
    "CCA": _corrected("cca"),
}


class Before:
    """Each batch of a pair embedded alone, made when first asked for."""

    def __init__(self, adata: ad.AnnData) -> None:
        self.adata = adata
        self.made: dict[tuple[str, int], np.ndarray] = {}

    def of(self, method: str, seed: int) -> np.ndarray:
        base = "SCVI" if method.startswith("SC") and method != "Scanorama" else "PCA"
        key = base, seed if base == "SCVI" else 0
        if key not in self.made:
            embedding = np.zeros((self.adata.n_obs, N_DIMENSIONS))
            for batch in np.unique(self.adata.obs["batch"]):
                rows = np.flatnonzero(self.adata.obs["batch"] == batch)
                embedding[rows] = METHODS[base](self.adata[rows].copy(), key[1])
            self.made[key] = embedding
        return self.made[key]
