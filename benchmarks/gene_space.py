"""What siVAE's space of genes says: hubs, cell types, loadings, central genes, neighbours, faithfulness.

    python benchmarks/gene_space.py                                # everything; resumes from gene_space_*.csv
    python benchmarks/gene_space.py --table hubs --seeds 0 1
    python benchmarks/gene_space.py --table latent --data pbmc3k --models "SIVAE" "VAE"

- hubs: the paper's simulation (5 communities of 50 genes, each a hub and its spokes, 50 isolated genes, 5,000 cells).
- latent: 2 factors; kNN balanced accuracy (k = 15) of test cells among training cells, folds stratified by cell type.
  Gamma from 0 to 100, what the gene encoder sees, batch removal, and scikit-learn's digits (`input="values"`).
- loadings: the same fits of siVAE; Spearman correlation of its loadings with attributions and Gene Relevance, median of
  the absolute values over factors.
- centrality (the 500 genes seen in most of at most 5,000 cells): Spearman with the cross-validated ground truth
  (`metrics.true_centrality`).
- truth: the cross-validated ground truth against the paper's own, a network 1-128-512-1024-others for each gene, on 50
  random genes of these 500 (2 folds, 10 epochs).
- neighbors (also topic_neighbors): variance of query genes that 20 neighbours predict out of fold
  (`metrics.neighborhood_prediction`).
- faithfulness: mean over factors, 10 factors, by model and by table of genes x factors.
- markers: loadings of the same fits; whether the genes of C8 marker sets of distinct types lie together: silhouette
  (cosine) of genes that are in one of the sets only, share of a gene's 10 nearest that are of its set, and the same
  share for shuffled sets; p of 999 shuffles.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from peer_scvi_tools import DATA
from peer_scvi_tools import load as load_shared
from rows import Rows, append, done, fill, missing
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, silhouette_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc
from lucidcell.comparators.expression import log_normalize
from lucidcell.comparators.gene_relevance import gene_relevance
from lucidcell.metrics import neighborhood_prediction, true_centrality, true_centrality_mlp
from lucidcell.readouts.centrality import degree_centrality, weight_centrality
from lucidcell.readouts.faithfulness import faithfulness
from lucidcell.readouts.network_inference import infer_network
from lucidcell.readouts.networks import gene_neighbors, network_neighbors

HERE = Path(__file__).parent
N_GENES = 2000
N_CENTRAL, N_CENTRAL_CELLS, N_TREES = 500, 5000, 10  # of the table of centralities, whose trees alone take minutes
BATCH_KEY = {"sc_mixology_3tech": "batch"}
TWO = {"n_latent": 2}
ATTRIBUTIONS = ("saliency", "gradient_x_input", "deeplift", "integrated_gradients", "shapley")
OF_COUNTS = ("SIVAE nb", "LDVAE", "SCETM")
MODELS: dict[str, Callable[..., Any]] = {
    "SIVAE": lambda a, **k: lc.SIVAE(a, **TWO, **k),
    "SIVAE elbo": lambda a, **k: lc.SIVAE(a, feature_kl_weight="elbo", **TWO, **k),
    "SIVAE gamma 0": lambda a, **k: lc.SIVAE(a, gamma=0.0, **TWO, **k),
    "SIVAE gamma 1": lambda a, **k: lc.SIVAE(a, gamma=1.0, **TWO, **k),
    "SIVAE gamma 100": lambda a, **k: lc.SIVAE(a, gamma=100.0, **TWO, **k),
    "SIVAE linear": lambda a, **k: lc.SIVAE(a, linear_decoder=True, **TWO, **k),
    "SIVAE 512 genes a step": lambda a, **k: lc.SIVAE(a, gene_batch_size=512, **TWO, **k),
    "SIVAE nb": lambda a, **k: lc.SIVAE(a, gene_likelihood="nb", **TWO, **k),
    "SIVAE sample": lambda a, **k: lc.SIVAE(a, feature_input="sample", n_feature_inputs=512, **TWO, **k),
    "SIVAE all": lambda a, **k: lc.SIVAE(a, feature_input="all", **TWO, **k),
    "VAE": lambda a, **k: lc.VAE(a, **TWO, **k),
    "VAE linear": lambda a, **k: lc.VAE(a, linear_decoder=True, **TWO, **k),
    "LDVAE": lambda a, **k: lc.LDVAE(a, **TWO, **k),
    "SCETM": lambda a, **k: lc.SCETM(a, n_topics=2, **k),
}


def load(name: str) -> ad.AnnData:
    """Counts of at most 2,000 genes, or the pixels of the digits."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return ad.AnnData(digits.data.astype(np.float32), obs=pd.DataFrame({"cell_type": digits.target.astype(str)}))
    adata = load_shared(name)
    return lc.select_genes(adata, n_top_genes=N_GENES) if adata.n_vars > N_GENES else adata


