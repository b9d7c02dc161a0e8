"""What the benchmarks of annotation share: data sets, models and peers, scores and intervals.

One unlabelled SCVI per data set serves all draws of labels. scvi-tools' takes 3 to 15 minutes and is kept in
peer_runs/; ours takes seconds and is trained in every process. scvi-tools runs as it comes: its default SCVI (ZINB, its
own number of epochs), then `SCANVI.from_scvi_model` and `train()`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from peer_scvi_tools import load as load_shared

import lucidcell as lc
from lucidcell.comparators import Annotation, harmony, knn, pca
from lucidcell.metrics.annotation import accuracy, expected_calibration_error, weighted_accuracy
from lucidcell.readouts.calibration import calibrate, tempered

PEER_RUNS = Path(__file__).parent / "peer_runs"
UNKNOWN = "Unknown"
KANG_NAMES = {  # of the types of pbmc3k
    "Naive CD4 T": "CD4 T cells",
    "Memory CD4 T": "CD4 T cells",
    "CD8 T": "CD8 T cells",
    "CD14+ Mono": "CD14+ Monocytes",
    "FCGR3A+ Mono": "FCGR3A+ Monocytes",
    "B": "B cells",
    "NK": "NK cells",
    "DC": "Dendritic cells",
    "Platelet": "Megakaryocytes",
    "unlabelled": UNKNOWN,
}
BATCH_KEY = {
    "kang_and_pbmc3k": "donor",
    "kang_pbmc_12k": "donor",
    "baron_human": "donor",
    "sc_mixology_3tech": "batch",
    "tree_265": "batch",
}


def load(name: str) -> ad.AnnData:
    """Counts with the true type in obs["cell_type"], UNKNOWN where there is none."""
    if name == "kang_and_pbmc3k":
        kang, pbmc3k = load_shared("kang_pbmc_12k"), load_shared("pbmc3k")
        pbmc3k.obs["donor"] = "pbmc3k"
        pbmc3k.obs["cell_type"] = pbmc3k.obs["cell_type"].astype(str).map(KANG_NAMES)
        shared = [gene for gene in kang.var_names if gene in set(pbmc3k.var_names)]
        return ad.concat([kang[:, shared], pbmc3k[:, shared]], index_unique="-")
    if name == "tree_265":
        return lc.simulate_tree(15_000, 1000, tree=265, n_groups=39, effect_size=0.5, seed=0)
    return load_shared(name)


class DataSet:
    """A data set, its embeddings and its unlabelled models, each made when it is first asked for."""

    def __init__(self, name: str, max_epochs: int | None = None) -> None:
        self.name, self.adata, self.batch_key, self.max_epochs = name, load(name), BATCH_KEY.get(name), max_epochs
        self.truth = self.adata.obs["cell_type"].astype(str).to_numpy()

    @cached_property
    def our_scvi(self) -> lc.SCVI:
        model = lc.SCVI(self.adata, batch_key=self.batch_key)
        model.train(self.max_epochs, progress=False)
        return model

    @cached_property
    def our_latent(self) -> np.ndarray:
        return self.our_scvi.get_latent_representation()

    @cached_property
    def peer_scvi(self):
        """scvi-tools' SCVI by its default recipe, trained once and kept."""
        scvi = quiet_scvi()
        short = "" if self.max_epochs is None else f"-{self.max_epochs}-epochs"
        folder = PEER_RUNS / f"{self.name}-scvi{short}"
        adata = self.adata.copy()
        if not (folder / "model.pt").exists():
            scvi.settings.seed = 0
            scvi.model.SCVI.setup_anndata(adata, batch_key=self.batch_key)
            model = scvi.model.SCVI(adata)
            begin = time.perf_counter()
            model.train(self.max_epochs, accelerator="auto", enable_progress_bar=False)
            print(f"scvi-tools' SCVI of {self.name}: {time.perf_counter() - begin:.0f} s", flush=True)
            model.save(folder, overwrite=True)
        return scvi.model.SCVI.load(folder, adata, accelerator="auto")

    @cached_property
    def peer_latent(self) -> np.ndarray:
        return self.peer_scvi.get_latent_representation()

    @cached_property
    def pcs(self) -> np.ndarray:
        return pca(self.adata.X)

    @cached_property
    def harmony(self) -> np.ndarray:
        return harmony(self.adata.X, self.adata.obs[self.batch_key].astype(str).to_numpy())


