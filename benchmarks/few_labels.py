"""Few labels per type: against peers, with a hierarchy, with coarse labels besides, and from marker genes.

    python benchmarks/few_labels.py                      # everything; resumes from few_labels.csv
    python benchmarks/few_labels.py --part peers --data paul15 --draws 3

Three parts. Weighted accuracy on cells without a label, of types of at least 30 cells; paired draws of the labelled
cells; the summary has means over draws, and the difference of the part's first method to each other one with a 95 %
bootstrap interval over draws.

- peers: 5 and 10 labels a type on paul15, baron_human and kang_pbmc_12k, against 5-NN on either SCVI and on PCA, and
  scvi-tools' SCANVI. All start from the same unlabelled SCVI, ours or theirs.
- hierarchy: 5 labels a leaf on paul15 and on a simulated tree of 265 leaves in 39 groups; q(leaf | z) down the tree,
  flat, and down the tree with 50 more cells of each group labelled by their group alone (these are never scored).
- seeds: pbmc3k with labels from marker genes (`seed_labels`); no draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from annotation_tasks import (
    UNKNOWN,
    DataSet,
    Prediction,
    by_neighbours,
    our_scanvi,
    peer_scanvi,
    scores,
)
from rows import append, done

import lucidcell as lc
from lucidcell.metrics.clustering import kmeans_clusters, leiden_clusters

OUT = Path(__file__).with_name("few_labels.csv")
FEWEST_CELLS = 30
OURS = "lucidcell SCANVI"
GROUP_KEY = {"paul15": "cell_type_coarse", "tree_265": "group"}
MARKERS = {  # genes that textbooks of blood cells name: expressed, not expressed
    "Naive CD4 T": ("CCR7 IL7R LEF1 TCF7 CD3D", "S100A4 CD8A NKG7 LYZ"),
    "Memory CD4 T": ("IL7R S100A4 IL32 LTB CD3D", "CCR7 CD8A NKG7 LYZ"),
    "CD8 T": ("CD8A CD8B GZMK CD3D CCL5", "IL7R LYZ MS4A1 FCGR3A"),
    "NK": ("GNLY NKG7 GZMB PRF1 FCGR3A", "CD3D CD8A LYZ MS4A7"),
    "B": ("MS4A1 CD79A CD79B CD19", "CD3D LYZ NKG7"),
    "CD14+ Mono": ("CD14 LYZ S100A8 S100A9", "FCGR3A MS4A7 CD3D FCER1A"),
    "FCGR3A+ Mono": ("FCGR3A MS4A7 LST1 CDKN1C", "CD14 NKG7 CD3D"),
    "DC": ("FCER1A CST3 CLEC10A CD1C", "CD14 S100A8 CD3D MS4A7"),
    "Platelet": ("PPBP PF4 GNG11", "CD3D MS4A1"),
}
SEEDS = dict.fromkeys(MARKERS, 50) | {"DC": 15, "Platelet": 7}  # about half of the two rare types

Method = Callable[[DataSet, np.ndarray, int], Prediction]
PEERS: dict[str, Method] = {
    OURS: our_scanvi,
    "5-NN on lucidcell SCVI": lambda data, labels, _: by_neighbours(data.our_latent, labels, 5),
    "5-NN on scvi-tools SCVI": lambda data, labels, _: by_neighbours(data.peer_latent, labels, 5),
    "5-NN on PCA": lambda data, labels, _: by_neighbours(data.pcs, labels, 5),
    "scvi-tools SCANVI": peer_scanvi,
}


def draw_labels(truth: np.ndarray, per_type: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a few cells of each type with enough cells, and the other cells of these types."""
    rng = np.random.default_rng(seed)
    labels, scored = np.full(len(truth), UNKNOWN, object), np.zeros(len(truth), bool)
    for name in np.unique(truth):
        cells = np.flatnonzero(truth == name)
        if len(cells) < FEWEST_CELLS or name == UNKNOWN:
            continue
        known = rng.choice(cells, per_type, replace=False)
        scored[cells] = True
        scored[known] = False
        labels[known] = name
    return labels, scored


def groups(data: DataSet) -> np.ndarray:
    return data.adata.obs[GROUP_KEY[data.name]].astype(str).to_numpy()