def values_of(adata: ad.AnnData) -> pd.DataFrame:
    """Log-normalised expression, cells x genes."""
    return pd.DataFrame(log_normalize(adata.X, "X").toarray(), adata.obs_names, adata.var_names)


# --- hubs -------------------------------------------------------------------------------------------------------


def hubs(seeds: list[int], n_jobs: int) -> None:
    out = HERE / "gene_space_hubs.csv"

    def make(seed: int) -> Rows:
        adata = lc.simulate_hubs(seed=seed)
        model = lc.SIVAE(adata, n_latent=10, input="values")
        start = time.perf_counter()
        model.train(seed=seed, progress=False)
        seconds = time.perf_counter() - start
        loadings = model.get_loadings().to_numpy()
        isolated = (adata.var["community"] == "isolated").to_numpy()
        length = np.linalg.norm(loadings, axis=1)
        row: dict[str, Any] = {
            "seed": seed,
            "silhouette": silhouette_score(loadings[~isolated], adata.var["community"][~isolated]),
            "isolated_auroc": roc_auc_score(isolated, -length),
        }
        for how in ("explained", "distance"):
            rank = model.get_degree_centrality(how=how).rank(ascending=False)
            row[f"hubs_in_top_ten_{how}"] = int((rank[adata.var["is_hub"].to_numpy()] <= 10).sum())
        return {out: [row | {"seconds": round(seconds)}]}

    fill(out, ["seed"], ((seed,) for seed in seeds), make, n_jobs)


# --- latent -----------------------------------------------------------------------------------------------------


def latent(data: list[str], models: list[str], folds: list[int], n_jobs: int) -> None:
    out, of_loadings = HERE / "gene_space_latent.csv", HERE / "gene_space_loadings.csv"

    def make(name: str, fold: int, model: str) -> Rows:
        warnings.filterwarnings("ignore")
        values = name == "digits"
        adata = load(name)
        truth = adata.obs["cell_type"].astype(str).to_numpy()
        parts = StratifiedKFold(5, shuffle=True, random_state=0).split(truth, truth)
        train, test = list(parts)[fold]
        keys = {"input": "values"} if values else {}
        if "with batch" in model:
            keys["batch_key"] = BATCH_KEY[name]
        fitted = MODELS[model.removesuffix(" with batch")](adata[train].copy(), **keys)
        start = time.perf_counter()
        fitted.train(seed=fold, progress=False)
        seconds = time.perf_counter() - start
        z, z_test = fitted.get_latent_representation(), fitted.get_latent_representation(adata[test].copy())
        predicted = KNeighborsClassifier(15).fit(z, truth[train]).predict(z_test)
        row = {"data": name, "fold": fold, "model": model}
        row["balanced_accuracy"] = balanced_accuracy_score(truth[test], predicted)
        row["elbo_of_test_cells"] = fitted.get_elbo(adata[test].copy())
        row["batch_silhouette"] = np.nan
        if name in BATCH_KEY:
            technology = adata.obs["technology"].astype(str).to_numpy()[train]
            within = [silhouette_score(z[truth[train] == t], technology[truth[train] == t]) for t in np.unique(truth)]
            row["batch_silhouette"] = float(np.mean(within))
        found = {out: [row | {"seconds": round(seconds)}]}
        if fold == 0 and model in ("SIVAE", "SIVAE nb", "SIVAE linear") and not values:
            found[of_loadings] = agreement(name, model, fitted, adata[train])
        return found

    wanted = (one for one in product(data, folds, models) if one[0] != "digits" or one[2] not in OF_COUNTS)
    fill(out, ["data", "fold", "model"], wanted, make, n_jobs)


