"""What topics are worth: planted ones found, ten measures on real data, time.

    python benchmarks/topics.py                                  # everything; resumes from topics_*.csv
    python benchmarks/topics.py --table planted --seeds 0 1
    python benchmarks/topics.py --table real --data pbmc3k --models "SCE2TM" "SCETM" --seeds 0

- planted: 1,500 cells, 1,000 genes, 30 topics of 25 genes each over a common background, a few topics in a cell.
  Correlation of the topics found with the planted log lifts, after the best matching; diversity of the ten best genes.
- real: the ten measures with the gene sets of the species, ranking by signal (loadings times the root of the mean
  count), beside the published ranking; Leiden clusters against types, at the best of a sweep of resolutions ("oracle")
  and at resolution 1; accuracy with k-means of as many clusters as types; the same with the roots of the shares in
  place of the latent; seconds and peak memory of a process of its own.
  The model gets half of the genes, of at most 4,000 variable ones; the external view is 50 principal components of the
  other half, or random. "all genes" is without a view and with both halves. Of fewer than 1,500 genes the model gets
  all, and the view is of the same: 100 topics need 1,000 genes to differ in ten each.
- sensitivity: pbmc3k (1,000 genes), 50 topics; neighbours, weight of the entropy and of the transport, one at a time.
  topics_sensitivity.png: genes and topics on one map, setting by setting.
- correlation: Spearman over the rows of real (ranks within a data set and seed) of each measure of topics with each of
  clusters, in roots of shares where there are topics; topics_correlation.png. GSEA is of seed 0 alone.
  topics_comparison.csv: SCE2TM against the others, paired by data set and seed.
- kang: ten topics of kang_pbmc_12k with the largest mean shares: their type of cell, genes, and best gene set.
- corpus: coherence and over-representation of 100 topics with 35,000 gene sets (the human ones, tiled), in a process of
  its own.
- cost: seconds and memory of training at the sizes of the paper's runs, simulated, with as many epochs as theirs (500)
  and with fewer, the default but for the smallest. Quality: held-out negative ELBO at the end, diversity, purity of
  types in topics, and the correlation of the log lifts of topics with the planted programs after matching.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from peer_scvi_tools import DATA
from peer_scvi_tools import load as load_shared
from rows import Rows, append, done, fill
from scipy.optimize import linear_sum_assignment
from scipy.stats import wilcoxon

import lucidcell as lc
from lucidcell.comparators import pca
from lucidcell.metrics import (
    Conventions,
    adjusted_mutual_information,
    adjusted_rand_index,
    best_genes,
    clustering_accuracy,
    interpretability,
    kmeans_clusters,
    leiden_clusters,
    leiden_sweep,
    normalized_mutual_information,
    ora_pairs,
    topic_coherence,
    topic_diversity,
    topic_purity,
)
from lucidcell.report.umap import compute_umap

HERE = Path(__file__).parent
N_TOPICS, FEWEST_TO_HALVE = 100, 1500
GENE_SETS = {
    "human": ["c2.cp.v2024.1.Hs.symbols.gmt", "c2.cgp.v2023.1.Hs.symbols.gmt"],
    "mouse": ["m2.cp.v2023.1.Mm.symbols.gmt"],
}
MOUSE = ("mouse_pancreas_e15", "paul15")
DATA_SETS = ("pbmc3k", "baron_human", "kang_pbmc_12k", "mouse_pancreas_e15", "paul15")
TABLES = ("corpus", "planted", "cost", "sensitivity", "kang", "real", "correlation")
SIZES = [  # cells, epochs, batch
    (457, 100, 128),
    (457, 500, 512),
    (2717, 200, 512),
    (2717, 500, 512),
    (13_316, 42, 512),
    (13_316, 500, 512),
]


def view(**more: Any) -> Callable[[ad.AnnData], Any]:
    return lambda a: lc.SCE2TM(a, n_topics=N_TOPICS, **more)


MODELS: dict[str, Callable[[ad.AnnData], Any]] = {
    "SCE2TM": view(external_key="kept"),
    "SCE2TM, no ECR": view(external_key="kept", ecr_weight=0.0),
    "SCE2TM, no CVE": view(),
    "SCE2TM, concatenated": view(external_key="kept", external_use="concatenate"),
    "SCE2TM, envelope": view(external_key="kept", ecr_grad="envelope"),
    "SCE2TM, counts": view(external_key="kept", target="counts"),
    "SCE2TM, random view": view(external_key="random"),
    "SCE2TM, no CVE, all genes": view(),
    "SCETM": lambda a: lc.SCETM(a, n_topics=N_TOPICS),
    "LDVAE": lambda a: lc.LDVAE(a),
    "SCVI": lambda a: lc.SCVI(a),
    "SIVAE": lambda a: lc.SIVAE(a),
}
ALONE = "external view alone"


# --- planted ----------------------------------------------------------------------------------------------------


def planted(n_topics: int, seed: int, n_cells: int = 1500, n_genes: int = 1000) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    background = rng.gamma(0.5, size=n_genes) + 0.05
    topics = np.tile(background / background.sum(), (n_topics, 1))
    for k in range(n_topics):
        topics[k, rng.choice(n_genes, 25, replace=False)] += rng.dirichlet(np.ones(25))
    topics /= topics.sum(1, keepdims=True)
    theta = rng.dirichlet(np.full(n_topics, 0.05), n_cells)
    counts = rng.poisson((theta @ topics) * rng.lognormal(8, 0.3, (n_cells, 1)))
    adata = ad.AnnData(counts.astype(np.float32), obs=pd.DataFrame(index=[f"c{i}" for i in range(n_cells)]))
    adata.var_names = [f"g{i}" for i in range(n_genes)]
    adata.varm["lift"] = np.log(topics / topics.mean(0)).T
    adata.obsm["theta"] = theta
    return adata


def matched(found: np.ndarray, truth: np.ndarray, two_ends: bool = False) -> float:
    k = found.shape[1]
    correlation = np.corrcoef(found.T, truth.T)[:k, k:]
    if two_ends:
        correlation = np.abs(correlation)
    return float(correlation[linear_sum_assignment(-correlation)].mean())


def nmf(adata: ad.AnnData, k: int, seed: int) -> pd.DataFrame:
    """Log lifts of the components of log-normalised expression."""
    from sklearn.decomposition import NMF

    from lucidcell.comparators.expression import log_normalize

    parts = NMF(k, init="nndsvda", max_iter=500, random_state=seed).fit(log_normalize(adata.X)).components_ + 1e-6
    parts /= parts.sum(1, keepdims=True)
    return pd.DataFrame(np.log(parts / parts.mean(0)).T, adata.var_names, [f"N{i}" for i in range(k)])


def planted_table(seeds: list[int], n_jobs: int, k: int = 30) -> None:
    out = HERE / "topics_planted.csv"
    models = ("SCE2TM", "SCE2TM, counts", "SCE2TM, envelope", "SCE2TM, no ECR", "SCETM", "LDVAE", "NMF")

    def make(seed: int, name: str) -> Rows:
        adata = planted(k, seed)
        start = time.perf_counter()
        if name == "NMF":
            scores = nmf(adata, k, seed)
        else:
            model = {
                "SCE2TM": lambda a: lc.SCE2TM(a, n_topics=k),
                "SCE2TM, counts": lambda a: lc.SCE2TM(a, n_topics=k, target="counts"),
                "SCE2TM, envelope": lambda a: lc.SCE2TM(a, n_topics=k, ecr_grad="envelope"),
                "SCE2TM, no ECR": lambda a: lc.SCE2TM(a, n_topics=k, ecr_weight=0.0),
                "SCETM": lambda a: lc.SCETM(a, n_topics=k),
                "LDVAE": lambda a: lc.LDVAE(a, n_latent=k),
            }[name](adata)
            model.train(seed=seed, progress=False)
            scores = (
                model.get_loadings(rotate="varimax", center=True)
                if name == "LDVAE"
                else model.get_topic_genes(ranking="lift")
            )
        values = scores.to_numpy()
        two_ends = name == "LDVAE"
        row = {"seed": seed, "model": name, "matched_correlation": matched(values, adata.varm["lift"], two_ends)}
        row["diversity"] = topic_diversity(best_genes(scores))
        return {out: [row | {"seconds": round(time.perf_counter() - start)}]}

    fill(out, ["seed", "model"], product(seeds, models), make, n_jobs)


# --- real data --------------------------------------------------------------------------------------------------


def load(name: str, all_genes: bool) -> ad.AnnData:
    """Half of the genes for the model, and principal components of the others as an outside view."""
    adata = load_shared(name)
    adata.var_names_make_unique()
    if adata.n_vars > 4000:
        adata = lc.select_genes(adata, n_top_genes=4000)
    order = np.random.default_rng(0).permutation(adata.n_vars)
    inside = outside = np.arange(adata.n_vars)
    if adata.n_vars >= FEWEST_TO_HALVE:
        inside, outside = np.sort(order[: adata.n_vars // 2]), np.sort(order[adata.n_vars // 2 :])
    chosen = (adata if all_genes else adata[:, inside]).copy()
    chosen.obsm["kept"] = pca(adata[:, outside].X).astype(np.float32)
    chosen.obsm["random"] = np.random.default_rng(1).normal(size=(adata.n_obs, 50)).astype(np.float32)
    return chosen[np.asarray(chosen.X.sum(1)).ravel() > 0].copy()


def one(name: str, model_name: str, seed: int) -> dict[str, Any]:
    """A row, in this process."""
    warnings.filterwarnings("ignore")
    adata = load(name, "all genes" in model_name)
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    if model_name == ALONE:
        return clustering(adata.obsm["kept"], labels, seed)
    start, cpu = time.perf_counter(), time.process_time()
    model = MODELS[model_name](adata)
    model.train(seed=seed, progress=False)
    row: dict[str, Any] = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    z = model.get_latent_representation(rotate=model.readable_rotation)
    topic_model = isinstance(model, lc.SCE2TM | lc.SCETM)
    shares = model.get_topics() if topic_model else z
    scores = model.get_topic_genes() if topic_model else lc.gene_signal(model.readable_loadings(), model.mean_counts())
    sets = [DATA / "gene_sets" / file for file in GENE_SETS["mouse" if name in MOUSE else "human"]]
    found = interpretability(shares, scores, labels=labels, gene_sets=sets, n_permutations=200 if seed == 0 else 0)
    row |= {key: float(value) for key, value in found.summary.items()}
    if topic_model:
        published = interpretability(
            None, model.get_topic_genes(ranking="published"), gene_sets=sets,
            conventions=Conventions(diversity="exclusive"), n_permutations=0,
        ).summary  # fmt: skip
        row |= {f"{key}_published": float(published[key]) for key in ("TC", "TD", "TQ", "ORA_N", "ORA_U", "ORA_Q")}
        row |= clustering(np.sqrt(shares.to_numpy()), labels, seed, "_shares")
    row |= clustering(z, labels, seed)
    return row | {"epochs": len(model.history)}


def clustering(z: np.ndarray, labels: np.ndarray, seed: int, suffix: str = "") -> dict[str, float]:
    sweep = leiden_sweep(z, labels, seed=seed)
    row = {f"{key}_oracle": float(sweep[key].max()) for key in ("ari", "nmi", "ami")}
    clusters = leiden_clusters(z, (1.0,), seed=seed).iloc[:, 0]
    as_many = kmeans_clusters(z, len(set(labels)), seed=seed)
    row |= {
        "ari": adjusted_rand_index(labels, clusters),
        "nmi": normalized_mutual_information(labels, clusters),
        "ami": adjusted_mutual_information(labels, clusters),
        "accuracy": clustering_accuracy(labels, as_many),
        "accuracy_of_types": accuracy_of_types(labels, as_many),
    }
    return {f"{key}{suffix}": value for key, value in row.items()}


def accuracy_of_types(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Mean over types of the share of a type's cells that are in the cluster it is matched with."""
    counts = pd.crosstab(labels, clusters).to_numpy()
    found = np.zeros(len(counts))
    rows, columns = linear_sum_assignment(-counts)
    found[rows] = counts[rows, columns] / counts[rows].sum(1)
    return float(found.mean())


