"""Peak resident memory of training against the number of genes, over the baseline after import.

    python benchmarks/memory.py

pbmc3k with its 2,000 to 32,738 most expressed genes; one process for each side and size. One epoch: memory does not
grow after it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

OUT = Path(__file__).with_name("memory.csv")
GENES = [2000, 8000, 32738]
BATCH_SIZE = 128


def data(n_genes: int):
    import numpy as np
    from peer_scvi_tools import load

    adata = load("pbmc3k")
    totals = np.asarray(adata.X.sum(0)).ravel()
    adata = adata[:, np.sort(np.argsort(-totals)[:n_genes])].copy()
    adata.X = adata.X.astype("float32")
    return adata


class Peak:
    """Largest resident set, in MB, seen by a thread that looks a hundred times a second."""

    def __enter__(self) -> Peak:
        import psutil

        self.process, self.largest, self.on = psutil.Process(), 0.0, True
        self.baseline = self.process.memory_info().rss / 2**20
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while self.on:
            self.largest = max(self.largest, self.process.memory_info().rss / 2**20)
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self.on = False
        self.thread.join()


def train(side: str, n_genes: int) -> None:
    if side == "lucidcell":
        import scanpy  # noqa: F401 (part of the baseline, as on the other side)
        import torch  # noqa: F401

        import lucidcell as lc
        from lucidcell.maths import count_kernels, normalise_kernels, sparse_kernels  # noqa: F401
        from lucidcell.models.scvi import SCVI
        from lucidcell.training import adam_kernel  # noqa: F401

        small = lc.simulate_counts(n_cells=100, n_genes=50)
        SCVI(small).train(1, progress=False)  # compiled code is import, not data
        adata = data(n_genes)
        with Peak() as peak:
            SCVI(adata).train(1, batch_size=BATCH_SIZE, progress=False)
    else:
        import scvi

        import lucidcell as lc

        small = lc.simulate_counts(n_cells=100, n_genes=50)
        scvi.model.SCVI.setup_anndata(small)
        scvi.model.SCVI(small, gene_likelihood="nb").train(1, accelerator="cpu", enable_progress_bar=False)
        adata = data(n_genes)
        with Peak() as peak:
            scvi.model.SCVI.setup_anndata(adata)
            model = scvi.model.SCVI(adata, gene_likelihood="nb")
            model.train(1, batch_size=BATCH_SIZE, accelerator="cpu", enable_progress_bar=False)
    print(json.dumps({"baseline": peak.baseline, "over": peak.largest - peak.baseline}))


def main() -> None:
    if len(sys.argv) == 3:
        train(sys.argv[1], int(sys.argv[2]))
        return
    rows = []
    for n_genes in GENES:
        row: dict = {"genes": n_genes}
        for side in ("scvi-tools", "lucidcell"):
            command = [sys.executable, "-W", "ignore", __file__, side, str(n_genes)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            answer = json.loads(done.stdout.splitlines()[-1])
            row |= {f"{side}_baseline_mb": round(answer["baseline"]), f"{side}_over_mb": round(answer["over"])}
        row["share"] = round(row["lucidcell_over_mb"] / row["scvi-tools_over_mb"], 3)
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