def with_groups(data: DataSet, labels: np.ndarray, seed: int) -> np.ndarray:
    """The same labels, and 50 more cells (half of a small group) that name the group alone."""
    rng, more, of_cells = np.random.default_rng(seed), labels.copy(), groups(data)
    for name in np.unique(of_cells[labels != UNKNOWN]):
        cells = np.flatnonzero((of_cells == name) & (labels == UNKNOWN))
        more[rng.choice(cells, min(50, len(cells) // 2), replace=False)] = name
    return more


def hierarchical(data: DataSet, labels: np.ndarray, seed: int) -> Prediction:
    """Labels of leaves, under the groups of the leaves that have some."""
    known = labels != UNKNOWN
    return our_scanvi(data, labels, seed, dict(zip(data.truth[known], groups(data)[known], strict=True)))


def with_coarse(data: DataSet, labels: np.ndarray, seed: int) -> Prediction:
    known = labels != UNKNOWN
    parents = dict(zip(data.truth[known], groups(data)[known], strict=True))
    return our_scanvi(data, with_groups(data, labels, seed), seed, parents)


PARTS: dict[str, tuple[list[str], list[int], dict[str, Method]]] = {  # data sets, labels a type, methods
    "peers": (["paul15", "baron_human", "kang_pbmc_12k"], [5, 10], PEERS),
    "hierarchy": (
        ["paul15", "tree_265"],
        [5],
        {"hierarchical": hierarchical, "flat": our_scanvi, "hierarchical, 50 coarse labels more": with_coarse},
    ),
}


def few(part: str, names: list[str] | None, chosen: list[str] | None, draws: range, max_epochs: int | None) -> None:
    usual, sizes, methods = PARTS[part]
    finished = done(OUT, ["part", "data", "labels", "draw", "method"])
    for name in usual if names is None else [name for name in usual if name in names]:
        data = DataSet(name, max_epochs)
        for per_type, draw in product(sizes, draws):
            labels, scored = draw_labels(data.truth, per_type, seed=draw)
            if part == "hierarchy":
                scored &= with_groups(data, labels, draw) == UNKNOWN
            for method, predict in methods.items():
                left_out = chosen is not None and method not in chosen
                if left_out or (part, name, str(per_type), str(draw), method) in finished:
                    continue
                about = {"part": part, "data": name, "labels": per_type, "draw": draw, "method": method}
                append(OUT, [about | scores(data.truth, predict(data, labels, draw), scored)])


def seeds(max_epochs: int | None) -> None:
    """Labels from marker genes on pbmc3k, spread by SCANVI, nearest neighbours, k-means and Leiden."""
    if ("seeds", OURS) in done(OUT, ["part", "method"]):
        return
    data = DataSet("pbmc3k", max_epochs)
    signatures = {name: {"positive": up.split(), "negative": down.split()} for name, (up, down) in MARKERS.items()}
    labels = lc.seed_labels(data.adata, signatures, top=SEEDS, unlabeled_category=UNKNOWN).astype(str).to_numpy()
    known, named = labels != UNKNOWN, data.truth != "unlabelled"
    data.adata = lc.select_genes(data.adata, n_top_genes=2000)
    predictions = {
        "the seeds themselves": Prediction(labels),
        OURS: our_scanvi(data, labels, 0),
        "15-NN on lucidcell SCVI": by_neighbours(data.our_latent, labels, 15),
        "15-NN on PCA": by_neighbours(data.pcs, labels, 15),
        "k-means majority": Prediction(majority(kmeans_clusters(data.our_latent, len(MARKERS)), labels)),
        "Leiden majority": Prediction(majority(leiden_clusters(data.our_latent)[1.0].to_numpy(), labels)),
    }
    about = {"part": "seeds", "data": "pbmc3k", "labels": int(known.sum()), "draw": 0}
    for name, prediction in predictions.items():
        cells = known if name == "the seeds themselves" else ~known
        append(OUT, [about | {"method": name} | scores(data.truth, prediction, named & cells)])


def majority(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each cluster's most frequent label among its known cells; UNKNOWN where it has none."""
    found = np.full(len(labels), UNKNOWN, object)
    for cluster in np.unique(clusters):
        names, counts = np.unique(labels[(clusters == cluster) & (labels != UNKNOWN)], return_counts=True)
        if len(names):
            found[clusters == cluster] = names[counts.argmax()]
    return found


def summary() -> pd.DataFrame:
    """Means over draws, and the first method of each part against the others with intervals over draws."""
    rng, rows = np.random.default_rng(0), []
    table = pd.read_csv(OUT)
    for (part, name, labels), cells in table.groupby(["part", "data", "labels"], sort=False):
        wide = cells.pivot(index="draw", columns="method", values="weighted_accuracy").dropna()
        first = next(iter(PARTS[part][2])) if part in PARTS else ""
        for method in cells["method"].unique():
            row = {"part": part, "data": name, "labels": labels, "method": method, "draws": len(wide)}
            row |= {
                "weighted_accuracy": wide[method].mean(),
                "accuracy": cells["accuracy"][cells["method"] == method].mean(),
            }
            if first in wide and method != first and len(wide) > 1:
                difference = (wide[first] - wide[method]).to_numpy()
                means = rng.choice(difference, (4000, len(difference))).mean(axis=1)
                lower, upper = np.percentile(means, [2.5, 97.5])
                row |= {"first": first, "difference": difference.mean(), "lower": lower, "upper": upper}
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=[*PARTS, "seeds"], choices=[*PARTS, "seeds"])
    parser.add_argument("--data", nargs="*", help="some of the data sets")
    parser.add_argument("--method", nargs="*", help="some of the methods")
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--max-epochs", type=int, help="to try the benchmark; models by their defaults otherwise")
    arguments = parser.parse_args()
    for part in arguments.part:
        if part == "seeds":
            seeds(arguments.max_epochs)
        else:
            draws = range(arguments.first_draw, arguments.first_draw + arguments.draws)
            few(part, arguments.data, arguments.method, draws, arguments.max_epochs)
    print(summary().round(4).to_string(index=False))


if __name__ == "__main__":
    main()
