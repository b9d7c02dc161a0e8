"""Integration of pairs of data sets, as in Figures 2 to 4 and Supplementary Table 2 of the scANVI paper.

    python benchmarks/integration.py                                  # everything; resumes from the CSV
    python benchmarks/integration.py --part pairs --pair celseq2_and_10x --method PCA --method CCA --seeds 1

- pairs: entropy of batch mixing and kNN purity over k = 10 to 500, k-means conservation, and the scores of
  `lucidcell.evaluate`, on kang_and_pbmc3k, celseq2_and_10x and v2_and_5prime; 3 seeds of what is random. SCVI of
  each batch alone with another seed shows how much purity training again costs by itself.
- composition: kang and pbmc3k with types taken away; mixing (k = 50) of the cells that should mix and of those that
  should not, and purity (k = 30); one seed.
- trajectory: simulated branches, one batch without their ends; mixing along 20 bins of the complete batch; the true
  factors as a reference; 3 seeds.

All numbers go to integration.csv, a row each; figures to integration_*.png. Mixing is balanced and divided by log 2.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from integration_figures import draw
from integration_tasks import METHODS, N_BINS, PAIRS, TRUTH, Before, Stress, pair, scanvi, stresses, trajectory
from rows import missing

import lucidcell as lc
from lucidcell import metrics

OUT = Path(__file__).with_name("integration.csv")
KEYS = ["part", "data", "method", "seed"]
AGAIN = "SCVI alone, another seed"  # purity without any integration: what training again does by itself
SEEDED = ("SCVI", "SCANVI, first labelled", "SCANVI, second labelled", "Harmony", "Scanorama")
IN_COMPOSITION = ("SCVI", "SCANVI, second labelled", "PCA", "MNN", "Harmony", "Scanorama", "CCA")


def row(what: str, value: float, where: str = "", k: int = 0) -> dict:
    return {"what": what, "where": where, "k": k, "value": float(value)}


def score_pair(adata: ad.AnnData, after: np.ndarray, before: np.ndarray) -> Iterator[dict]:
    batch, labels = adata.obs["batch"], adata.obs["cell_type"]
    for k, mixing in metrics.mixing_curve(after, batch, normalize=True).itertuples(index=False):
        yield row("mixing", mixing, k=k)
    for k, purity in metrics.purity_curve(before, after, batch).itertuples(index=False):
        yield row("purity", purity, k=k)
    yield row("kmeans_conservation", metrics.kmeans_conservation(before, after, batch, labels))
    table = lc.evaluate(adata, {"after": after}, batch_key="batch", labels_key="cell_type")
    for name, value in table.loc["after"].items():
        yield row(name, value)


def score_composition(stress: Stress, after: np.ndarray, before: np.ndarray) -> Iterator[dict]:
    """Means over the cells of each type, so that types weigh the same."""
    batch, labels = stress.adata.obs["batch"].to_numpy(), stress.adata.obs["cell_type"].to_numpy()
    mixing = metrics.batch_mixing_per_cell(after, batch, k=50, normalize=True)
    purity = metrics.purity_per_cell(before, after, batch, k=30)
    for kind, cells in (("unique", stress.unique), ("shared", ~stress.unique)):
        for name in np.unique(labels[cells]):
            rows = cells & (labels == name)
            yield row(f"mixing of {kind}", mixing[rows].mean(), where=name, k=50)
            yield row(f"purity of {kind}", purity[rows].mean(), where=name, k=30)


def score_trajectory(adata: ad.AnnData, after: np.ndarray) -> Iterator[dict]:
    batch, position = adata.obs["batch"].to_numpy(), adata.obs["position"].to_numpy()
    mixing = metrics.batch_mixing_per_cell(after, batch, k=50, normalize=True)
    order = np.flatnonzero(batch == "long")[np.argsort(position[batch == "long"])]
    for cells in np.array_split(order, N_BINS):
        yield row("mixing", mixing[cells].mean(), where=f"{position[cells].mean():.3f}", k=50)
    outside = np.abs(position) > 0.7
    yield row("mixing of the ends", mixing[outside].mean(), k=50)
    yield row("mixing of the middle", mixing[np.abs(position) < 0.5].mean(), k=50)


def seeds_of(method: str, n_seeds: int) -> range:
    return range(n_seeds if method in SEEDED else 1)


def run_pairs(names: list[str], methods: list[str], n_seeds: int) -> None:
    for name in names:
        todo = missing(
            OUT, KEYS, [("pairs", name, method, seed) for method in methods for seed in seeds_of(method, n_seeds)]
        )
        if not todo:
            continue
        adata = pair(name)
        before = Before(adata)
        for key in todo:
            begin = time.perf_counter()
            after = METHODS[key[2]](adata, key[3])
            seconds = time.perf_counter() - begin
            keep(key, [*score_pair(adata, after, before.of(key[2], key[3])), row("seconds", seconds)])
        for key in missing(OUT, KEYS, [("pairs", name, AGAIN, 0)] if n_seeds > 1 and "SCVI" in methods else []):
            curve = metrics.purity_curve(before.of("SCVI", 0), before.of("SCVI", 1), adata.obs["batch"])
            keep(key, [row("purity", purity, k=k) for k, purity in curve.itertuples(index=False)])


def run_composition(methods: list[str]) -> None:
    for stress in stresses():
        data = f"{stress.scenario}: {stress.types}"
        todo = missing(OUT, KEYS, [("composition", data, method, 0) for method in methods if method in IN_COMPOSITION])
        before = Before(stress.adata)
        n_types = stress.adata.obs["cell_type"].nunique()
        for key in todo:
            if key[2].startswith("SCANVI"):
                after = scanvi(stress.adata, "pbmc3k", n_types=n_types)
            else:
                after = METHODS[key[2]](stress.adata, 0)
            keep(key, score_composition(stress, after, before.of(key[2], 0)))


def run_trajectory(methods: list[str], n_seeds: int) -> None:
    """A seed is a simulation."""
    for seed in range(n_seeds):
        todo = missing(OUT, KEYS, [("trajectory", "two branches", method, seed) for method in (TRUTH, *methods)])
        if not todo:
            continue
        adata = trajectory(seed=seed)
        before = Before(adata)
        for key in todo:
            rows, after = [], adata.obsm["factors"]
            if key[2] != TRUTH:
                after = METHODS[key[2]](adata, seed)
                curve = metrics.purity_curve(before.of(key[2], seed), after, adata.obs["batch"])
                rows = [row("purity", purity, k=k) for k, purity in curve.itertuples(index=False)]
            keep(key, [*rows, *score_trajectory(adata, after)])


def keep(key: tuple, rows: Iterator[dict] | list[dict]) -> None:
    """All rows of a run at once, so that none is half there."""
    found = [dict(zip(KEYS, key, strict=True)) | one for one in rows]
    pd.DataFrame(found).to_csv(OUT, mode="a", header=not OUT.exists(), index=False, float_format="%.5g")
    print(*key, "done", flush=True)


def show() -> None:
    """The tables of the README."""
    table = pd.read_csv(OUT, keep_default_na=False)
    pairs = table[table["part"] == "pairs"]
    chosen = pairs[(pairs["k"].isin([0, 50])) & ~pairs["what"].isin(["seconds"])]
    for name, rows in chosen.groupby("data"):
        print(f"\n{name} (mixing and purity at k = 50)")
        print(rows.pivot_table("value", "method", "what").round(3).to_string())
    composition = table[table["part"] == "composition"]
    if len(composition):
        scenario = composition["data"].str.split(":").str[0].rename("scenario")
        print("\ncomposition, means over types")
        print(composition.pivot_table("value", [scenario, "method"], "what").round(3).to_string())
    along = table[(table["part"] == "trajectory") & (table["what"].str.startswith("mixing of"))]
    if len(along):
        print("\ntrajectory")
        print(along.pivot_table("value", "method", "what").round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", action="append", choices=["pairs", "composition", "trajectory"])
    parser.add_argument("--pair", action="append", choices=PAIRS)
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    parts, methods = given.part or ["pairs", "composition", "trajectory"], given.method or list(METHODS)
    if "pairs" in parts:
        run_pairs(given.pair or list(PAIRS), methods, given.seeds)
    if "composition" in parts:
        run_composition(methods)
    if "trajectory" in parts:
        run_trajectory(methods, given.seeds)
    show()
    draw(OUT)


if __name__ == "__main__":
    main()