def real_table(data: list[str], models: list[str], seeds: list[int], n_jobs: int) -> None:
    out = HERE / "topics_real.csv"
    file = str(Path(__file__).resolve())
    halved = {name for name in data if load_shared(name).n_vars >= FEWEST_TO_HALVE}

    def make(seed: int, name: str, model: str) -> Rows:
        command = [sys.executable, file, "--one", name, model, str(seed)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {out: [{"data": name, "model": model, "seed": seed} | json.loads(printed.splitlines()[-1])]}

    wanted = ((s, d, m) for s, d, m in product(seeds, data, models) if "all genes" not in m or d in halved)
    fill(out, ["seed", "data", "model"], wanted, make, n_jobs)  # of few genes, all genes are the same as no view


# --- sensitivity ------------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"n_neighbors={k}": {"n_neighbors": k} for k in (5, 50)},
    **{f"reg_weight={alpha:g}": {"reg_weight": alpha} for alpha in (0.0, 1.0, 20.0)},
    **{f"ecr_weight={weight:g}": {"ecr_weight": weight} for weight in (0.0, 10.0, 1000.0)},
}


def sensitivity_table() -> None:
    out, sets = HERE / "topics_sensitivity.csv", [DATA / "gene_sets" / file for file in GENE_SETS["human"]]
    for name, setting in SETTINGS.items():
        if (name,) in done(out, ["setting"]):
            continue
        adata = load("pbmc3k", False)
        labels = adata.obs["cell_type"].astype(str).to_numpy()
        model = lc.SCE2TM(adata, external_key="kept", n_topics=50, **setting)
        model.train(seed=0, progress=False)
        published = model.get_topic_genes(ranking="published")
        found = interpretability(
            model.get_topics(), model.get_topic_genes(), labels=labels, gene_sets=sets, n_permutations=0
        ).summary
        row = {"setting": name} | {key: float(found[key]) for key in ("TC", "TD", "TQ", "IP", "used_topics", "ORA_N")}
        row["TD_published"] = topic_diversity(best_genes(published), kind="exclusive")
        row |= clustering(np.sqrt(model.get_topics().to_numpy()), labels, 0, "_shares")
        append(out, [row])
        points = model.tables()["points"]
        xy = compute_umap(points.iloc[:, 2:].to_numpy())
        place = points[["name", "kind"]].assign(setting=name, umap1=xy[:, 0], umap2=xy[:, 1])
        append(HERE / "topics_sensitivity_map.csv", place.to_dict("records"))
    sensitivity_maps()


