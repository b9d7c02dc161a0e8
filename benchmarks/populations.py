"""Networks of populations: planted rewiring, no effect at all, and two real comparisons of donors.

    python benchmarks/populations.py                               # everything; resumes from populations*.csv
    python benchmarks/populations.py --table simulated --seeds 0 1

- simulated: 20 donors of 200 cells and 200 genes, a bin for each; the coupling of one module of 20 genes depends on
  the phenotype (effect 1), means do not. AUROC of the module's genes by |effect| of `associate`, for a siVAE per bin,
  mean expression, and centrality by PCA of a donor's cells; with effect 0 the p-values of all genes against uniform.
- donors: ulv_donors (severe against mild, one or two bins of 100 cells) and pig_airway (knock-out against wild type
  within each cell type, one bin of 80 cells for each donor), 300 variable genes: permutation test of separation,
  genes, Hallmark sets and edges with FDR, and what so few donors can show at all.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from peer_scvi_tools import DATA
from peer_scvi_tools import load as load_shared
from rows import append, done
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

import lucidcell as lc
from lucidcell.comparators.expression import log_normalize
from lucidcell.errors import DataError
from lucidcell.readouts.centrality import degree_centrality
from lucidcell.readouts.population_results import PopulationNetworks
from lucidcell.readouts.population_tests import as_phenotype, rank_test

HERE = Path(__file__).parent
N_GENES = 300
FITS: dict[str, Any] = {"model_arguments": {"n_hidden": (128, 64)}, "progress": False}  # small bins, small networks
DONORS = {
    "ulv_donors": {"by": "donor", "phenotype": "phenotype", "bin_size": 100, "n_bins_max": 2},
    "pig_airway": {"by": "donor", "phenotype": "condition", "bin_size": 80, "n_bins_max": 1},
}


def pca_centrality(adata: ad.AnnData, networks: PopulationNetworks, n_components: int = 10) -> pd.DataFrame:
    """The same read-out of a plain reconstruction: genes x populations, all cells of a population at once."""
    from sklearn.decomposition import PCA

    found = {}
    for name in networks.networks:
        cells = adata[adata.obs["donor"] == name]
        x = log_normalize(cells.X, "X").toarray()
        x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
        fit = PCA(n_components, random_state=0).fit(x)
        found[name] = degree_centrality(x, fit.inverse_transform(fit.transform(x))).to_numpy()
    return pd.DataFrame(found, adata.var_names)


def simulated(seeds: list[int], effects: list[float]) -> None:
    out = HERE / "populations_simulated.csv"
    finished = done(out, ["effect", "seed"])
    for effect in effects:
        for seed in seeds:
            if (f"{effect:g}", str(seed)) in {(f"{float(e):g}", s) for e, s in finished}:
                continue
            adata = lc.simulate_donors(effect=effect, seed=seed)
            start = time.perf_counter()
            networks = lc.population_networks(adata, phenotype="phenotype", bin_size=200, seed=seed, **FITS)
            seconds = time.perf_counter() - start
            table = networks.associate().set_index("gene").loc[adata.var_names]
            phenotype = as_phenotype(networks.phenotype)
            of_pca = rank_test(pca_centrality(adata, networks)[phenotype.populations].to_numpy(), phenotype)
            rewired, null = adata.var["rewired"].to_numpy(), table["p_value"].dropna()
            row: dict[str, Any] = {"effect": effect, "seed": seed}
            if effect:
                row["auroc"] = roc_auc_score(rewired, table["effect"].abs())
                row["auroc_pca"] = roc_auc_score(rewired, np.abs(of_pca[0]))
                row["auroc_mean_expression"] = roc_auc_score(rewired, table["mean_effect"].abs())
                row["n_significant_in"] = int((table["q_value"][rewired] <= 0.05).sum())
                row["n_significant_out"] = int((table["q_value"][~rewired] <= 0.05).sum())
            else:  # 200 genes of the same fits are not independent: the share below .05 says more than the test
                row["n_significant_out"] = int((table["q_value"] <= 0.05).sum())
                row["share_below_0.05"] = float((null <= 0.05).mean())
                row["uniform_p"] = float(kstest(null, "uniform").pvalue)
            row["separation_p"] = float(networks.separation()["p_value"])
            columns = ["effect", "seed", "auroc", "auroc_pca", "auroc_mean_expression", "n_significant_in"]
            columns += ["n_significant_out", "share_below_0.05", "uniform_p", "separation_p"]
            append(out, [{name: row.get(name, np.nan) for name in columns} | {"seconds": round(seconds)}])


def donors(data: list[str]) -> None:
    out = HERE / "populations.csv"
    hallmarks = {"ulv_donors": "human_hallmark_v2025", "pig_airway": "human_hallmark_v2025"}
    finished = done(out, ["data", "cells"])
    for name in data:
        adata = load_shared(name)
        parts = ["all"] if name == "ulv_donors" else sorted(map(str, adata.obs["cell_type"].unique()))
        for part in parts:
            if (name, part) in finished:
                continue
            cells = adata if part == "all" else adata[adata.obs["cell_type"] == part].copy()
            cells = cells[:, np.asarray((cells.X > 0).sum(0)).ravel() >= 0.05 * cells.n_obs].copy()
            cells = lc.select_genes(cells, n_top_genes=N_GENES)
            start = time.perf_counter()
            networks = lc.population_networks(cells, **DONORS[name], **FITS)
            seconds = time.perf_counter() - start
            try:
                genes, apart = networks.associate(), networks.separation()
            except DataError as error:
                print(name, part, error)
                continue
            sets = networks.enrichment(lc.read_gmt(DATA / "gene_sets" / f"{hallmarks[name]}.gmt"))
            edges = networks.edges()
            row = {
                "data": name, "cells": part, "depth_p": genes.attrs["depth_p_value"],
                "donors": len(networks.networks), "dropped": len(networks.dropped),
                "bins": len(networks.bins), "genes": cells.n_vars,
                "mean_centrality": networks.bins["mean_centrality"].mean(), "separation": apart["statistic"],
                "separation_p": apart["p_value"], "smallest_gene_p": genes["p_value"].min(),
                "possible_p": genes.attrs["smallest_p"], "smallest_gene_q": genes["q_value"].min(),
                "genes_q05": int((genes["q_value"] <= 0.05).sum()), "independent": int(genes["independent"].sum()),
                "means_q05": int((genes["mean_q_value"] <= 0.05).sum()),
                "sets_q05": int((sets["q_value"] <= 0.05).sum()), "sets": len(sets),
                "edges_q05": int((edges["q_value"] <= 0.05).sum()), "edges": len(edges), "seconds": round(seconds),
            }  # fmt: skip
            print(genes.attrs["note"])
            print(
                genes.head(8).to_string(), sets.head(5).to_string(), networks.embedding.round(2).to_string(), sep="\n"
            )
            append(out, [row])


TABLES = ("simulated", "donors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--data", nargs="+", default=list(DONORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--effects", nargs="+", type=float, default=[1.0, 0.0])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if "simulated" in given.table:
        simulated(given.seeds, given.effects)
    if "donors" in given.table:
        donors(given.data)


if __name__ == "__main__":
    main()
