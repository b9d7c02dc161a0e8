"""Damage on purpose: killed trainings and corrupted files, each in a process of its own. Slow; `make test-slow`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

N_KILLS = 30
N_CORRUPTIONS = 30
SECONDS_TO_ANSWER = 60

TRAIN = """
import sys
from pathlib import Path
import lucidcell as lc
from lucidcell.training import resume

resume.CHECKPOINT_SECONDS, resume.CHECKPOINT_SHARE = 0.0, 0  # a checkpoint after every step
adata = lc.simulate_counts(n_cells=500, n_genes=120, seed=1)
model = lc.SCVI(adata, batch_key="batch", n_hidden=32)
folder = Path(sys.argv[1])
print("ready", flush=True)
model.train(12, batch_size=64, checkpoint_dir=folder, resume=True, progress=False, num_threads=1)
model.save(folder / "run")
"""

READ = """
import sys
import lucidcell as lc
try:
    adata = lc.read_h5ad(sys.argv[1])
except lc.LucidcellError as error:
    print("error:", type(error).__name__, str(error)[:150])
else:
    print("read:", float(adata.X.sum(dtype="float64")), adata.shape, list(adata.obs.columns))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(program: str, *arguments: object) -> str:
    with start(program, *arguments) as process:
        output, errors = process.communicate(timeout=SECONDS_TO_ANSWER)
    assert process.returncode == 0, errors[-2000:]
    return output


def test_training_resumes_bit_for_bit_after_sigkill(tmp_path: Path) -> None:
    """30 kills at random times; every restart resumes, and nothing differs at the end."""
    from safetensors.numpy import load_file

    finish(TRAIN, tmp_path / "whole")
    rng = np.random.default_rng(0)
    kills, runs = 0, 0
    while kills < N_KILLS:
        folder = tmp_path / f"killed_{runs}"
        runs += 1
        while not (folder / "run" / "model.json").exists():
            with start(TRAIN, folder) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.readline()  # imports are done
                if kills < N_KILLS:
                    time.sleep(rng.uniform(0.02, 2.5))
                else:
                    process.wait(SECONDS_TO_ANSWER)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                elif process.returncode != 0:
                    pytest.fail(process.stderr.read()[-2000:])
        expected = load_file(tmp_path / "whole" / "run" / "weights.safetensors")
        found = load_file(folder / "run" / "weights.safetensors")
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)
        assert history(folder) == history(tmp_path / "whole")
        assert last_moments(folder).keys() == last_moments(tmp_path / "whole").keys()
        for name, value in last_moments(tmp_path / "whole").items():
            assert np.array_equal(value, last_moments(folder)[name]), name
    print(f"{kills} kills over {runs} runs")


def history(folder: Path) -> str:
    import pandas as pd

    return pd.read_csv(folder / "run" / "history.csv").drop(columns="seconds").to_csv()


def last_moments(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    stored = load_file(folder / "checkpoint.safetensors")
    return {name: value for name, value in stored.items() if name.startswith("optimizer.")}


def corruptions(whole: Path, folder: Path) -> list[Path]:
    """30 damaged copies: cut short, indices out of range or negative, indptr not monotone, bytes flipped."""
    import h5py

    content = whole.read_bytes()
    rng = np.random.default_rng(0)
    found = []

    def copy(name: str, damaged: bytes = content) -> Path:
        path = folder / f"{name}.h5ad"
        path.write_bytes(damaged)
        found.append(path)
        return path

    for i, share in enumerate(np.linspace(0.02, 0.98, 8)):
        copy(f"cut_{i}", content[: int(share * len(content))])
    for name, position, value in (
        ("indices", 0, 2_000_000_000), ("indices", 10, 99_999), ("indices", 5, -7), ("indices", -1, 120),
        ("indptr", 3, 10**6), ("indptr", 4, -1), ("indptr", 1, 0), ("indptr", -1, 10**9),
    ):  # fmt: skip
        with h5py.File(copy(f"{name}_{position}_{value}"), "r+") as file:
            if name == "indptr" and value == 0:
                file["X/indptr"][1:3] = file["X/indptr"][1:3][::-1]
            else:
                file[f"X/{name}"][position] = np.array(value).astype(file[f"X/{name}"].dtype)
    for i in range(N_CORRUPTIONS - len(found)):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 10 ** (i % 3)):
            damaged[position] ^= int(rng.integers(1, 256))
        copy(f"flip_{i}", bytes(damaged))
    return found


def test_corrupt_files_are_errors_or_read_as_they_are(tmp_path: Path) -> None:
    """No signal, no hang: a typed error, or exactly what h5py finds in the file."""
    import h5py

    import lucidcell as lc

    whole = tmp_path / "whole.h5ad"
    lc.simulate_counts(n_cells=200, n_genes=120, seed=1).write_h5ad(whole)
    outcomes = []
    paths = corruptions(whole, tmp_path)
    assert len(paths) == N_CORRUPTIONS
    for path in paths:
        answer = finish(READ, path)
        outcomes.append(answer.split(":")[0])
        if answer.startswith("read:"):
            with h5py.File(path) as file:
                assert float(answer.split()[1]) == file["X/data"][:].sum(dtype="float64")
        print(path.stem, answer.strip())
    assert outcomes.count("error") >= 16  # the cut files and the bad indices, all of which must be seen