def sensitivity_maps() -> None:
    import matplotlib.pyplot as plt

    maps = dict(list(pd.read_csv(HERE / "topics_sensitivity_map.csv").groupby("setting", sort=False)))
    with lc.plots.style():
        figure, axes = plt.subplots(3, 3, figsize=(11, 11.5), layout="constrained")
        for ax, (name, table) in zip(axes.flat, maps.items(), strict=True):
            places = pd.DataFrame(table[["umap1", "umap2"]].to_numpy(), table["name"], ["UMAP 1", "UMAP 2"])
            topic = (table["kind"] == "topic").to_numpy()
            lc.plots.topic_map(places[~topic], places[topic], ax=ax)
            ax.set_title(name, pad=22)
        figure.savefig(HERE / "topics_sensitivity.png", dpi=110)


# --- correlation of measures ------------------------------------------------------------------------------------

OF_TOPICS = ("TC", "TD", "TQ", "IP", "ORA_N", "ORA_U", "ORA_Q", "GSEA_N", "GSEA_U", "GSEA_Q")
OF_CLUSTERS = ("ari", "nmi", "accuracy", "ari_oracle", "nmi_oracle")


def correlation_table() -> None:
    rows = pd.read_csv(HERE / "topics_real.csv")
    rows = rows[rows["TC"].notna()]
    for key in OF_CLUSTERS:
        rows[key] = rows[f"{key}_shares"].fillna(rows[key])
    ranks = rows.groupby(["data", "seed"])[[*OF_TOPICS, *OF_CLUSTERS]].rank(pct=True)
    table = ranks.corr().loc[list(OF_TOPICS), list(OF_CLUSTERS)]
    table.to_csv(HERE / "topics_correlation.csv", float_format="%.3f")
    ax = lc.plots.heatmap(
        table, color_label=f"rank correlation, {len(rows)} fits", row_label="topics", column_label="clusters"
    )
    ax.figure.savefig(HERE / "topics_correlation.png", dpi=120)
    print(table.round(2))
    comparison_table(rows)


