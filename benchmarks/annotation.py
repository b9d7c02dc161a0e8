"""Label transfer: labels of one data set, technology or donor hidden, and found again by our SCANVI and by peers.

    python benchmarks/annotation.py                                   # everything; resumes from the CSV
    python benchmarks/annotation.py --task sc_mixology_3tech
    python benchmarks/annotation.py --again "lucidcell SCANVI"        # forget a method's rows first

Tasks and splits; types that only one side has are not scored:

- kang_and_pbmc3k (shared genes): pbmc3k hidden; kang hidden; pbmc3k hidden and half of kang's donors labelled, 3 times.
- sc_mixology_3tech: labels of one technology, each in turn.
- baron_human: labels of one donor hidden, each in turn.

annotation.csv has weighted accuracy and calibration errors of every method and split; annotation_intervals.csv the
paired difference of weighted accuracy to every peer with its 95 % bootstrap interval (cells within splits). Which cells
each method had right is kept in peer_runs/annotation/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from annotation_tasks import (
    PEER_RUNS,
    UNKNOWN,
    DataSet,
    Prediction,
    by_counts,
    by_neighbours,
    our_scanvi,
    paired_interval,
    peer_scanvi,
    scores,
)
from rows import append, done

from lucidcell.comparators import coral, scmap_cluster

OUT = Path(__file__).with_name("annotation.csv")
INTERVALS = Path(__file__).with_name("annotation_intervals.csv")
RIGHT = PEER_RUNS / "annotation"
TASKS = ["sc_mixology_3tech", "baron_human", "kang_and_pbmc3k"]
OURS = "lucidcell SCANVI"
METHODS: dict[str, Callable[[DataSet, np.ndarray], Prediction]] = {
    OURS: lambda data, labels: our_scanvi(data, labels, seed=0),
    "scvi-tools SCANVI": lambda data, labels: peer_scanvi(data, labels, seed=0),
    "15-NN on lucidcell SCVI": lambda data, labels: by_neighbours(data.our_latent, labels, 15),
    "15-NN on scvi-tools SCVI": lambda data, labels: by_neighbours(data.peer_latent, labels, 15),
    "15-NN on PCA": lambda data, labels: by_neighbours(data.pcs, labels, 15),
    "15-NN on Harmony": lambda data, labels: by_neighbours(data.harmony, labels, 15),
    "CORAL": lambda data, labels: by_counts(coral, data, labels),
    "scmap": lambda data, labels: by_counts(scmap_cluster, data, labels),
}


def splits(data: DataSet) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a split, cells that keep their labels, and cells to be found."""
    donor = data.adata.obs.get("donor", pd.Series("", data.adata.obs_names)).astype(str).to_numpy()
    if data.name == "sc_mixology_3tech":
        technology = data.adata.obs["technology"].astype(str).to_numpy()
        for name in np.unique(technology):
            yield f"{name} labelled", technology == name, technology != name
    elif data.name == "baron_human":
        for name in np.unique(donor):
            yield f"donor {name} hidden", donor != name, donor == name
    else:
        pbmc3k = donor == "pbmc3k"
        yield "pbmc3k hidden", ~pbmc3k, pbmc3k
        yield "kang hidden", pbmc3k, ~pbmc3k
        rng = np.random.default_rng(0)
        for draw in range(3):
            half = rng.choice(np.unique(donor[~pbmc3k]), 4, replace=False)
            yield f"pbmc3k hidden, 4 donors ({draw})", np.isin(donor, half), pbmc3k


def run(task: str, max_epochs: int | None, methods: list[str]) -> None:
    finished = done(OUT, ["task", "split", "method"])
    data = DataSet(task, max_epochs)
    for split, labelled, hidden in splits(data):
        common = np.intersect1d(data.truth[labelled], data.truth[hidden])
        labels = np.where(labelled, data.truth, UNKNOWN)
        scored = hidden & np.isin(data.truth, np.setdiff1d(common, UNKNOWN))
        for method in methods:
            if (task, split, method) in finished:
                continue
            begin = time.perf_counter()
            prediction = METHODS[method](data, labels)
            seconds = time.perf_counter() - begin
            RIGHT.mkdir(parents=True, exist_ok=True)
            right = prediction.labels[scored] == data.truth[scored]
            np.savez(right_file(task, split, method), type=data.truth[scored].astype(str), right=right)
            about = {"task": task, "split": split, "method": method, "n_labelled": int((labels != UNKNOWN).sum())}
            found = scores(data.truth, prediction, scored)
            append(OUT, [about | {"n_scored": int(scored.sum())} | found | {"seconds": seconds}])


def right_file(task: str, split: str, method: str) -> Path:
    return RIGHT / f"{task}--{split}--{method}.npz".replace(" ", "_")


def intervals() -> pd.DataFrame:
    """Paired differences to every peer, a row for each task and peer."""
    table, rows = pd.read_csv(OUT), []
    for task, of_task in table.groupby("task", sort=False):
        for peer in of_task["method"].unique():
            both = [of_task.loc[of_task["method"] == method, "split"] for method in (OURS, peer)]
            shared = [split for split in both[0] if split in set(both[1])]
            if peer == OURS or not shared:
                continue
            cells = [pd.DataFrame({OURS: read(task, s, OURS)["right"], **read(task, s, peer)}) for s in shared]
            found = paired_interval([c.rename(columns={"right": peer}) for c in cells], OURS, peer)
            rows.append({"task": task, "peer": peer, "splits": len(shared)} | found)
    return pd.DataFrame(rows)


def read(task: str, split: str, method: str) -> dict[str, np.ndarray]:
    with np.load(right_file(task, split, method)) as arrays:
        return dict(arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--again", nargs="*", default=[], choices=list(METHODS))
    parser.add_argument("--max-epochs", type=int, help="to try the benchmark; models by their defaults otherwise")
    arguments = parser.parse_args()
    if OUT.exists() and arguments.again:
        table = pd.read_csv(OUT)
        stale = table["method"].isin(arguments.again) & table["task"].isin(arguments.task)
        table[~stale].to_csv(OUT, index=False)
    for task in arguments.task:
        run(task, arguments.max_epochs, arguments.method)
    table = pd.read_csv(OUT)
    columns = ["weighted_accuracy", "calibration_error", "scaled_error"]
    means = table.groupby(["task", "method"], sort=False)[columns].mean()
    print(means.round(4).to_string())
    print(means.groupby("method", sort=False).mean().round(4).to_string())
    found = intervals()
    found.round(4).to_csv(INTERVALS, index=False)
    print(found.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
