"""What linear factors cost: cells, sparsity, LinearSCVI beside it; gene sets against gseapy.

    python benchmarks/factors_cost.py                     # everything; resumes from factors_cost.csv
    python benchmarks/factors_cost.py --table gsea

- size: 10 epochs of LDVAE on scanpy_10x_10k (1,000 genes, mouse brain), tiled to 10,000 ... 1,000,000
  cells; one epoch from 300,000 on. `per_1000` is seconds for 10 epochs of 1,000 cells; the paper: 5 s CPU, 2 s GPU.
- ratio: seconds of an epoch of LDVAE and LinearSCVI, interleaved A B A B in processes of their own.
- sparsity: the same cells with their counts thinned at random, both sides; a figure.
- gsea: 500 sets x 50 factors x 1,000 permutations. gseapy ranks one factor at a time: three are timed, times 50 / 3.

Medians; first epochs are left out; nothing else may run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
OUT = HERE / "factors_cost.csv"
SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000]
KEPT = [1.0, 0.5, 0.2, 0.08, 0.03]  # share of the counts


def tiled(n_cells: int, kept: float = 1.0) -> ad.AnnData:
    """scanpy_10x_10k without its one empty cell, thinned and repeated to `n_cells`."""
    from peer_scvi_tools import load

    adata = load("scanpy_10x_10k")
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    rng = np.random.default_rng(0)
    x = adata.X[np.arange(n_cells) % adata.n_obs].tocsr()
    if kept < 1:
        x.data = rng.binomial(x.data.astype(int), kept).astype(np.float32)
        x.eliminate_zeros()
        x = x[np.asarray(x.sum(1)).ravel() > 0]
    names = [str(i) for i in range(x.shape[0])]
    return ad.AnnData(x, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=adata.var_names))


def our_epochs(adata: ad.AnnData, batch_size: int, n_epochs: int) -> list[float]:
    import lucidcell as lc

    model = lc.LDVAE(adata)
    model.train(1 + n_epochs, batch_size=batch_size, train_size=1.0, early_stopping=False, progress=False)
    return np.diff(model.history["seconds"]).tolist()


def peer_epochs(adata: ad.AnnData, batch_size: int, n_epochs: int) -> list[float]:
    import scvi
    from annotation_tasks import quiet_scvi
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_epoch_end(self, trainer, module) -> None:
            self.ends.append(time.perf_counter())

    quiet_scvi()
    scvi.model.LinearSCVI.setup_anndata(adata)
    model, clock = scvi.model.LinearSCVI(adata), Clock()
    model.train(
        1 + n_epochs, batch_size=batch_size, train_size=1.0, accelerator="cpu", callbacks=[clock],
        enable_progress_bar=False, logger=False,
    )  # fmt: skip
    return np.diff(clock.ends).tolist()


def inner(side: str, n_cells: int, kept: float, batch_size: int, n_epochs: int) -> dict:
    """One side, in a process of its own."""
    adata = tiled(n_cells, kept)
    epochs = (our_epochs if side == "LDVAE" else peer_epochs)(adata, batch_size, n_epochs)
    return {"seconds": float(np.median(epochs)), "n_cells": adata.n_obs, "nonzero": adata.X.nnz / np.prod(adata.shape)}


def in_process(*words: object) -> dict:
    command = [sys.executable, __file__, "--inner", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(n_cells: int, kept: float, batch_size: int, rounds: int) -> list[dict]:
    rows = []
    for _ in range(rounds):
        for side in ("LDVAE", "LinearSCVI"):
            found = in_process(side, n_cells, kept, batch_size, 4 if side == "LDVAE" else 2)
            rows.append({"side": side, "batch_size": batch_size, "kept": kept} | found)
    return rows


def gsea_rows() -> list[dict]:
    import gseapy

    import lucidcell as lc

    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(5000)]
    loadings = pd.DataFrame(rng.standard_normal((5000, 50)) ** 3, genes, [f"f{d}" for d in range(50)])
    sets = {f"s{i}": list(rng.choice(genes, int(rng.integers(10, 300)), replace=False)) for i in range(500)}
    lc.gsea(loadings.iloc[:, :1], sets, n_permutations=10)  # compiled
    rows = []
    for factor in ("f0", "f1", "f2"):
        begin = time.perf_counter()
        lc.gsea(loadings, sets)
        ours = time.perf_counter() - begin
        begin = time.perf_counter()
        gseapy.prerank(
            loadings[factor], sets, min_size=5, max_size=500, permutation_num=1000, threads=2, outdir=None, no_plot=True
        )
        theirs = 50 * (time.perf_counter() - begin)
        rows += [{"side": "lucidcell", "seconds": ours}, {"side": "gseapy", "seconds": theirs}]
    return rows


def figure(table: pd.DataFrame, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    from lucidcell.plots.style import PALETTE, style

    with style():
        _, ax = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
        for color, (side, rows) in zip((PALETTE[0], PALETTE[3]), table.groupby("side"), strict=True):
            medians = rows.groupby("kept")[["nonzero", "per_1000"]].median()
            ax.plot(100 * medians["nonzero"], medians["per_1000"], marker="o", markersize=4, color=color, label=side)
        ax.set_xlabel("non-zero counts (%)")
        ax.set_ylabel("seconds for 10 epochs of 1,000 cells")
        ax.set_ylim(bottom=0)
        ax.legend()
        ax.figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["size", "ratio", "sparsity", "gsea"]
    parser.add_argument("--table", nargs="*", default=tables, choices=tables)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inner", nargs=5)
    arguments = parser.parse_args()
    if arguments.inner:
        side, n_cells, kept, batch_size, n_epochs = arguments.inner
        print(json.dumps(inner(side, int(n_cells), float(kept), int(batch_size), int(n_epochs))))
        return
    known = pd.read_csv(OUT) if OUT.exists() else pd.DataFrame({"table": []})
    for name in arguments.table:
        if name in set(known["table"]):
            continue
        rows: list[dict] = []
        if name == "size":
            for n_cells in SIZES:
                found = in_process("LDVAE", n_cells, 1.0, 128, 10 if n_cells < 300_000 else 1)
                rows.append({"side": "LDVAE", "batch_size": 128, "kept": 1.0} | found)
        elif name == "ratio":
            for batch_size in (128, 1024):
                rows += interleaved(10_000, 1.0, batch_size, arguments.rounds)
        elif name == "sparsity":
            for kept in KEPT:
                rows += interleaved(10_000, kept, 128, 1)
        else:
            rows = gsea_rows()
        found = pd.DataFrame(rows).assign(table=name)
        if "n_cells" in found:
            found["per_1000"] = 1e4 * found["seconds"] / found["n_cells"]
        known = pd.concat([known, found], ignore_index=True)
        known.to_csv(OUT, index=False, float_format="%.5g")
    size = known[known["table"] == "size"]
    if len(size):
        slope = np.polyfit(np.log(size["n_cells"]), np.log(size["seconds"]), 1)[0]
        print(size[["n_cells", "seconds", "per_1000"]].round(3).to_string(index=False))
        print(f"log-log slope of seconds an epoch in cells: {slope:.3f}")
    ratio, gsea = known[known["table"] == "ratio"], known[known["table"] == "gsea"]
    if len(ratio):
        medians = ratio.groupby(["batch_size", "side"])["seconds"].median().unstack()
        print(medians.assign(ratio=medians["LinearSCVI"] / medians["LDVAE"]).round(3))
    if len(gsea):
        medians = gsea.groupby("side")["seconds"].median()
        print(f"{medians.round(2).to_string()}\nratio {medians['gseapy'] / medians['lucidcell']:.1f}")
    sparsity = known[known["table"] == "sparsity"]
    if len(sparsity):
        print(sparsity[["side", "nonzero", "per_1000"]].round(3).to_string(index=False))
        figure(sparsity, HERE / "factors_sparsity.png")


if __name__ == "__main__":
    main()