def comparison_table(rows: pd.DataFrame) -> None:
    """SCE2TM against each other model, paired by data set and seed: mean difference and Wilcoxon signed-rank p."""
    ours, found = rows[rows["model"] == "SCE2TM"].set_index(["data", "seed"]), []
    measures = (
        "TC",
        "TD",
        "TQ",
        "IP",
        "IP_ami",
        "ORA_Q",
        "GSEA_Q",
        "ari_oracle",
        "nmi_oracle",
        "ari",
        "nmi",
        "accuracy",
    )
    for name, theirs in rows[rows["model"] != "SCE2TM"].groupby("model", sort=False):
        both = ours.join(theirs.set_index(["data", "seed"]), rsuffix="_other", how="inner")
        for key in measures:
            differences = (both[key] - both[f"{key}_other"]).dropna()
            if len(differences) and (differences != 0).any():
                row = {"than": name, "measure": key, "pairs": len(differences), "difference": differences.mean()}
                row |= {"higher_in": int((differences > 0).sum()), "p_value": wilcoxon(differences).pvalue}
                found.append(row)
    pd.DataFrame(found).to_csv(HERE / "topics_comparison.csv", index=False, float_format="%.4g")


# --- topics of kang_pbmc_12k ------------------------------------------------------------------------------------