def quiet_scvi():
    """scvi-tools without its progress, warnings and advice."""
    import scvi

    warnings.filterwarnings("ignore")
    for logger in ("scvi", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return scvi


# --- methods: labels of the known cells in, UNKNOWN for all others; predictions for all cells out --------------------


class Prediction(NamedTuple):
    """What a method says of every cell."""

    labels: np.ndarray  # (n,)
    confidence: np.ndarray | None = None  # (n,) probability of the label
    scaled: np.ndarray | None = None  # (n,) the same at the temperature fitted to labels that the model had not seen

    @classmethod
    def of(cls, annotation: Annotation) -> Prediction:
        sure = annotation.probabilities
        return cls(annotation.labels, None if sure is None else sure.to_numpy().max(1))


def our_scanvi(data: DataSet, labels: np.ndarray, seed: int, parents: dict[str, str] | None = None) -> Prediction:
    """SCANVI from our unlabelled SCVI; with a taxonomy, labels may also name its groups."""
    adata = data.adata.copy()
    adata.obs["label"] = labels
    model = lc.SCANVI.from_scvi_model(data.our_scvi, UNKNOWN, "label", adata, taxonomy=parents)
    model.train(data.max_epochs, seed=seed, progress=False)
    raw, scaled = model.predict(soft=True, calibrated=False), model.predict(soft=True)
    return Prediction(raw.idxmax(axis=1).to_numpy(), raw.max(axis=1).to_numpy(), scaled.max(axis=1).to_numpy())


def peer_scanvi(data: DataSet, labels: np.ndarray, seed: int) -> Prediction:
    """scvi-tools' SCANVI from its unlabelled SCVI, as it comes."""
    scvi = quiet_scvi()
    scvi.settings.seed = seed
    adata = data.adata.copy()
    adata.obs["label"] = pd.Categorical(labels)
    model = scvi.model.SCANVI.from_scvi_model(data.peer_scvi, UNKNOWN, "label", adata)
    model.train(data.max_epochs, accelerator="auto", enable_progress_bar=False)
    return with_temperature(model.predict(soft=True), labels, model.validation_indices)


def with_temperature(probabilities: pd.DataFrame, labels: np.ndarray, held_out: np.ndarray) -> Prediction:
    """Predictions, also at the temperature that fits held-out labelled cells, where there are enough, as ours does."""
    names, logs = list(probabilities.columns), np.log(np.maximum(probabilities.to_numpy(), 1e-30))
    judged = [cell for cell in held_out if labels[cell] in names]
    codes = np.array([names.index(labels[cell]) for cell in judged], int)
    found = calibrate(logs[judged], codes, names, source="held out")
    scaled = np.exp(tempered(logs, found.temperature))
    return Prediction(np.asarray(names, object)[logs.argmax(1)], np.exp(logs.max(1)), scaled.max(1))


def by_neighbours(embedding: np.ndarray, labels: np.ndarray, k: int) -> Prediction:
    known = labels != UNKNOWN
    return Prediction.of(knn(embedding[known], labels[known], embedding, k=min(k, int(known.sum()))))


def by_counts(method: Callable[..., Annotation], data: DataSet, labels: np.ndarray) -> Prediction:
    """CORAL or scmap, trained on the known cells and applied to the others; known cells keep their labels."""
    known = labels != UNKNOWN
    found = Prediction.of(method(data.adata.X[known], labels[known], data.adata.X[~known]))
    everywhere, confidence = labels.astype(object), np.ones(len(labels))
    everywhere[~known] = found.labels
    if found.confidence is None:
        return Prediction(everywhere)
    confidence[~known] = found.confidence
    return Prediction(everywhere, confidence)


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(truth: np.ndarray, prediction: Prediction, cells: np.ndarray) -> dict[str, float]:
    """Weighted accuracy, accuracy and calibration errors on some of the cells."""
    true, found = truth[cells], prediction.labels[cells]
    row = {"weighted_accuracy": weighted_accuracy(true, found), "accuracy": accuracy(true, found)}
    for name, confidence in (("calibration_error", prediction.confidence), ("scaled_error", prediction.scaled)):
        known = confidence is not None
        row[name] = expected_calibration_error(true, found, confidence[cells]) if known else float("nan")
    return row


def paired_interval(splits: list[pd.DataFrame], ours: str, peer: str, n_draws: int = 4000) -> dict[str, float]:
    """Difference of weighted accuracy, ours minus peer's, mean over splits, with a 95 % bootstrap interval.

    Each split is a table of its scored cells: their true `type`, and a column for each method that says whether it was
    right. Cells are drawn again within split and type, so that a type keeps its size and both methods their pairing.
    """
    rng = np.random.default_rng(0)
    draws, difference = np.zeros(n_draws), 0.0
    for cells in splits:
        gains = cells[ours].astype(int) - cells[peer].astype(int)
        of_types = [gains[cells["type"] == name] for name in cells["type"].unique()]
        for gain in of_types:
            shares = [np.mean(gain == value) for value in (-1, 0, 1)]
            counts = rng.multinomial(len(gain), shares, n_draws)
            weight = len(gain) * len(of_types) * len(splits)
            draws += (counts[:, 2] - counts[:, 0]) / weight
            difference += gain.sum() / weight
    lower, upper = np.percentile(draws, [2.5, 97.5])
    return {"difference": difference, "lower": lower, "upper": upper}
