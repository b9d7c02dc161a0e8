"""Wall time until the held-out ELBO that scvi-tools' default run ends with.

    python benchmarks/time_to_quality.py                              # everything; resumes from peer_runs/ and the CSV
    python benchmarks/time_to_quality.py --data worm_neuron --seeds 0

For each data set and seed, scvi-tools trains once as it comes and once tuned (peer_scvi_tools.py, saved in peer_runs/).
Its final model is read with `SCVI.from_scvi_tools`, so that one piece of code computes both sides' negative ELBO (nats
per cell, 10 draws) on the same held-out cells; label accuracy is that of 15 nearest neighbours among training cells.

Time is measured in a second step, interleaved: some epochs of each peer recipe, a whole run of ours, and again. A
peer's time is its number of epochs times its median epoch there; for the default recipe the wall time of the full run
stands beside it, and the ratio takes the smaller of the two. Ours is the wall time of `train` up to the end of the
first epoch whose held-out ELBO is at the target or below.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from peer_scvi_tools import BATCH_KEY, load, split

HERE = Path(__file__).parent
PEER_RUNS = HERE / "peer_runs"
OUT = HERE / "time_to_quality.csv"
DATA = ["kang_pbmc_12k", "mouse_pancreas_e15", "worm_neuron", "baron_human"]
PACE_EPOCHS = {"default": 4, "tuned": 6}


def peer_run(name: str, recipe: str, seed: int) -> Path:
    folder = PEER_RUNS / f"{name}-{recipe}-{seed}"
    if not (folder / "facts.json").exists():
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(HERE / "peer_scvi_tools.py"),
            name,
            recipe,
            str(seed),
            str(folder),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def peer_pace(name: str, recipe: str) -> list[float]:
    """Seconds of a few epochs of scvi-tools, the first left out, in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(HERE / "peer_scvi_tools.py"),
        name,
        recipe,
        "0",
        "",
        str(PACE_EPOCHS[recipe]),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])["epoch_seconds"][1:]


def accuracy(latent: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(15).fit(latent[train], labels[train])
    return float(balanced_accuracy_score(labels[held_out], neighbours.predict(latent[held_out])))


def our_run(adata, name: str, seed: int):
    """A trained model and the seconds that `train` took outside its epochs."""
    import lucidcell as lc

    model = lc.SCVI(adata, batch_key=BATCH_KEY.get(name))
    begin = time.perf_counter()
    model.train(seed=seed, progress=False)
    return model, time.perf_counter() - begin - model.training_facts["seconds"]


def seconds_to(target: float, losses: np.ndarray, seconds: np.ndarray) -> float:
    """Time at the end of the first epoch at the target or below; NaN if there is none."""
    reached = np.flatnonzero(losses <= target)
    return float(seconds[reached[0]]) if len(reached) else float("nan")


def compare(name: str, seed: int, rounds: int) -> dict:
    import lucidcell as lc

    default = peer_run(name, "default", seed)
    facts = json.loads((default / "facts.json").read_text())
    adata = load(name)
    train, held_out = split(adata.n_obs, seed)
    labels = adata.obs["cell_type"].astype(str).to_numpy()
    peer = lc.SCVI.from_scvi_tools(default, adata)
    row = {"data": name, "seed": seed, "peer_nelbo": -peer.get_elbo(indices=held_out, n_samples=10)}
    row["peer_accuracy"] = accuracy(peer.get_latent_representation(), labels, train, held_out)

    paces: dict[str, list[float]] = {"default": [], "tuned": []}
    times, walls = [], []
    for _ in range(rounds):
        for recipe, found in paces.items():
            found += peer_pace(name, recipe)
        model, outside = our_run(adata, name, seed)
        assert np.array_equal(model.validation_indices, held_out)
        history = model.history
        losses, ends = history["validation_negative_elbo"].to_numpy(), history["seconds"].to_numpy()
        times.append(outside + seconds_to(row["peer_nelbo"], losses, ends))
        walls.append(outside + model.training_facts["seconds"])
    row["our_nelbo"] = -model.get_elbo(indices=held_out, n_samples=10)
    row["our_accuracy"] = accuracy(model.get_latent_representation(), labels, train, held_out)
    row["peer_epochs"], row["peer_wall_s"] = facts["epochs"], facts["wall_s"]
    row["peer_at_pace_s"] = facts["epochs"] * float(np.median(paces["default"]))
    row["our_epochs"], row["our_wall_s"] = model.training_facts["epochs"], float(np.median(walls))
    row["our_to_target_s"] = float(np.median(times))
    row["ratio"] = min(row["peer_wall_s"], row["peer_at_pace_s"]) / row["our_to_target_s"]
    row |= against_tuned(name, seed, row["peer_nelbo"], float(np.median(paces["tuned"])), row["our_to_target_s"])
    return row


def against_tuned(name: str, seed: int, target: float, pace: float, ours: float) -> dict:
    """Time of the tuned run to the target, at its pace; without the target, the time of the whole run."""
    folder = PEER_RUNS / f"{name}-tuned-{seed}"
    if not (folder / "facts.json").exists():
        return {"tuned_to_target_s": "", "tuned_reached": "", "tuned_ratio": ""}
    losses = np.array(json.loads((folder / "facts.json").read_text())["history"]["elbo_validation"])
    reached = bool((losses <= target).any())
    epochs = int(np.argmax(losses <= target)) + 1 if reached else len(losses)
    return {"tuned_to_target_s": epochs * pace, "tuned_reached": reached, "tuned_ratio": epochs * pace / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=DATA)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--tuned-seeds", nargs="*", type=int, default=[0], help="seeds for which the tuned recipe is run"
    )
    arguments = parser.parse_args()
    done = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {(row["data"], int(row["seed"])) for row in csv.DictReader(file)}
    for seed in arguments.seeds:
        for name in arguments.data:
            if (name, seed) in done:
                continue
            if seed in arguments.tuned_seeds:
                peer_run(name, "tuned", seed)
            row = compare(name, seed, arguments.rounds)
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            new = not OUT.exists()
            with OUT.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
