"""What scANVI costs: an epoch against our SCVI's and scvi-tools' SCANVI's, its memory, and 105,476 cells.

    python benchmarks/scanvi_cost.py                   # everything; resumes from scanvi_cost.csv
    python benchmarks/scanvi_cost.py --part epoch --types 10

- epoch: seconds per epoch on a simulated tree (10,000 cells x 1,000 genes, 2 batches, half of the cells labelled) of
  10, 50 and 265 types, all sides in turn, in processes of their own: our SCVI, our SCANVI with the exact and with the
  sampled sum over labels, scvi-tools' SCANVI. Batch 128 on all sides, no cells held out. Ours includes the classifier.
- memory: peak resident memory over the baseline during 3 and during 12 epochs of our SCANVI, 50 types.
- large: 105,476 simulated cells of 20 types in 26 batches, 5 % labelled: wall time of SCVI and SCANVI by default. The
  scANVI paper ran 250 epochs of scVI on as many cells in 42 minutes on a K80.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

OUT = Path(__file__).with_name("scanvi_cost.csv")
UNKNOWN = "Unknown"
SIDES = ["lucidcell SCVI", "lucidcell SCANVI exact", "lucidcell SCANVI sampled", "scvi-tools SCANVI"]
BATCH_SIZE = 128
SKIPPED, TIMED = 2, 5  # epochs
PEER_TIMED = 3


def data(n_types: int, n_cells: int = 10_000, n_batches: int = 2, labelled: float = 0.5) -> ad.AnnData:
    import lucidcell as lc

    adata = lc.simulate_tree(n_cells, 1000, tree=n_types, n_batches=n_batches, seed=0)
    known = np.random.default_rng(0).random(n_cells) < labelled
    adata.obs["label"] = np.where(known, adata.obs["cell_type"].astype(str), UNKNOWN)
    return adata


def our_epochs(side: str, n_types: int) -> list[float]:
    import lucidcell as lc

    adata = data(n_types)
    model = lc.SCVI(adata, batch_key="batch")
    if side != "lucidcell SCVI":
        model.train(1, progress=False)
        model = lc.SCANVI.from_scvi_model(model, UNKNOWN, "label", adata, label_sum=side.split()[-1])
    model.train(SKIPPED + TIMED, batch_size=BATCH_SIZE, train_size=1.0, progress=False)
    return np.diff(model.history["seconds"])[SKIPPED - 1 :].tolist()


def peer_epochs(n_types: int) -> list[float]:
    import scvi
    import torch
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, trainer, module) -> None:
            self.begin = time.perf_counter()

        def on_train_epoch_end(self, trainer, module) -> None:
            self.seconds.append(time.perf_counter() - self.begin)

    for logger in ("scvi", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    torch.set_num_threads(2)
    adata, clock = data(n_types), Clock()
    scvi.model.SCANVI.setup_anndata(adata, labels_key="label", unlabeled_category=UNKNOWN, batch_key="batch")
    model = scvi.model.SCANVI(adata, gene_likelihood="nb")
    model.train(
        SKIPPED + PEER_TIMED, batch_size=BATCH_SIZE, train_size=1.0, accelerator="cpu", enable_progress_bar=False,
        callbacks=[clock],
    )  # fmt: skip
    return clock.seconds[SKIPPED:]


def memory(epochs: int) -> dict[str, float]:
    from memory import Peak

    import lucidcell as lc

    adata = data(50)
    keys = {"batch_key": "batch", "labels_key": "label", "unlabeled_category": UNKNOWN}
    lc.SCANVI(adata[:500].copy(), **keys).train(1, progress=False)  # compiled code is import, not data
    with Peak() as peak:
        lc.SCANVI(adata, **keys).train(epochs, batch_size=BATCH_SIZE, progress=False)
    return {"mb": peak.largest - peak.baseline}


def large(max_epochs: int | None) -> dict[str, float]:
    import lucidcell as lc
    from lucidcell.metrics.annotation import weighted_accuracy

    begin = time.perf_counter()
    adata = data(20, n_cells=105_476, n_batches=26, labelled=0.05)
    row = {"simulate_s": time.perf_counter() - begin}
    begin = time.perf_counter()
    scvi = lc.SCVI(adata, batch_key="batch")
    scvi.train(max_epochs, progress=False)
    row |= {"scvi_s": time.perf_counter() - begin, "scvi_epochs": len(scvi.history)}
    begin = time.perf_counter()
    model = lc.SCANVI.from_scvi_model(scvi, UNKNOWN, "label", adata)
    model.train(max_epochs, progress=False)
    row |= {"scanvi_s": time.perf_counter() - begin, "scanvi_epochs": len(model.history)}
    hidden = (adata.obs["label"] == UNKNOWN).to_numpy()
    found = np.asarray(model.predict())[hidden]
    row["weighted_accuracy"] = weighted_accuracy(adata.obs["cell_type"].astype(str).to_numpy()[hidden], found)
    return row


def in_process(*words: object) -> object:
    """What this file prints when it is run with these words, in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--inner", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def inner(words: list[str]) -> object:
    if words[0] == "epoch":
        return peer_epochs(int(words[2])) if words[1] == "scvi-tools SCANVI" else our_epochs(words[1], int(words[2]))
    if words[0] == "memory":
        return memory(int(words[1]))
    return large(int(words[1]) if words[1] != "None" else None)


def epoch_rows(n_types: int, rounds: int, sides: list[str]) -> list[dict]:
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, found in seconds.items():
            found += in_process("epoch", side, n_types)
    medians = {side: float(np.median(found)) for side, found in seconds.items()}
    rows = []
    for side, found in seconds.items():
        row = {"part": "epoch", "types": n_types, "side": side, "seconds": medians[side]}
        row |= {
            "spread": float(np.ptp(found) / medians[side]),
            "of_our_scvi": medians[side] / medians.get("lucidcell SCVI", np.nan),
        }
        rows.append(row | {"peer_over_this": medians.get("scvi-tools SCANVI", np.nan) / medians[side]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["epoch", "memory", "large"])
    parser.add_argument("--types", nargs="*", type=int, default=[10, 50, 265])
    parser.add_argument("--side", nargs="*", default=SIDES, choices=SIDES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-epochs", type=int, help="of the large run, to try it")
    parser.add_argument("--inner", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        print(json.dumps(inner(arguments.inner)))
        return
    table = pd.read_csv(OUT) if OUT.exists() else pd.DataFrame(columns=["part", "types", "side"])
    for n_types in arguments.types if "epoch" in arguments.part else []:
        timed = table.loc[(table["part"] == "epoch") & (table["types"] == n_types), "side"]
        if set(arguments.side) - set(timed):  # ratios are of one run, so that all of its sides are timed again
            table = table.drop(timed.index)
            table = save(table, epoch_rows(n_types, arguments.rounds, arguments.side))
    if "memory" in arguments.part and not (table["part"] == "memory").any():
        rows = [{"part": "memory", "types": 50, "epochs": n} | in_process("memory", n) for n in (3, 12)]
        table = save(table, rows)
    if "large" in arguments.part and not (table["part"] == "large").any():
        save(table, [{"part": "large", "types": 20} | in_process("large", arguments.max_epochs)])


def save(table: pd.DataFrame, rows: list[dict]) -> pd.DataFrame:
    """The table with more rows, written and shown."""
    table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
    table.to_csv(OUT, index=False, float_format="%.4g")
    print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)
    return table


if __name__ == "__main__":
    main()
