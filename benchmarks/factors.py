"""What linear factor models find: planted programs, held-out reconstruction, correlated factors, epochs needed.

    python benchmarks/factors.py                                  # everything; resumes from factors_*.csv
    python benchmarks/factors.py --table recovery --programs 6 --seeds 0
    python benchmarks/factors.py --table reconstruction --data paul15 --peers none

- recovery: simulated linear programs (6 or 20, 3 batches, 3,000 cells, 800 genes). Cosine of principal angles between
  the loadings and the planted ones; mean absolute correlation of matched factors, as they are and after varimax.
  LinearSCVI runs as it comes (its own 400 epochs); NMF and PCA are scikit-learn's, on log-normalised counts.
- reconstruction: SCVI and the four variants of LDVAE, held-out tenth: negative E log p(x | z) and ELBO, and the mean
  absolute correlation between two factors. LinearSCVI as it comes, NB on both sides, the same cells held out.
- convergence: held-out ELBO of LDVAE after our default number of epochs and after the paper's rule, 1,000,000 / cells.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from annotation_tasks import quiet_scvi
from peer_scvi_tools import BATCH_KEY, load, split
from rows import Rows, append, done, fill
from scipy.linalg import subspace_angles

import lucidcell as lc
from lucidcell.readouts.rotation import varimax
from lucidcell.readouts.stability import matched

HERE = Path(__file__).parent
VARIANTS = {
    f"LDVAE {latent}{' + batch-norm' if norm else ''}": {"latent_distribution": latent, "use_batch_norm": norm}
    for latent in ("normal", "ln")
    for norm in (True, False)
}
NO_INTERCEPT = {
    f"{name}, no intercept": arguments | {"decoder_bias": False}
    for name, arguments in VARIANTS.items()
    if not arguments["use_batch_norm"]
}

LATENT_LIBRARY = {"LDVAE normal + batch-norm, latent library": {"use_observed_lib_size": False}}  # as LinearSCVI has
SETTINGS = VARIANTS | NO_INTERCEPT | LATENT_LIBRARY


# --- recovery ---------------------------------------------------------------------------------------------------


def linear_scvi(adata: ad.AnnData, n_latent: int, seed: int, batch_key: str | None, held_out: np.ndarray | None = None):
    """LinearSCVI as scvi-tools ships it, on the split given."""
    scvi = quiet_scvi()
    scvi.settings.seed = seed
    data = adata.copy()
    scvi.model.LinearSCVI.setup_anndata(data, batch_key=batch_key)
    model = scvi.model.LinearSCVI(data, n_latent=n_latent)
    settings = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    if held_out is not None:
        train = np.setdiff1d(np.arange(adata.n_obs), held_out)
        settings["datasplitter_kwargs"] = {"external_indexing": [train, held_out, np.array([], dtype=int)]}
    model.train(**settings)
    return model


def found_loadings(method: str, adata: ad.AnnData, n_programs: int, seed: int) -> np.ndarray:
    """Genes x factors."""
    if method == "LDVAE":
        model = lc.LDVAE(adata, batch_key="batch", n_latent=n_programs)
        model.train(seed=seed, progress=False)
        return model.get_loadings().to_numpy()
    if method == "LinearSCVI":
        return linear_scvi(adata, n_programs, seed, "batch").get_loadings().to_numpy()
    from sklearn.decomposition import NMF, PCA

    counts = adata.X.toarray()
    logged = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    if method == "PCA":
        return PCA(n_programs, random_state=seed).fit(logged).components_.T
    return NMF(n_programs, random_state=seed, max_iter=1000).fit(logged).components_.T


def recovery(programs: list[int], seeds: list[int], methods: list[str], n_jobs: int) -> None:
    out = HERE / "factors_recovery.csv"

    def make(n_programs: int, seed: int, method: str) -> Rows:
        adata = lc.simulate_counts(3000, 800, n_programs=n_programs, n_types=n_programs, n_batches=3, seed=seed)
        begin = time.perf_counter()
        found = found_loadings(method, adata, n_programs, seed)
        seconds = time.perf_counter() - begin
        planted = pd.DataFrame(adata.varm["programs"] - adata.varm["programs"].mean(0))
        expression = np.asarray(adata.X.mean(0)).ravel()
        found = found - found.mean(0)
        turned = found @ varimax(found, expression)
        cosines = np.cos(subspace_angles(found, planted.to_numpy()))
        row = {"programs": n_programs, "seed": seed, "method": method, "subspace": cosines.mean()}
        for name, table in (("raw", found), ("varimax", turned)):
            correlations = np.abs(matched(planted, pd.DataFrame(table))[1])
            row |= {f"matched_{name}": correlations.mean(), f"worst_{name}": correlations.min()}
        return {out: [row | {"seconds": seconds}]}

    fill(out, ["programs", "seed", "method"], product(programs, seeds, methods), make, n_jobs)
    columns = ["subspace", "matched_raw", "matched_varimax", "worst_varimax", "seconds"]
    table = pd.read_csv(out).groupby(["programs", "method"])[columns]
    print(
        pd.concat(
            [table.mean().round(3), table.min()[["subspace", "matched_varimax"]].add_prefix("lowest_").round(3)], axis=1
        )
    )


# --- reconstruction ---------------------------------------------------------------------------------------------


def correlated(z: np.ndarray) -> float:
    """Mean absolute correlation between two factors."""
    values = np.abs(np.corrcoef(z.T))
    return float(values[~np.eye(len(values), dtype=bool)].mean())


def reconstruction(names: list[str], seeds: list[int], peers: list[str], peer_seeds: list[int], n_jobs: int) -> None:
    out = HERE / "factors_reconstruction.csv"
    methods = ["SCVI", *SETTINGS]
    tasks = [(name, method, seed) for name, seed, method in product(names, seeds, methods)]
    tasks += [(name, method, seed) for name, seed, method in product(names, peer_seeds, peers)]

    def make(name: str, method: str, seed: int) -> Rows:
        adata = load(name)
        held_out = split(adata.n_obs, seed)[1]
        begin = time.perf_counter()
        if method == "LinearSCVI":
            model = linear_scvi(adata, 10, seed, BATCH_KEY.get(name), held_out)
            seconds, epochs = time.perf_counter() - begin, model.trainer.current_epoch
            error = model.get_reconstruction_error(indices=held_out)
            error = float(error["reconstruction_loss"] if isinstance(error, dict) else error)
            elbo = float(model.get_elbo(indices=held_out))
            row = {"reconstruction": abs(error), "negative_elbo": abs(elbo)}
            z = model.get_latent_representation()
        else:
            model_class = lc.SCVI if method == "SCVI" else lc.LDVAE
            model = model_class(adata, batch_key=BATCH_KEY.get(name), **SETTINGS.get(method, {}))
            model.train(seed=seed, progress=False)
            seconds, epochs = time.perf_counter() - begin, model.record.epochs
            assert np.array_equal(np.sort(model.validation_indices), held_out)
            row = {
                "reconstruction": model.get_reconstruction_error(indices=held_out, n_samples=5),
                "negative_elbo": -model.get_elbo(indices=held_out, n_samples=5),
            }
            z = model.get_latent_representation(mc_samples=200)
        row |= {"correlation": correlated(z), "seconds": seconds, "epochs": epochs}
        return {out: [{"data": name, "method": method, "seed": seed} | row]}

    fill(out, ["data", "method", "seed"], tasks, make, n_jobs)
    table = pd.read_csv(out).groupby(["data", "method"], sort=False)
    columns = ["reconstruction", "negative_elbo", "correlation", "seconds"]
    print(pd.concat([table[columns].mean().round(3), table["reconstruction"].std().round(2).rename("sd")], axis=1))


# --- convergence ------------------------------------------------------------------------------------------------


def sized(source: str, n_cells: int) -> ad.AnnData:
    if source == "simulated":
        return lc.simulate_counts(n_cells, 1000, n_programs=10, n_types=10, seed=0)
    adata = load(source)
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:n_cells]
    return adata[np.sort(rows)].copy()


def convergence(sizes: dict[str, list[int]]) -> None:
    out = HERE / "factors_convergence.csv"
    finished = done(out, ["data", "n_cells", "recipe"])
    for source, numbers in sizes.items():
        for n_cells in numbers:
            recipes = {"default": None, "paper's rule": max(1, round(1e6 / n_cells))}
            adata = sized(source, n_cells)
            for recipe, max_epochs in recipes.items():
                if (source, str(n_cells), recipe) in finished:
                    continue
                model = lc.LDVAE(adata, batch_key=BATCH_KEY.get(source))
                model.train(max_epochs, early_stopping=False, progress=False)
                curve = model.history["validation_negative_elbo"].to_numpy()
                row = {
                    "epochs": len(curve),
                    "negative_elbo": float(-model.get_elbo(indices=model.validation_indices, n_samples=5)),
                    "epochs_to_1_nat": int(np.flatnonzero(curve <= curve.min() + 1)[0]) + 1,
                    "best_epoch": int(curve.argmin()) + 1,
                    "seconds": model.record.seconds,
                }
                append(out, [{"data": source, "n_cells": n_cells, "recipe": recipe} | row])
    print(pd.read_csv(out).round(2).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["recovery", "reconstruction", "convergence"]
    parser.add_argument("--table", nargs="*", default=tables, choices=tables)
    parser.add_argument("--programs", nargs="*", type=int, default=[6, 20])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="*", default=["LDVAE", "PCA", "NMF", "LinearSCVI"])
    parser.add_argument("--data", nargs="*", default=["paul15", "baron_human", "kang_pbmc_12k"])
    parser.add_argument("--reconstruction-seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--peer-seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--peers", nargs="*", default=["LinearSCVI"])
    parser.add_argument("--n-jobs", type=int, default=1, help="fits side by side, of recovery and reconstruction")
    arguments = parser.parse_args()
    if "recovery" in arguments.table:
        recovery(arguments.programs, arguments.seeds, arguments.methods, arguments.n_jobs)
    if "reconstruction" in arguments.table:
        peers = [peer for peer in arguments.peers if peer != "none"]
        reconstruction(arguments.data, arguments.reconstruction_seeds, peers, arguments.peer_seeds, arguments.n_jobs)
    if "convergence" in arguments.table:
        convergence({"kang_pbmc_12k": [1000, 3000, 12_261], "simulated": [1000, 10_000, 100_000]})


if __name__ == "__main__":
    main()