def kang_table() -> None:
    adata = load_shared("kang_pbmc_12k")
    model = lc.SCE2TM(adata, n_topics=50)
    model.train(seed=0, progress=False)
    shares, genes = model.get_topics(), model.get_topic_genes()
    chosen = list(shares.mean().nlargest(10).index)
    by_type = shares.groupby(adata.obs["cell_type"].astype(str).to_numpy()).mean()
    terms = []
    for file in ("human_hallmark_v2025.gmt", "c2.cp.v2024.1.Hs.symbols.gmt"):
        terms.append(lc.gsea(genes[chosen], DATA / "gene_sets" / file, n_permutations=1000))
    found = pd.concat(terms)
    rows = []
    for topic in chosen:
        risen = found[(found["factor"] == topic) & (found["nes"] > 0)].nsmallest(40, "q_value").nlargest(3, "nes")
        first = by_type[topic].nlargest(2)
        rows.append(
            {
                "topic": topic,
                "mean_share": shares[topic].mean(),
                "types": ", ".join(f"{one} {value:.2f}" for one, value in first.items()),
                "genes": " ".join(genes[topic].nlargest(8).index),
                "gene_sets": "; ".join(f"{one.term} (q {one.q_value:.2g})" for one in risen.itertuples()),
            }
        )
    pd.DataFrame(rows).to_csv(HERE / "topics_kang.csv", index=False, float_format="%.3f")
    print(pd.DataFrame(rows).to_string())


# --- cost -------------------------------------------------------------------------------------------------------


