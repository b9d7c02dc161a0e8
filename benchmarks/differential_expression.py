"""Differential expression against peers: simulated trees, false discoveries, blood cells of other donors, end states.

    python benchmarks/differential_expression.py                        # everything; resumes from its CSV files
    python benchmarks/differential_expression.py --part tree --runs 1 --flips 0 --max-epochs 20     # to try it

- tree: 1,500 cells of a simulated tree of 5 types in 2 batches, of which the first has labels; the other's are found by
  10 neighbours in the latent space, by scANVI with its own model. The farthest and the nearest pair of types, with 0,
  10, 20 and 30 % of their labels exchanged. Spearman and Kendall correlation of effect (log fold change) and evidence
  (statistic or log odds) with the true log fold change; the better of the two counts.
- fdr: the same simulation with 20 % of the genes differing, all labels known: false discovery proportion (genes that
  do not differ among those called at 0.05) and power (share of the differing genes that is called).
- kang: blood cells of 4 donors of kang_pbmc_12k, against pseudobulk of the other 4: AUROC for genes that change there
  twofold and in the same direction in all donors, Kendall correlation with the log fold change there.
- continuous: cells along the branches of a tree, of which those at its ends have labels: does the probability of an end
  fall with the distance to it?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from annotation_tasks import UNKNOWN
from differential_expression_methods import METHODS, OURS, Result, Task, our_scvi
from peer_scvi_tools import load
from rows import append, done
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import roc_auc_score

import lucidcell as lc
from lucidcell.cells.truth import path_distance, true_log_fold_change

N_CELLS, N_GENES = 1500, 500
KANG_PAIRS = [("B cells", "CD14+ Monocytes"), ("CD4 T cells", "CD8 T cells"), ("NK cells", "CD8 T cells")]
RUNS = {"tree": 5, "fdr": 50, "kang": 2, "continuous": 5}
KEYS = {
    "tree": ["run", "pair", "flipped", "method"],
    "fdr": ["run", "method"],
    "kang": ["run", "pair", "method"],
    "continuous": ["run", "end"],
}
FDR_METHODS = {
    f"{OURS}, delta 0.25": our_scvi(),
    f"{OURS}, delta 0": our_scvi(delta=0.0),
    f"{OURS}, posterior of z alone": METHODS[f"{OURS}, posterior of z alone"],
    "scanpy t-test": METHODS["scanpy t-test"],
    "scanpy Wilcoxon": METHODS["scanpy Wilcoxon"],
    "NB regression": METHODS["NB regression"],
}


def results(part: str) -> Path:
    return Path(__file__).with_name(f"differential_expression_{part}.csv")


def missing(part: str, about: dict[str, object], methods: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Methods that have no row yet, with the beginning of their row."""
    have = done(results(part), KEYS[part])
    for name in methods:
        row = about | {"method": name}
        if tuple(str(row[key]) for key in KEYS[part]) not in have:
            yield name, row


def agreement(result: Result, truth: np.ndarray) -> dict[str, float]:
    row = {}
    for name, values in (("effect", result.effect), ("evidence", result.evidence)):
        row[f"spearman_{name}"] = float(spearmanr(values, truth).statistic)
        row[f"kendall_{name}"] = float(kendalltau(values, truth).statistic)
    return row


# --- parts --------------------------------------------------------------------------------------------------------


def tree(run: int, flips: list[int], methods: list[str], max_epochs: int | None) -> None:
    adata = lc.simulate_tree(N_CELLS, N_GENES, seed=run)
    true = adata.obs["cell_type"].astype(str).to_numpy()
    distance = path_distance(adata).groupby(true).first()[np.unique(true)]
    pairs = sorted(combinations(np.unique(true), 2), key=lambda pair: distance.loc[pair])
    known = (adata.obs["batch"] == adata.obs["batch"].cat.categories[0]).to_numpy()
    shared = Task(adata, "batch", true, run, max_epochs)
    for which, (first, second) in (("far", pairs[-1]), ("near", pairs[0])):
        truth = true_log_fold_change(adata, first, second).to_numpy()
        for flipped in flips:
            labels = np.where(known, exchanged(true, known, first, second, flipped / 100, run), UNKNOWN)
            task = Task(adata, "batch", labels, run, max_epochs)
            for name, row in missing("tree", {"run": run, "pair": which, "flipped": flipped}, methods):
                task.__dict__["scvi"] = shared.scvi  # neither model sees labels
                if name.startswith("scvi-tools"):
                    task.__dict__["peer_scvi"] = shared.peer_scvi
                append(results("tree"), [row | agreement(METHODS[name](task, first, second), truth)])


def exchanged(true: np.ndarray, known: np.ndarray, first: str, second: str, share: float, seed: int) -> np.ndarray:
    """Labels of which a share of the known ones of two types are exchanged."""
    rng, labels = np.random.default_rng(seed), true.astype(object)
    for one, other in ((first, second), (second, first)):
        cells = np.flatnonzero(known & (true == one))
        labels[rng.choice(cells, round(share * len(cells)), replace=False)] = other
    return labels


def fdr(run: int, flips: list[int], methods: list[str], max_epochs: int | None) -> None:
    adata = lc.simulate_tree(N_CELLS, N_GENES, de_fraction=0.2, seed=1000 + run)
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    first, second, *_ = np.unique(labels)
    truth = true_log_fold_change(adata, first, second).abs().to_numpy()
    differs = adata.var["differential"].to_numpy()
    task = Task(adata, "batch", labels.astype(object), run, max_epochs)
    for name, row in missing("fdr", {"run": run}, list(FDR_METHODS)):
        found = FDR_METHODS[name](task, first, second).found
        row |= {
            "found": int(found.sum()),
            "fdp": float((found & ~differs).sum() / max(found.sum(), 1)),
            "fdp_small": float((found & (truth <= 0.25)).sum() / max(found.sum(), 1)),
            "power": float((found & differs).sum() / differs.sum()),
        }
        append(results("fdr"), [row])


