"""Training on cells that stay in their file, against the same cells in memory.

    python benchmarks/out_of_core.py                         # everything; resumes from out_of_core_*.csv
    python benchmarks/out_of_core.py --table pass --cells 1000000
    python benchmarks/out_of_core.py --table sorted

- pass: one pass of training over 1,000,000 cells x 2,000 genes, made of pbmc4k_hvg2000 by repeating its cells and
  thinning each by a random share (about 7 % non-zero): in memory, from h5ad, from zarr, alternating, each in a process
  of its own. Cells a second of the pass; resident memory at its peak, and by quarters of the pass.
- sorted: kang_pbmc_12k sorted by cell type, with a window of at most 2,000 cells in memory (a sixth), against memory:
  ELBO of held-out cells and accuracy of 15 nearest neighbours, seeds 0 to 2. Also unsorted.
- memory: worm_neuron repeated to 30,000 genes and 200,000 cells, and to less in one direction or the other: peak memory
  of building and training SCVI on 20,000 of these cells; out_of_core_memory.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from peer_scvi_tools import load
from rows import append, missing

import lucidcell as lc
from lucidcell.cells import stored
from lucidcell.training.estimate import peak_memory_gb

HERE = Path(__file__).parent
SCRATCH = Path(os.environ.get("LUCIDCELL_SCRATCH", tempfile.gettempdir())) / "lucidcell_out_of_core"
CELLS_AT_A_TIME = 50_000
WAYS = ("memory", "h5ad", "zarr")
SHAPES = [(200_000, 30_000), (100_000, 30_000), (50_000, 30_000), (25_000, 30_000), (200_000, 15_000), (200_000, 7_500)]


def tiles(source: sp.csr_matrix, n_cells: int, n_genes: int, thin: bool) -> Iterator[sp.csr_matrix]:
    """Cells of `source` again and again, columns repeated to `n_genes`; thinned, each keeps a share of its counts."""
    rng = np.random.default_rng(0)
    copies = -(-n_genes // source.shape[1])
    wide = sp.hstack([source[rng.permutation(source.shape[0])] for _ in range(copies)], format="csr")[:, :n_genes]
    for start in range(0, n_cells, CELLS_AT_A_TIME):
        block = wide[rng.integers(0, wide.shape[0], min(CELLS_AT_A_TIME, n_cells - start))]
        if thin:
            share = np.repeat(rng.uniform(0.35, 0.75, block.shape[0]), np.diff(block.indptr))
            block.data = rng.binomial(block.data.astype(np.int64), share).astype(np.float32)
            block.eliminate_zeros()
        yield block


def simulated(name: str, n_cells: int, n_genes: int, *, thin: bool, zarr: bool) -> Path:
    """An h5ad file, and a sharded zarr store beside it, of so many cells."""
    import h5py

    file = SCRATCH / f"{name}_{n_cells}_{n_genes}.h5ad"
    if not file.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        source = sp.csr_matrix(load(name).X, dtype=np.float32)
        obs, var = pd.DataFrame(index=pd.RangeIndex(n_cells).astype(str)), pd.RangeIndex(n_genes).astype(str)
        blocks = tiles(source, n_cells, n_genes, thin)
        ad.AnnData(next(blocks), var=pd.DataFrame(index=var)).write_h5ad(temporary)
        with h5py.File(temporary, "r+") as stored:
            matrix = ad.io.sparse_dataset(stored["X"])
            for block in blocks:
                matrix.append(block)
            del stored["obs"]
            ad.io.write_elem(stored, "obs", obs)
        temporary.rename(file)
    store = file.with_suffix(".zarr")
    if zarr and not store.exists():
        with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=True):
            ad.read_h5ad(file).write_zarr(store)
    return file


class Memory:
    """Resident set in GB, looked at twenty times a second; the peak from the operating system."""

    def __enter__(self) -> Memory:
        import psutil

        self.process, self.seen, self.on = psutil.Process(), [], True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.on:
            self.seen.append(self.process.memory_info().rss / 2**30)
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.on = False
        self.thread.join()

    def quarters(self) -> dict[str, float]:
        return {f"gb_quarter_{i + 1}": float(max(part)) for i, part in enumerate(np.array_split(self.seen, 4))}


def opened(file: Path, way: str) -> ad.AnnData:
    if way == "memory":
        return lc.read_h5ad(file)
    return lc.read_h5ad(file, backed="r") if way == "h5ad" else lc.read_zarr(file.with_suffix(".zarr"), backed="r")


def one_pass(model_name: str, way: str, n_cells: int, warm_up: bool = True) -> dict[str, float]:
    if warm_up:  # compiles, in this process
        small = lc.LDVAE(load("pbmc4k_hvg2000")[:500].copy())
        small.train(max_epochs=1, progress=False)
    file = simulated("pbmc4k_hvg2000", n_cells, 2000, thin=True, zarr=True)
    start = time.perf_counter()
    model = getattr(lc, model_name)(opened(file, way))
    checked = time.perf_counter() - start
    assert model.cells.in_memory == (way == "memory"), "so few cells are simply read"
    with Memory() as memory:
        model.train(max_epochs=1, progress=False)
    epoch = model.record.history["seconds"].iloc[0]
    return {
        "nonzero": model.cells.record.nonzero_fraction, "seconds_to_check": checked, "seconds": epoch,
        "cells_per_second": len(model.train_indices) / epoch, "peak_gb": peak_memory_gb(),
    } | memory.quarters()  # fmt: skip


def process(*arguments: str) -> dict[str, Any]:
    """A row, by this script in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--row", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def pass_table(n_cells: int, n_repeats: int) -> None:
    out = HERE / "out_of_core_pass.csv"
    keys = [(n_cells, model, repeat, way) for repeat in range(n_repeats) for model in ("SCVI", "LDVAE") for way in WAYS]
    simulated("pbmc4k_hvg2000", n_cells, 2000, thin=True, zarr=True)
    for cells, model, repeat, way in missing(out, ["cells", "model", "repeat", "way"], keys):
        row = {"cells": cells, "model": model, "repeat": repeat, "way": way}
        append(out, [row | process("pass", model, way, str(cells))])
    table = pd.read_csv(out).groupby(["cells", "model", "way"])[["cells_per_second", "peak_gb"]].median().unstack()
    print((table["cells_per_second"].div(table["cells_per_second"]["memory"], axis=0)).round(3))


