"""Cells per second of training: lucidcell's SCVI against scvi-tools', same architecture, interleaved.

    python benchmarks/throughput.py                      # all rows, both OpenMP wait policies
    python benchmarks/throughput.py --data pbmc3k --policy active

The sides alternate, A B A B, each in a process of its own: OpenMP threads of one side that still spin would slow the
other. Medians of seconds per epoch; the first epochs are left out. No cells are held out on either side. The limit is
the time of the dense matrix products that the likelihood needs (5 for NB, 8 for ZINB, batch x 128 x genes each) by
torch.mm in the same process and precision as our run; `of_limit` is that time over ours. It could exceed 1: our encoder
multiplies the non-zeros only.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

OUT = Path(__file__).with_name("throughput.csv")
ROWS = [  # likelihood, batch size, precision
    ("nb", 128, "auto"),
    ("nb", 1024, "auto"),
    ("nb", 128, "float32"),
    ("nb", 1024, "float32"),
    ("zinb", 128, "auto"),
    ("zinb", 1024, "auto"),
    ("nb", None, "auto"),  # our default batch, beside theirs
]
N_HIDDEN = 128
DEFAULT_BATCH = 128
PRODUCTS = {"nb": 5, "zinb": 8}


def row_key(likelihood: str, batch_size: int | None, precision: str) -> str:
    return f"{likelihood} {batch_size} {precision}"


def load(name: str):
    from peer_scvi_tools import load as load_shared

    import lucidcell as lc

    adata = lc.pbmc3k() if name == "pbmc3k" else load_shared(name)
    adata.X = adata.X.astype("float32")
    return adata


def peer_epochs(adata, likelihood: str, batch_size: int, n_epochs: int) -> list[float]:
    """Seconds of each epoch of scvi-tools, the first two left out."""
    import scvi
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        seconds: list[float] = []

        def on_train_epoch_start(self, trainer, module) -> None:
            self.begin = time.perf_counter()

        def on_train_epoch_end(self, trainer, module) -> None:
            self.seconds.append(time.perf_counter() - self.begin)

    clock = Clock()
    clock.seconds = []
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, gene_likelihood=likelihood)
    model.train(
        max_epochs=n_epochs + 2, batch_size=batch_size, train_size=1.0, accelerator="cpu", enable_progress_bar=False,
        callbacks=[clock],
    )  # fmt: skip
    return clock.seconds[2:]


def our_epochs(adata, likelihood: str, batch_size: int | None, precision: str, n_epochs: int) -> list[float]:
    """Seconds of each epoch of lucidcell, the first two left out."""
    import numpy as np

    import lucidcell as lc

    model = lc.SCVI(adata, gene_likelihood=likelihood)
    model.train(n_epochs + 2, batch_size=batch_size, train_size=1.0, precision=precision, progress=False)
    return np.diff(model.history["seconds"])[1:].tolist()


def product_seconds(batch_size: int, n_genes: int, precision: str, n_products: int) -> float:
    """Seconds per cell of the dense products."""
    import numpy as np
    import torch

    from lucidcell.maths.fused import has_bfloat16_products

    low = precision == "auto" and has_bfloat16_products()
    dtype = torch.bfloat16 if low else torch.float32
    hidden, weight = torch.randn(batch_size, N_HIDDEN, dtype=dtype), torch.randn(n_genes, N_HIDDEN, dtype=dtype)
    seconds = []
    for _ in range(30):
        begin = time.perf_counter()
        hidden @ weight.t()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds)) * n_products / batch_size


def measure(name: str, side: str) -> None:
    """Seconds of some epochs of every row, one side, as JSON on standard output."""
    import torch

    for logger in ("scvi", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    adata = load(name)
    found: dict[str, list[float]] = {}
    for likelihood, batch_size, precision in ROWS:
        key = row_key(likelihood, batch_size, precision)
        if side == "lucidcell":
            found[key] = our_epochs(adata, likelihood, batch_size, precision, 10)
        elif precision == "auto" and batch_size:
            torch.set_num_threads(2)
            found[key] = peer_epochs(adata, likelihood, batch_size, 3 if batch_size < 512 else 5)
    if side == "lucidcell":  # last: torch's own threads, once started, would spin beside ours under the active policy
        for likelihood, batch_size, precision in ROWS:
            seconds = product_seconds(batch_size or DEFAULT_BATCH, adata.n_vars, precision, PRODUCTS[likelihood])
            found[f"limit {row_key(likelihood, batch_size, precision)}"] = [seconds * adata.n_obs]
    print(json.dumps({"n_obs": adata.n_obs, "seconds": found}))


def run_side(name: str, policy: str, side: str) -> dict:
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--data", name]
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, policy: str, rounds: int) -> list[dict]:
    import numpy as np

    seconds: dict[tuple[str, str], list[float]] = {}
    n_obs = 0
    for _ in range(rounds):
        for side in ("scvi-tools", "lucidcell"):
            answer = run_side(name, policy, side)
            n_obs = answer["n_obs"]
            for key, values in answer["seconds"].items():
                seconds.setdefault((side, key), []).extend(values)
    rows = []
    for likelihood, batch_size, precision in ROWS:
        key = row_key(likelihood, batch_size, precision)
        ours = np.array(seconds["lucidcell", key])
        peers = np.array(seconds["scvi-tools", row_key(likelihood, batch_size or 128, "auto")])
        limit = float(np.median(seconds["lucidcell", f"limit {key}"]))
        rows.append({
            "data": name, "policy": policy, "likelihood": likelihood, "batch": batch_size or "default",
            "precision": precision, "scvi_tools": round(n_obs / np.median(peers)),
            "lucidcell": round(n_obs / np.median(ours)), "ratio": round(float(np.median(peers) / np.median(ours)), 2),
            "of_limit": round(limit / float(np.median(ours)), 2),
            "peer_spread": round(float(np.ptp(peers) / np.median(peers)), 2),
            "our_spread": round(float(np.ptp(ours) / np.median(ours)), 2),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=["pbmc3k", "baron_human"])
    parser.add_argument("--policy", nargs="*", default=["active", "passive"], choices=["active", "passive"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        measure(arguments.data[0], arguments.side)
        return
    done = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {(row["data"], row["policy"]) for row in csv.DictReader(file)}
    for name in arguments.data:
        for policy in arguments.policy:
            if (name, policy) in done:
                continue  # resume: this part is complete
            rows = compare(name, policy, arguments.rounds)
            new = not OUT.exists()
            with OUT.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                if new:
                    writer.writeheader()
                writer.writerows(rows)
            for row in rows:
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