# --- loadings ---------------------------------------------------------------------------------------------------


def absolute_spearman(a: pd.DataFrame | np.ndarray, b: pd.DataFrame | np.ndarray) -> float:
    """Median over factors of |rho|."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.median([abs(spearmanr(a[:, d], b[:, d])[0]) for d in range(a.shape[1])]))


def agreement(name: str, model: str, fitted: Any, cells: ad.AnnData) -> list[dict[str, Any]]:
    loadings = fitted.get_loadings()
    cells = cells[:3000]
    expression = log_normalize(cells.X, "X").toarray()
    relevance = gene_relevance(expression, fitted.get_latent_representation(cells.copy()))
    fit = {"data": name, "model": model}
    rows = [fit | {"method": "Gene Relevance", "with_loadings": absolute_spearman(loadings, relevance)}]
    for method, summary in product(ATTRIBUTIONS, ("pca", "pca_centred")):
        of_decoder = fitted.get_attributions(method=method, summary=summary)
        row = fit | {"method": f"{method}, {summary}", "with_loadings": absolute_spearman(loadings, of_decoder)}
        if method != "shapley":  # a walk over all genes, in a few permutations, says little
            of_encoder = fitted.get_attributions(method=method, summary=summary, of="encoder")
            row["encoder_with_loadings"] = absolute_spearman(loadings, of_encoder)
            row["encoder_with_decoder"] = absolute_spearman(of_decoder, of_encoder)
        rows.append(row)
    return rows


# --- centrality and neighbours ----------------------------------------------------------------------------------


def pca_reconstruction(values: pd.DataFrame, n_components: int = 64) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Centred and scaled expression, and what the components keep of it."""
    from sklearn.decomposition import PCA

    spread = values.std(ddof=0).replace(0, 1)
    scaled = (values - values.mean()) / spread
    fit = PCA(n_components, random_state=0).fit(scaled)
    return scaled, pd.DataFrame(fit.inverse_transform(fit.transform(scaled)), values.index, values.columns)


def often_seen(adata: ad.AnnData) -> ad.AnnData:
    """Some cells, and the genes seen in most of them: of variable genes that are hardly seen, all truth is noise."""
    rng = np.random.default_rng(0)
    cells = np.sort(rng.permutation(adata.n_obs)[:N_CENTRAL_CELLS])
    seen = np.asarray((adata.X > 0).sum(0)).ravel()
    return adata[cells, np.sort(np.argsort(-seen, kind="stable")[:N_CENTRAL])].copy()


def centrality(data: list[str]) -> None:
    """Also neighbours: the fits are the same."""
    out, near_out = HERE / "gene_space_centrality.csv", HERE / "gene_space_neighbors.csv"
    for name in data:
        if (name, "SIVAE") in done(out, ["data", "method"]):
            continue
        adata = often_seen(load(name))
        values = values_of(adata)
        truth = true_centrality(values)
        scaled, rebuilt = pca_reconstruction(values)
        model = lc.SIVAE(adata, n_latent=64)
        model.train(progress=False)
        vae = lc.VAE(adata, n_latent=64)
        vae.train(progress=False)
        sampled = model.sample(seed=0)
        central = {
            "mean expression": values.mean(),
            "variance": values.var(),
            "PCA-64": degree_centrality(scaled, rebuilt),
            "PCA-5": degree_centrality(*pca_reconstruction(values, 5)),
            "VAE": vae.gene_table()["explained"],
        }
        neighbors = {"PCA-64 loadings": gene_neighbors(pca_loadings(scaled))}
        for method in ("mrnet", "clr", "aracne", "trees"):
            for source, table in (("", values), (" on samples of SIVAE", sampled)):
                if method == "trees" and source:
                    continue
                weights = infer_network(table, method, n_trees=N_TREES)
                central[method + source] = weight_centrality(weights)
                neighbors[method + source] = network_neighbors(weights)
        neighbors["SIVAE"] = model.get_gene_neighbors()
        neighbors["VAE weights"] = gene_neighbors(pd.DataFrame(vae.module.weight.detach().numpy(), adata.var_names))
        central["SIVAE distance"] = model.get_degree_centrality(how="distance")
        near_rows = [predicted_by(neighbors[method], values, name, method) for method in neighbors]
        central["SIVAE"] = model.get_degree_centrality()
        rhos = {method: spearmanr(one.loc[truth.index], truth)[0] for method, one in central.items()}
        append(near_out, near_rows)
        append(out, [{"data": name, "method": method, "spearman": rho} for method, rho in rhos.items()])