def sorted_table(seeds: list[int]) -> None:
    out = HERE / "out_of_core_sorted.csv"
    adata = load("kang_pbmc_12k")
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    orders = {"sorted": np.argsort(labels, kind="stable"), "shuffled": rng.permutation(adata.n_obs)}
    keys = [
        (model, order, seed, way)
        for model in ("SCVI", "LDVAE")
        for order in orders
        for seed in seeds
        for way in ("memory", "h5ad")
    ]
    for model_name, order, seed, way in missing(out, ["model", "order", "seed", "way"], keys):
        SCRATCH.mkdir(parents=True, exist_ok=True)
        file = SCRATCH / f"kang_{order}.h5ad"
        if not file.exists():
            adata[orders[order]].copy().write_h5ad(file)
        stored.IN_MEMORY = 2**60 if way == "memory" else 0
        model = getattr(lc, model_name)(lc.read_h5ad(file, backed="r"))
        per_cell = 8 * model.cells.counts.lengths().mean()
        model.train(seed=seed, progress=False, buffer_gb=2 * 2000 * per_cell / 2**30)
        z = model.get_latent_representation()
        accuracy = neighbours_agree(z, labels[orders[order]])
        append(out, [{
            "model": model_name, "order": order, "seed": seed, "way": way,
            "negative_elbo": float(model.history["validation_negative_elbo"].min()), "knn_accuracy": accuracy,
            "in_memory": model.cells.in_memory, "epochs": len(model.history),
        }])  # fmt: skip


def neighbours_agree(z: np.ndarray, labels: np.ndarray, k: int = 15) -> float:
    """Share of cells whose type is the most frequent among their 15 nearest others."""
    from sklearn.neighbors import NearestNeighbors

    codes, _ = pd.factorize(labels)
    nearest = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
    votes = np.stack([(codes[nearest] == c).sum(1) for c in range(codes.max() + 1)], axis=1)
    return float((votes.argmax(1) == codes).mean())


def memory_row(way: str, n_cells: int, n_genes: int) -> dict[str, float]:
    stored.IN_MEMORY = 0
    before = peak_memory_gb()
    file = simulated("worm_neuron", n_cells, n_genes, thin=False, zarr=False)
    adata = lc.read_h5ad(file, backed=None if way == "memory" else "r")
    model = lc.SCVI(adata)
    assert model.cells.in_memory == (way == "memory"), "so few cells are simply read"
    model.train(max_epochs=1, batch_size=512, train_size=20_000 / n_cells, progress=False)
    return {"before_gb": before, "peak_gb": peak_memory_gb(), "nonzero": model.cells.record.nonzero_fraction}


def memory_table() -> None:
    out = HERE / "out_of_core_memory.csv"
    keys = [(cells, genes, way) for cells, genes in SHAPES for way in ("memory", "h5ad")]
    for cells, genes, way in missing(out, ["cells", "genes", "way"], keys):
        simulated("worm_neuron", cells, genes, thin=False, zarr=False)
        row = process("memory", way, str(cells), str(genes))
        append(out, [{"cells": cells, "genes": genes, "way": way} | row])
    draw_memory(pd.read_csv(out))


def draw_memory(table: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    names = {"memory": ("in memory", "#D55E00", "o"), "h5ad": ("stays in the h5ad file", "#0072B2", "s")}
    for ax, along, held, at in ((axes[0], "cells", "genes", 30_000), (axes[1], "genes", "cells", 200_000)):
        for way, (label, color, marker) in names.items():
            rows = table[(table["way"] == way) & (table[held] == at)].sort_values(along)
            ax.plot(rows[along] / 1000, rows["peak_gb"], color=color, marker=marker, label=label)
        ax.set(xlabel=f"thousand {along} ({at:,} {held})", ylim=(0, None))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("peak resident memory (GiB)")
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(HERE / "out_of_core_memory.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", nargs="+", default=["pass", "sorted", "memory"], choices=["pass", "sorted", "memory"]
    )
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--row", nargs="+", help="a row, in this process")
    given = parser.parse_args()
    if given.row:
        kind, *rest = given.row
        row = (
            one_pass(rest[0], rest[1], int(rest[2]))
            if kind == "pass"
            else memory_row(rest[0], int(rest[1]), int(rest[2]))
        )
        print(json.dumps(row))
        return
    if "pass" in given.table:
        pass_table(given.cells, given.repeats)
    if "sorted" in given.table:
        sorted_table(given.seeds)
    if "memory" in given.table:
        memory_table()


if __name__ == "__main__":
    main()