def cost(n_cells: int, n_epochs: int, batch_size: int) -> dict[str, float]:
    warnings.filterwarnings("ignore")
    adata = lc.simulate_counts(n_cells, 5000, n_programs=20, n_types=10, seed=0)
    adata.obsm["view"] = pca(adata.X).astype(np.float32)
    model = lc.SCE2TM(adata, external_key="view", n_topics=N_TOPICS)
    start, cpu = time.perf_counter(), time.process_time()
    model.train(n_epochs, batch_size=batch_size, early_stopping=False, progress=False)
    row = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    assert model.record is not None
    row["threads"] = model.record.settings.num_threads
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row["elbo"] = float(model.history["validation_negative_elbo"].iloc[-1])
    row["diversity"] = topic_diversity(best_genes(model.get_topic_genes()))
    row["purity"] = topic_purity(model.get_topics(), adata.obs["cell_type"])["IP"]
    lifts = model.get_topic_genes(ranking="lift").to_numpy()
    return row | {"programs": matched(lifts, adata.varm["programs"])}


def cost_table() -> None:
    out = HERE / "topics_cost.csv"
    keys = ["cells", "epochs", "batch"]

    def make(*size: int) -> Rows:
        command = [sys.executable, __file__, "--size", *map(str, size)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {out: [dict(zip(keys, size, strict=True)) | json.loads(printed.splitlines()[-1])]}

    fill(out, keys, SIZES, make, n_jobs=1)


def corpus() -> dict[str, float]:
    sets = {}
    for file in ("c2.cp.v2024.1.Hs.symbols.gmt", "c2.cgp.v2023.1.Hs.symbols.gmt", "c8.all.v7.5.1.symbols.gmt"):
        sets |= lc.read_gmt(DATA / "gene_sets" / file)
    names, tiled = list(sets), {}
    while len(tiled) < 35_000:
        name = names[len(tiled) % len(names)]
        tiled[f"{name} {len(tiled)}"] = sets[name]
    genes = sorted({gene for of_set in sets.values() for gene in of_set})
    rng = np.random.default_rng(0)
    chosen = rng.choice(genes, 5000, replace=False)
    top = {f"T{k + 1}": list(rng.choice(chosen, 10, replace=False)) for k in range(100)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    topic_coherence(top, tiled)
    coherent = time.perf_counter()
    ora_pairs(top, list(chosen), tiled)
    row = {"sets": len(tiled), "coherence_seconds": coherent - start, "ora_seconds": time.perf_counter() - coherent}
    return row | {"more_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--models", nargs="+", default=[*MODELS, ALONE])
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--one", nargs=3, metavar=("DATA", "MODEL", "SEED"), help="a row of real, in this process")
    parser.add_argument("--corpus", action="store_true", help="the row of corpus, in this process")
    parser.add_argument(
        "--size", nargs=3, type=int, metavar=("CELLS", "EPOCHS", "BATCH"), help="a row of cost, in this process"
    )
    parser.add_argument("--n-jobs", type=int, default=1, help="fits side by side, of planted and real")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], given.one[1], int(given.one[2]))))
        return
    if given.size:
        print(json.dumps(cost(*given.size)))
        return
    if given.corpus:
        print(json.dumps(corpus()))
        return
    warnings.filterwarnings("ignore")
    if "corpus" in given.table:
        print(subprocess.run([sys.executable, __file__, "--corpus"], check=True, capture_output=True, text=True).stdout)
    if "planted" in given.table:
        planted_table(given.seeds or [0, 1, 2, 3, 4], given.n_jobs)
    if "cost" in given.table:
        cost_table()
    if "sensitivity" in given.table:
        sensitivity_table()
    if "kang" in given.table:
        kang_table()
    if "real" in given.table:
        real_table(given.data, given.models, given.seeds or [0, 1, 2], given.n_jobs)
    if "correlation" in given.table:
        correlation_table()


if __name__ == "__main__":
    main()