def predicted_by(near: pd.DataFrame, values: pd.DataFrame, name: str, method: str) -> dict[str, Any]:
    queries = list(values.columns.to_series().sample(152, random_state=0))
    score = neighborhood_prediction(values, near, queries, model="ridge")
    return {"data": name, "method": method, "explained": float(np.mean(score))}


def topic_neighbors(data: list[str]) -> None:
    """Neighbours by topic models and the linear one, whose fits are not those of centralities."""
    out = HERE / "gene_space_neighbors.csv"
    for name in data:
        if (name, "LDVAE") in done(out, ["data", "method"]):
            continue
        adata = often_seen(load(name))
        values = values_of(adata)
        rows = []
        for model_name, model in {
            "SCE2TM": lc.SCE2TM(adata, n_topics=64),
            "SCETM": lc.SCETM(adata, n_topics=64),
            "LDVAE": lc.LDVAE(adata, n_latent=64),
        }.items():
            model.train(progress=False)
            tables = {"": model.readable_loadings()}
            if model_name != "LDVAE":
                tables[" points"] = model.get_gene_embedding()
            for suffix, table in tables.items():
                rows.append(predicted_by(gene_neighbors(table), values, name, f"{model_name}{suffix}"))
        append(out, rows)


def truth(data: list[str]) -> None:
    out = HERE / "gene_space_truth.csv"
    for (name,) in missing(out, ["data"], ((one,) for one in data)):
        values = values_of(often_seen(load(name)))
        genes = list(values.columns.to_series().sample(50, random_state=0))
        start = time.perf_counter()
        ours = true_centrality(values, genes=genes)
        seconds = time.perf_counter() - start
        papers = true_centrality_mlp(values, genes, n_folds=2, max_epochs=10)
        row = {"data": name, "genes": len(genes), "spearman": spearmanr(ours, papers)[0]}
        row |= {
            "mean": ours.mean(),
            "mean_by_networks": papers.mean(),
            "largest_difference": (ours - papers).abs().max(),
        }
        append(out, [row | {"seconds": seconds, "seconds_of_networks": time.perf_counter() - start - seconds}])


def pca_loadings(scaled: pd.DataFrame) -> pd.DataFrame:
    from sklearn.decomposition import PCA

    fit = PCA(64, random_state=0).fit(scaled)
    return pd.DataFrame(fit.components_.T * fit.singular_values_ / len(scaled) ** 0.5, scaled.columns)


# --- faithfulness -----------------------------------------------------------------------------------------------

TEN = {
    "SIVAE": lambda a: lc.SIVAE(a),
    "VAE": lambda a: lc.VAE(a),
    "LDVAE": lambda a: lc.LDVAE(a),
    "SCVI": lambda a: lc.SCVI(a),
    "SCE2TM": lambda a: lc.SCE2TM(a, n_topics=10),
    "SCETM": lambda a: lc.SCETM(a, n_topics=10),
}


