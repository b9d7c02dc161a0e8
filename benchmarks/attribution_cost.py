"""What attributions cost beside training siVAE, whose loadings come for free; and memory with very many features.

    python benchmarks/attribution_cost.py                          # resumes from attribution_cost.csv

Simulated counts (Poisson, 2 % of entries, so that nothing is learnt: only time counts). Seconds of

- training: all steps of a default run, extrapolated from 50 steps of the joint phase;
- each method: `get_attributions`, for 10,000 cells (derivatives) or 1,000 cells (integrated gradients, Shapley), or all
  where there are fewer; where cells x genes x factors pass `MOST_NUMBERS` (a tenth of it), extrapolated along a
  line through two smaller numbers of cells;
- reverse: saliency gene by gene in reverse mode by torch.autograd, as the public codes do it; extrapolated from 64
  cells and 16 genes.

Factors grow from 20 to 512 with 2,000 genes, and genes to 240,000 with 20 factors and 5,000 cells. Every row is a
process of its own with 2 threads, and `peak_gb` is the largest resident memory of it, training included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
from rows import append, missing

HERE = Path(__file__).parent
DENSITY = 0.02
STEPS = 50
MOST_NUMBERS = 400e6  # 10,000 cells x 2,000 genes x 20 factors
DERIVATIVES, PATHS = ("saliency", "gradient_x_input", "deeplift"), ("integrated_gradients", "shapley")
SIZES = [  # cells, genes, factors
    (10_000, 2000, 20),
    (5000, 20_000, 20),
    (5000, 240_000, 20),
    (10_000, 2000, 128),
    (10_000, 2000, 512),
]


def simulate(n_cells: int, n_genes: int) -> ad.AnnData:
    rng = np.random.default_rng(0)
    n = int(DENSITY * n_cells * n_genes)
    at = rng.integers(0, n_cells, n), rng.integers(0, n_genes, n)
    return ad.AnnData(sp.csr_matrix((np.ones(n, np.float32), at), (n_cells, n_genes)))


def measure(n_cells: int, n_genes: int, n_factors: int) -> dict[str, float]:
    """One row, in this process."""
    import torch

    import lucidcell as lc
    from lucidcell.maths import threads

    warnings.filterwarnings("ignore")
    adata = simulate(n_cells, n_genes)
    model = lc.SIVAE(adata, n_latent=n_factors, pretrain=False)
    steps_of_epoch = -(-int(0.9 * n_cells) // 128)
    # the joint phase alone, for as many epochs as make 50 steps; what comes before the first step is in `set_up`
    start = time.perf_counter()
    epochs = max(1, round(STEPS / steps_of_epoch))
    model.train(epochs, early_stopping=False, train_size=0.9, progress=False)
    total = time.perf_counter() - start
    per_epoch = float(model.history["seconds"].iloc[-1]) / epochs
    resolved = round(2.6 * max(20, min(60, round(400_000 / (0.9 * n_cells)))))
    row = {"set_up": total - per_epoch * epochs, "step": per_epoch / steps_of_epoch}
    row["training"] = row["set_up"] + per_epoch * resolved * 0.55  # the joint phase, most of the time
    with threads.limit(2):
        for method in DERIVATIVES + PATHS:
            wanted = min(n_cells, 10_000 if method in DERIVATIVES else 1000)
            most = MOST_NUMBERS * wanted / 10_000
            measured = min(wanted, max(256, int(most / (n_genes * n_factors))))
            sizes = [wanted] if measured == wanted else [measured // 2, measured]
            seconds = [of_attributions(model, method, n) for n in sizes]
            row[method] = seconds[-1]
            if measured < wanted:  # a part does not grow with the cells
                row[method] += (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]) * (wanted - measured)
        row["reverse"] = reverse(model, torch, min(n_cells, 10_000))
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def of_attributions(model, method: str, n_cells: int) -> float:
    """Seconds."""
    start = time.perf_counter()
    model.get_attributions(method=method, indices=np.arange(n_cells))
    return time.perf_counter() - start


def reverse(model, torch, n_cells: int, n_genes: int = 16, batch_size: int = 64) -> float:
    """Seconds of d f_g / d z gene by gene for all cells and genes."""
    batch = next(iter(model.batches(model.cells_of(None), batch_size)))
    with torch.no_grad():
        z, design = model.vae.encode(batch).mu, model.vae.design(batch)
    z.requires_grad_()
    start = time.perf_counter()
    outputs = model.vae.decode(z, design)
    for gene in range(n_genes):
        torch.autograd.grad(outputs[:, gene].sum(), z, retain_graph=True)
    return (time.perf_counter() - start) / n_genes * model.schema.n_genes * n_cells / batch_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--one", nargs=3, type=int, metavar=("CELLS", "GENES", "FACTORS"), help="a row, in this process"
    )
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    out = HERE / "attribution_cost.csv"
    for size in missing(out, ["cells", "genes", "factors"], SIZES):
        command = [sys.executable, __file__, "--one", *map(str, size)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        append(
            out, [dict(zip(("cells", "genes", "factors"), size, strict=True)) | json.loads(printed.splitlines()[-1])]
        )


if __name__ == "__main__":
    main()
