"""Cells a second of SCVI on a GPU at 2,000 and 20,000 genes, against scvi-tools in the same run; where there is a GPU.

    python benchmarks/gpu.py                       # prints a table and writes gpu.csv; says so where torch sees no GPU

Simulated counts of 50,000 cells, batches of 128 and 1,024, the same architecture, sides alternating. The first epoch of
each side is left out. Also the time of our training on the CPU, for the same data and 2,000 genes.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from rows import append, done

import lucidcell as lc

OUT = Path(__file__).with_name("gpu.csv")
N_CELLS, EPOCHS = 50_000, 4


def cells(n_genes: int) -> ad.AnnData:
    """Counts with about 7 % non-zeros; speed does not depend on what they mean."""
    rng = np.random.default_rng(0)
    counts = sp.random(N_CELLS, n_genes, 0.07, format="csr", random_state=rng, dtype=np.float32)
    counts.data = 1 + rng.poisson(0.5, len(counts.data)).astype(np.float32)
    return ad.AnnData(counts)


def ours(adata: ad.AnnData, batch_size: int, device: str) -> float:
    model = lc.SCVI(adata)
    model.train(EPOCHS, batch_size=batch_size, train_size=1.0, device=device, progress=False)
    return adata.n_obs / float(np.median(np.diff(model.history["seconds"])))


def theirs(adata: ad.AnnData, batch_size: int) -> float:
    import scvi

    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    options = {"batch_size": batch_size, "train_size": 1.0, "accelerator": "gpu", "enable_progress_bar": False}
    model.train(max_epochs=1, **options)
    start = time.perf_counter()
    model.train(max_epochs=EPOCHS - 1, **options)
    torch.cuda.synchronize()
    return adata.n_obs * (EPOCHS - 1) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no GPU here, so there is nothing to measure.")
        return
    name = torch.cuda.get_device_name()
    finished = done(OUT, ["genes", "batch_size", "repeat", "side", "device"])
    for genes, batch_size, repeat in product((2000, 20_000), (128, 1024), range(given.repeats)):
        adata = cells(genes)
        sides = {"lucidcell": lambda a, b: ours(a, b, "cuda"), "scvi-tools": theirs}
        if genes == 2000 and repeat == 0:
            sides["lucidcell on the CPU"] = lambda a, b: ours(a, b, "cpu")
        for side, measure in sides.items():
            if (str(genes), str(batch_size), str(repeat), side, name) in finished:
                continue
            row = {"genes": genes, "batch_size": batch_size, "repeat": repeat, "side": side, "device": name}
            append(OUT, [row | {"cells_per_second": measure(adata, batch_size)}])


if __name__ == "__main__":
    main()