def kang(run: int, flips: list[int], methods: list[str], max_epochs: int | None) -> None:
    adata = load("kang_pbmc_12k")
    donors = np.unique(adata.obs["donor"].astype(str))
    chosen = np.random.default_rng(run).permutation(donors)[:4]
    mine = adata.obs["donor"].astype(str).isin(chosen).to_numpy()
    discovery, others = adata[mine].copy(), adata[~mine].copy()
    discovery.obs["donor"] = discovery.obs["donor"].astype(str)
    task = Task(discovery, "donor", discovery.obs["cell_type"].astype(str).to_numpy(object), run, max_epochs)
    for first, second in KANG_PAIRS:
        for name, row in missing("kang", {"run": run, "pair": f"{first} / {second}"}, methods):
            change, differs = pseudobulk(others, first, second)
            result = METHODS[name](task, first, second)
            row |= {
                "auroc_effect": float(roc_auc_score(differs, np.abs(result.effect))),
                "auroc_evidence": float(roc_auc_score(differs, np.abs(result.evidence))),
                "kendall_effect": float(kendalltau(result.effect, change).statistic),
                "kendall_evidence": float(kendalltau(result.evidence, change).statistic),
            }
            append(results("kang"), [row])


def pseudobulk(adata: ad.AnnData, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over donors of the log2 fold change of summed counts per million, and the genes that differ.

    These change twofold on average, and in the same direction in every donor.
    """
    changes = []
    for donor in np.unique(adata.obs["donor"].astype(str)):
        sums = []
        for name in (first, second):
            cells = (adata.obs["donor"].astype(str) == donor) & (adata.obs["cell_type"].astype(str) == name)
            total = np.asarray(adata[cells.to_numpy()].X.sum(0)).ravel()
            sums.append(np.log2(1 + 1e6 * total / total.sum()))
        changes.append(sums[0] - sums[1])
    mean, signs = np.mean(changes, axis=0), np.sign(changes)
    return mean, (np.abs(mean) > 1) & (np.abs(signs.sum(0)) == len(changes))


def continuous(run: int, flips: list[int], methods: list[str], max_epochs: int | None) -> None:
    adata = lc.simulate_tree(N_CELLS, N_GENES, continuous=True, seed=run)
    nodes = adata.uns["tree"]
    ends = nodes.index[nodes["leaf"]]
    distance = path_distance(adata)[ends]
    near = distance.to_numpy() < 0.1
    labels = np.where(near.any(1), ends.to_numpy(object)[near.argmax(1)], UNKNOWN)
    have = done(results("continuous"), KEYS["continuous"])
    if all((str(run), end) in have for end in ends):
        return
    posterior = Task(adata, "batch", labels, run, max_epochs).scanvi.predict(soft=True)
    between = labels == UNKNOWN
    for end in ends:
        falls = spearmanr(posterior.loc[between, end], distance.loc[between, end]).statistic
        append(results("continuous"), [{"run": run, "end": end, "spearman": float(falls)}])


# --- summary ------------------------------------------------------------------------------------------------------


def summary(part: str) -> str:
    if not results(part).exists():
        return f"{part}: nothing yet"
    table = pd.read_csv(results(part))
    if part == "continuous":
        return f"continuous: mean {table['spearman'].mean():.3f}, largest {table['spearman'].max():.3f}"
    if part == "fdr":
        runs = table.groupby("method", sort=False)
        found = runs[["found", "fdp", "fdp_small", "power"]].mean()
        wide = table.pivot(index="run", columns="method", values="power")
        gain = wide.sub(wide["scanpy t-test"], axis=0)
        found["fdp_limit"] = 0.05 + 2 * runs["fdp"].std() / np.sqrt(runs.size())
        found["power_over_t_test"], found["standard_error"] = gain.mean(), gain.std() / np.sqrt(len(gain))
        return found.round(4).to_string()
    measures = ["spearman", "kendall"] if part == "tree" else ["auroc", "kendall"]
    for name in measures:
        table[name] = table[[f"{name}_effect", f"{name}_evidence"]].max(axis=1)
    over = ["flipped"] if part == "tree" else ["pair"]
    means = table.groupby(["method", *over], sort=False)[measures].mean().unstack()
    if part == "tree" and {0, 30} <= set(table["flipped"]):
        means[("spearman", "lost at 30")] = means[("spearman", 0)] - means[("spearman", 30)]
        means[("kendall", "lost at 30")] = means[("kendall", 0)] - means[("kendall", 30)]
    return means.round(3).to_string()


PARTS = {"tree": tree, "fdr": fdr, "kang": kang, "continuous": continuous}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--first-run", type=int, default=0)
    parser.add_argument("--runs", type=int, help="simulations, or splits of the donors; by default " + str(RUNS))
    parser.add_argument("--flips", type=int, nargs="*", default=[0, 10, 20, 30], help="percent of labels exchanged")
    parser.add_argument("--methods", nargs="*", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--max-epochs", type=int, help="to try the benchmark; models by their defaults otherwise")
    arguments = parser.parse_args()
    for part in arguments.part:
        for run in range(arguments.first_run, arguments.first_run + (arguments.runs or RUNS[part])):
            PARTS[part](run, arguments.flips, arguments.methods, arguments.max_epochs)
    for part in arguments.part:
        print(f"\n{part}\n{summary(part)}")


if __name__ == "__main__":
    main()
