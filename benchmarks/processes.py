"""Two processes under torchrun against one with two threads, at the same batch: cells a second, and the ELBO.

    python benchmarks/processes.py                   # resumes from processes.csv
    python benchmarks/processes.py --repeats 1

kang_pbmc_12k, SCVI with the donors as batches and LDVAE, the default epochs; one process with one and with two threads,
and two processes with one thread each, alternating. Cells a second are of the whole training, validation included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pandas as pd
from peer_scvi_tools import load
from rows import append, missing

import lucidcell as lc
from lucidcell.training.processes import rank

OUT = Path(__file__).with_name("processes.csv")
BATCH_SIZES = (128, 1024)
WAYS = {"one process, one thread": (1, 1), "one process, two threads": (1, 2), "two processes": (2, 1)}


def row(model_name: str, batch_size: int, n_threads: int) -> None:
    """Train, and print what came out; under torchrun the first process does."""
    model = getattr(lc, model_name)(load("kang_pbmc_12k"), batch_key="donor")
    model.train(max_epochs=1, batch_size=batch_size, num_threads=n_threads, progress=False)  # compiles
    model.train(batch_size=batch_size, num_threads=n_threads, progress=False)
    if rank() == 0:
        facts = model.training_facts
        elbo = float(model.history["validation_negative_elbo"].min())
        print(json.dumps({"cells_per_second": facts["cells_per_second"], "negative_elbo": elbo}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--row", nargs=3, metavar=("MODEL", "BATCH", "THREADS"), help="a row, in this process")
    given = parser.parse_args()
    if given.row:
        row(given.row[0], int(given.row[1]), int(given.row[2]))
        return
    keys = ["model", "batch_size", "repeat", "way"]
    wanted = product(("SCVI", "LDVAE"), BATCH_SIZES, range(given.repeats), WAYS)
    for model, batch_size, repeat, way in missing(OUT, keys, wanted):
        n_processes, n_threads = WAYS[way]
        start = [sys.executable, "-W", "ignore"]
        if n_processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
        command = [*start, __file__, "--row", model, str(batch_size), str(n_threads)]
        answer = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        found = json.loads(answer.stdout.splitlines()[-1])
        append(OUT, [{"model": model, "batch_size": batch_size, "repeat": repeat, "way": way} | found])
    table = pd.read_csv(OUT).groupby(["model", "batch_size", "way"])[["cells_per_second", "negative_elbo"]].median()
    print(table.unstack().round(1).to_string())


if __name__ == "__main__":
    main()
