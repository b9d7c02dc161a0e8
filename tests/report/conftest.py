"""A run folder as `save` writes it, fabricated from simulated counts: the principal components stand for a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lucidcell.cells.simulate import simulate_counts

N_EPOCHS = 40


def fabricate_run(
    folder: Path,
    counts: np.ndarray,
    *,
    cells: list[str],
    genes: list[str],
    batch: list[str] | None = None,
    label: list[str] | None = None,
    n_factors: int = 4,
    n_unused: int = 1,
    validation: bool = True,
    umap: bool = True,
) -> Path:
    """Write model.json and the tables of a run over `counts` (cells, genes); the last factors are unused.

    The map is two components unless `umap` is off, so that most tests need not compute one.
    """
    rng = np.random.default_rng(0)
    n_cells, n_genes = counts.shape
    z, loadings = principal_factors(counts, n_factors, n_unused, rng)
    names = [f"Z{k + 1}" for k in range(n_factors + n_unused)]
    (folder / "tables").mkdir(parents=True)
    tables = {
        "cells": pd.DataFrame(
            {"cell": cells, "batch": batch or "", "label": label or "", "total_counts": counts.sum(axis=1)}
        ),
        "latent": pd.DataFrame(z, columns=names).assign(cell=cells)[["cell", *names]],
        "loadings": pd.DataFrame(loadings, columns=names).assign(gene=genes)[["gene", *names]],
        "factors": pd.DataFrame({"factor": names, "z_variance": z.var(axis=0), "kl": divergences(z)}),
        "genes": gene_statistics(counts, genes, rng),
    }
    if umap:
        tables["umap"] = pd.DataFrame({"cell": cells, "umap1": z[:, 0], "umap2": z[:, 1]})
    for name, table in tables.items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    training_history(n_cells, validation, rng).to_csv(folder / "history.csv", index=False)
    model = model_json(counts, genes, batch, label, n_factors + n_unused, validation)
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    return folder


def principal_factors(
    counts: np.ndarray, n_factors: int, n_unused: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    log = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    log -= log.mean(axis=0)
    u, s, vt = np.linalg.svd(log, full_matrices=False)
    z = u[:, :n_factors] * np.sqrt(len(counts)) * np.linspace(0.98, 0.7, n_factors)
    loadings = (vt[:n_factors] * s[:n_factors, None] / np.sqrt(len(counts))).T
    z = np.hstack([z, 0.02 * rng.standard_normal((len(counts), n_unused))])
    return z, np.hstack([loadings, 0.001 * rng.standard_normal((counts.shape[1], n_unused))])


def divergences(z: np.ndarray) -> np.ndarray:
    noise = np.clip(1 - z.var(axis=0), 0.02, 0.999)
    return 0.5 * (z.var(axis=0) + noise - 1 - np.log(noise))


def gene_statistics(counts: np.ndarray, genes: list[str], rng: np.random.Generator) -> pd.DataFrame:
    mean, sd, zeros = counts.mean(axis=0), counts.std(axis=0), (counts == 0).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cv = sd / mean
    n = len(genes)
    columns = {
        "gene": genes,
        "mean_observed": mean,
        "mean_expected": (mean + 1e-4) * rng.lognormal(0, 0.08, n) * np.where(rng.random(n) < 0.01, 2.5, 1.0),
        "cv_observed": cv,
        "cv_expected": cv * rng.lognormal(-0.05, 0.08, n),
        "zero_fraction_observed": zeros,
        "zero_fraction_expected": np.clip(zeros + 0.02 * rng.standard_normal(n), 0, 1),
    }
    return pd.DataFrame(columns)


def training_history(n_cells: int, validation: bool, rng: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(1, N_EPOCHS + 1)
    weight = np.clip(epoch / 12, 0, 1)
    kl = 14 * (1 - np.exp(-epoch / 5)) - 2 * weight
    fit = 600 + 700 * np.exp(-epoch / 2) - 0.3 * epoch
    held_out = 604 + 690 * np.exp(-epoch / 2) + 0.006 * (epoch - 30) ** 2 + 0.3 * rng.standard_normal(N_EPOCHS)
    table = {
        "epoch": epoch,
        "phase": "elbo",
        "train_loss": fit + weight * kl,
        "train_reconstruction": fit,
        "train_kl": kl,
        "validation_negative_elbo": held_out + kl if validation else np.nan,
        "validation_reconstruction": held_out if validation else np.nan,
        "validation_kl": 0.98 * kl if validation else np.nan,
        "kl_weight": weight,
        "learning_rate": 2e-3 * np.sin(np.pi * epoch / N_EPOCHS),
        "seconds": 0.00002 * n_cells * epoch,
    }
    return pd.DataFrame(table)


def model_json(
    counts: np.ndarray,
    genes: list[str],
    batch: list[str] | None,
    label: list[str] | None,
    n_latent: int,
    validation: bool,
) -> dict[str, Any]:
    n_cells = len(counts)
    n_validation = n_cells // 10 if validation else 0
    n_silent = int((counts.sum(axis=0) == 0).sum())
    silent = f"{n_silent} of {len(genes)} genes have no count at all; drop them to save time."
    return {
        "schema_version": 1,
        "class": "SCVI",
        "created": "2026-11-21T07:00:00+00:00",
        "config": {"n_hidden": 128, "n_latent": n_latent, "n_layers": 1, "gene_likelihood": "nb", "dispersion": "gene"},
        "schema": {
            "gene_names": genes,
            "layer": "counts",
            "batch_key": "batch" if batch else None,
            "batch_categories": sorted(set(batch)) if batch else None,
            "labels_key": "cell_type" if label else None,
            "label_categories": sorted(set(label)) if label else None,
            "unlabeled_category": "Unknown" if label else None,
            "categorical_covariates": [],
            "continuous_covariates": [],
            "size_factor_key": None,
        },
        "data": {
            "n_cells": n_cells,
            "n_genes": len(genes),
            "nonzero_fraction": float((counts > 0).mean()),
            "median_library": float(np.median(counts.sum(axis=1))),
            "n_silent_genes": n_silent,
            "warnings": [silent] if n_silent else [],
        },
        "training": {
            "settings": {"max_epochs": 60, "batch_size": 128, "learning_rate": 0.002, "seed": 0, "device": "cpu"},
            "n_train": n_cells - n_validation,
            "n_validation": n_validation,
            "epochs": N_EPOCHS,
            "planned_epochs": 60,
            "best_epoch": 30,
            "stopped": "early stopping" if validation else "finished",
            "seconds": 83.2,
            "cells_per_second": 21345.6,
        },
        "command": "lucidcell fit cells.h5ad --model scvi --layer counts --out runs/example",
        "versions": {"lucidcell": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "loadings": {"how": "change of log expression per unit of z, mean over cells", "sign": "as in the model"},
        "weights_sha256": "0" * 64,
    }


def annotate_run(run: Path, *, declined: bool = False, n_suspicious: int = 1) -> Path:
    """Add to a run what a model that predicts labels leaves: probabilities of its labels, a third of which it knew."""
    rng = np.random.default_rng(1)
    cells = pd.read_csv(run / "tables/cells.csv", dtype=str, keep_default_na=False)
    truth = pd.Categorical(cells["label"])
    names = [str(name) for name in truth.categories]
    probabilities = rng.dirichlet(np.full(len(names), 0.2), len(cells)) * 0.4
    probabilities[np.arange(len(cells)), truth.codes] += 0.6
    prediction, confidence = np.array(names)[probabilities.argmax(1)], probabilities.max(1)
    entropy = -(probabilities * np.log(probabilities + 1e-12)).sum(1)
    halves = {name: f"group {i % 2}" for i, name in enumerate(names)}
    fine = pd.DataFrame({"node": prediction, "confidence": confidence}).groupby("node", as_index=False)
    fine = fine.agg(n_cells=("confidence", "size"), confidence=("confidence", "mean"))
    fine = fine.assign(parent=fine["node"].map(halves), level="cell_type")
    coarse = fine.groupby("parent", as_index=False).agg(n_cells=("n_cells", "sum"), confidence=("confidence", "max"))
    coarse = coarse.rename(columns={"parent": "node"}).assign(parent="", level="coarse")
    new_types = {"cluster": ["3", "0"], "n_cells": [25, 55], "mixing": [0.04, 0.9]}
    new_types |= {"suspicious": [n_suspicious, 0], "prediction": names[:2], "prediction_share": [0.9, 1.0]}
    tables = {
        "annotation": pd.DataFrame({"prediction": prediction, "confidence": confidence, "entropy": entropy}),
        "posterior": pd.DataFrame(probabilities, columns=names),
        "taxonomy": pd.concat([coarse, fine])[["node", "parent", "level", "n_cells", "confidence"]],
        "new_types": pd.DataFrame(new_types),
    }
    for name in ("annotation", "posterior"):
        tables[name].insert(0, "cell", cells["cell"])
    for name, table in tables.items():
        table.to_csv(run / "tables" / f"{name}.csv", index=False)
    cells.assign(label=np.where(np.arange(len(cells)) % 3 == 0, cells["label"], "")).to_csv(
        run / "tables/cells.csv", index=False
    )
    model = json.loads((run / "model.json").read_text())
    model |= {"class": "SCANVI", "calibration": calibration_json(names, declined)}
    (run / "model.json").write_text(json.dumps(model))
    return run


def calibration_json(names: list[str], declined: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"temperature": 1.0, "labels": "held-out cells", "n_cells": 12, "error_before": None}
    found |= {"error_after": None, "declined": "12 labelled cells are too few.", "reliability": None, "confusion": None}
    if declined:
        return found
    bins = [["raw", 0.0, 0.5, 0, None, None], ["raw", 0.5, 1.0, 80, 0.9, 0.7], ["calibrated", 0.0, 0.5, 10, 0.4, 0.5]]
    bins.append(["calibrated", 0.5, 1.0, 70, 0.8, 0.78])
    columns = ["probabilities", "lower", "upper", "n_cells", "confidence", "accuracy"]
    counts = (np.full((len(names), len(names)), 1) + 16 * np.eye(len(names), dtype=int)).tolist()
    found |= {"temperature": 1.7, "n_cells": 80, "error_before": 0.2, "error_after": 0.03, "declined": None}
    found["reliability"] = {"index": list(range(4)), "columns": columns, "data": bins}
    found["confusion"] = {"index": names, "columns": names, "data": counts}
    return found


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Fabricate a run over simulated counts in a new folder; keyword arguments replace names or go to the recipe."""
    adata = simulate_counts(120, 80, n_programs=4, n_types=4, n_batches=2, seed=1)
    counts = adata.X.toarray()
    defaults = {
        "cells": list(adata.obs_names),
        "genes": list(adata.var_names),
        "batch": list(adata.obs["batch"].astype(str)),
        "label": list(adata.obs["cell_type"].astype(str)),
        "n_factors": 2,
    }

    def make(*, n_cells: int = 120, **changes: Any) -> Path:
        names = defaults | changes
        names |= {key: names[key][:n_cells] for key in ("cells", "batch", "label") if names[key] is not None}
        return fabricate_run(tmp_path_factory.mktemp("runs") / "run", counts[:n_cells], **names)

    return make


@pytest.fixture(scope="session")
def annotated_run(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Fabricate a run of a model that predicts labels; keyword arguments go to the recipe."""
    return lambda **arguments: annotate_run(make_run(), **arguments)