def faithful(data: list[str]) -> None:
    out = HERE / "gene_space_faithfulness.csv"
    for name, model in missing_models(out, data):
        adata = load(name)
        fitted = TEN[model](adata)
        fitted.train(progress=False)
        markers(name, model, fitted.readable_loadings())
        markers(name, "PCA", pca_loadings(pca_reconstruction(values_of(adata))[0]).iloc[:, :10])
        rng = np.random.default_rng(0)
        names = fitted.schema.gene_names
        tables: dict[str, Any] = {
            "loadings": None,
            "random": pd.DataFrame(rng.normal(size=(len(names), 10)), names, fitted.factor_names),
            "mean expression": pd.DataFrame(
                np.repeat(values_of(adata).mean().to_numpy()[:, None], 10, 1), names, fitted.factor_names
            ),
        }
        for of, method in product(("decoder", "encoder"), ("saliency", "gradient_x_input", "deeplift")):
            tables[f"{method} of the {of}"] = fitted.get_attributions(method=method, of=of)
        for method in ("integrated_gradients", "shapley"):
            tables[f"{method} of the decoder"] = fitted.get_attributions(method=method)
        finished = done(out, ["data", "model", "table"])
        for table, numbers in tables.items():
            if (name, model, table) in finished:
                continue
            found = faithfulness(fitted, numbers)
            row = {"data": name, "model": model, "table": table, "faithfulness": found["faithfulness"].mean()}
            row |= {"deletion": found["deletion"].mean(), "deletion_random": found["deletion_random"].mean()}
            row |= {"insertion": found["insertion"].mean(), "insertion_random": found["insertion_random"].mean()}
            append(out, [row | {"factors_beyond_chance": int((found["p_value"] <= 0.05).sum())}])


TYPES = {
    "pbmc3k": ("HAY_BONE_MARROW", "NK_CELLS PLATELET MONOCYTE FOLLICULAR_B_CELL NAIVE_T_CELL DENDRITIC_CELL"),
    "baron_human": ("MURARO_PANCREAS", "ACINAR_CELL DUCTAL_CELL ENDOTHELIAL_CELL ALPHA_CELL BETA_CELL DELTA_CELL"),
}


def markers(name: str, model: str, loadings: pd.DataFrame) -> None:
    out = HERE / "gene_space_markers.csv"
    if (name, model) in done(out, ["data", "model"]):
        return
    prefix, types = TYPES[name]
    sets = lc.read_gmt(DATA / "gene_sets" / "c8.all.v7.5.1.symbols.gmt")
    member = pd.DataFrame({one: loadings.index.isin(sets[f"{prefix}_{one}"]) for one in types.split()}, loadings.index)
    member = member[member.sum(axis=1) == 1]
    of_gene = member.to_numpy().argmax(1)
    v = loadings.loc[member.index].to_numpy()
    near = np.argsort(-cosine_similarity(v) + 9 * np.eye(len(v)), axis=1)[:, :10]
    rng = np.random.default_rng(0)
    share, null = (of_gene[near] == of_gene[:, None]).mean(), []
    for _ in range(999):
        shuffled = rng.permutation(of_gene)
        null.append((shuffled[near] == shuffled[:, None]).mean())
    row = {"data": name, "model": model, "genes": len(v), "silhouette": silhouette_score(v, of_gene, metric="cosine")}
    row |= {"same_set": share, "same_set_shuffled": np.mean(null), "p_value": (1 + np.sum(null >= share)) / 1000}
    append(out, [row])


def missing_models(out: Path, data: list[str]) -> Iterator[tuple[str, str]]:
    finished = done(out, ["data", "model", "table"])
    for name, model in product(data, TEN):
        if (name, model, "shapley of the decoder") not in finished:
            yield name, model


TABLES = ("hubs", "latent", "truth", "centrality", "topic_neighbors", "faithfulness")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--data", nargs="+", default=None)
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--folds", nargs="+", type=int, default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--n-jobs", type=int, default=1, help="fits side by side, of hubs and latent")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if "hubs" in given.table:
        hubs(given.seeds, given.n_jobs)
    if "latent" in given.table:
        models = given.models or [m for m in MODELS if m not in ("SIVAE sample", "SIVAE all", "SIVAE 512 genes a step")]
        latent(given.data or ["pbmc3k", "mouse_pancreas_e15"], models, given.folds or [0, 1, 2, 3, 4], given.n_jobs)
    if "truth" in given.table:
        truth(given.data or ["pbmc3k"])
    if "centrality" in given.table:
        centrality(given.data or ["pbmc3k", "kang_pbmc_12k"])
    if "topic_neighbors" in given.table:
        topic_neighbors(given.data or ["pbmc3k", "kang_pbmc_12k"])
    if "faithfulness" in given.table:
        faithful(given.data or ["pbmc3k", "baron_human"])


if __name__ == "__main__":
    main()
