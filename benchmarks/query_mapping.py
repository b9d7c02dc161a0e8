"""Query mapping on kang_pbmc_12k: 6 donors as reference, 2 as query, against training on all 8 together.

    python benchmarks/query_mapping.py

15-NN label accuracy of the query's cells, neighbours among the reference's cells, in percent: in the latent space of
joint training, and in the reference's after `map_query`, also with 30 % of the genes missing from the query.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from peer_scvi_tools import load
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc

OUT = Path(__file__).with_name("query_mapping.csv")


def accuracy(reference: np.ndarray, labels: np.ndarray, query: np.ndarray, truth: np.ndarray) -> float:
    return float((KNeighborsClassifier(15).fit(reference, labels).predict(query) == truth).mean() * 100)


def one_split(seed: int) -> dict[str, float]:
    adata = load("kang_pbmc_12k")
    rng = np.random.default_rng(seed)
    donors = adata.obs["donor"].astype(str)
    held = rng.choice(np.unique(donors), 2, replace=False)
    is_query = donors.isin(held).to_numpy()
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    reference, query = adata[~is_query].copy(), adata[is_query].copy()

    joint = lc.SCVI(adata, batch_key="donor")
    joint.train(seed=seed, progress=False)
    together = joint.get_latent_representation()
    model = lc.SCVI(reference, batch_key="donor")
    model.train(seed=seed, progress=False)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    latent = model.get_latent_representation()
    row = {"seed": seed, "n_query": int(is_query.sum())}
    row["joint"] = accuracy(together[~is_query], labels[~is_query], together[is_query], labels[is_query])
    kept = np.sort(rng.choice(adata.n_vars, round(0.7 * adata.n_vars), replace=False))
    for name, cells in (("mapped", query), ("mapped_70_percent_of_genes", query[:, kept].copy())):
        mapped = model.map_query(cells, seed=seed)
        row[name] = accuracy(latent, labels[~is_query], mapped.get_latent_representation(), labels[is_query])
    same = all(np.array_equal(value.numpy(), before[name].numpy()) for name, value in model.module.state_dict().items())
    row["reference_unchanged"] = bool(same and np.array_equal(latent, model.get_latent_representation()))
    return row


def main() -> None:
    rows = [one_split(seed) for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            " ".join(
                f"{key}={value:.2f}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
