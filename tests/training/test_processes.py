"""Two processes under torchrun: the arithmetic of one with the whole batch, checkpoints, and what a dead one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.errors import SettingError, TrainingError
from lucidcell.training.processes import Processes, _in_a_sentence, alone, rank
from lucidcell.training.split import cut

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")

TORCHRUN = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
WORKER = Path(__file__).with_name("across_processes.py")
PATHS = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes") / "cells.h5ad"
    simulate_counts(1500, 60, n_programs=4, n_types=4, n_batches=2, seed=0).write_h5ad(path)
    return path


def fit(file: Path, out: Path, *options: str, together: bool = True) -> list[str]:
    start = TORCHRUN if together else [sys.executable]
    small = ["--n-hidden", "32", "--n-latent", "4", "--batch-size", "64", "--batch-key", "batch"]
    return [*start, "-m", "lucidcell", "fit", str(file), "--out", str(out), *small, *options]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | PATHS, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("of", ["norms", "corners", pytest.param("models", marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_does(of: str) -> None:
    done = run([*TORCHRUN, str(WORKER), of])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(" agrees") == 2


@pytest.mark.slow
def test_a_run_is_written_once_and_is_as_good(file: Path, tmp_path: Path) -> None:
    epochs = ["--max-epochs", "12"]
    together, alone = (
        run(fit(file, tmp_path / "two", *epochs)),
        run(fit(file, tmp_path / "one", *epochs, together=False)),
    )
    assert together.returncode == 0, together.stderr[-3000:]
    assert alone.returncode == 0, alone.stderr
    assert together.stdout.count("report: ") == 1
    assert together.stdout.count("Cells(1500 cells") == 1
    two, one = (pd.read_csv(tmp_path / name / "history.csv")["validation_negative_elbo"] for name in ("two", "one"))
    np.testing.assert_allclose(two.min(), one.min(), rtol=0.005)
    model = lc.load(tmp_path / "two", lc.read_h5ad(file))
    assert model.training_facts["n_train"] == 1350
    assert np.isfinite(model.get_loadings()).all().all()


DYING = """
import os, signal, sys
from lucidcell import cli
from lucidcell.training import loop, resume
resume.CHECKPOINT_SECONDS, resume.CHECKPOINT_SHARE, step, n_steps = 0.0, 0, loop.Adam.step, 0

def dying(self, *arguments):
    global n_steps
    n_steps += 1
    if n_steps == 50 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

loop.Adam.step = dying
cli.main()
"""


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_sentence_and_another_number_goes_on(file: Path, tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    options = ["--max-epochs", "6"]
    command = fit(file, tmp_path / "run", *options)
    at = command.index("-m", len(TORCHRUN))
    killed = run([*command[:at], str(script), *command[at + 2 :]])
    assert killed.returncode not in (0, None)
    assert "exitcode  : -9" in killed.stderr  # torchrun's account of the process that died
    assert not (tmp_path / "run" / "model.json").exists()
    resumed = run(fit(file, tmp_path / "run", *options, "--resume", together=False))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "a checkpoint of 2 processes goes on with 1" in resumed.stderr
    whole = run(fit(file, tmp_path / "whole", *options, together=False))
    assert whole.returncode == 0
    one, other = (pd.read_csv(tmp_path / name / "history.csv") for name in ("run", "whole"))
    assert len(one) == len(other) == 6
    last = "validation_negative_elbo"
    np.testing.assert_allclose(one[last].min(), other[last].min(), rtol=0.005)


def test_fits_of_their_own_are_no_part_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert rank() == 1
    with alone():
        assert Processes.join(torch.device("cpu")) == Processes()
        assert rank() == 0
    assert os.environ["TORCHELASTIC_RUN_ID"] == "x"


def test_who_is_left_says_what_happened() -> None:
    with pytest.raises(TrainingError, match=r"another process of this run has ended, or .*Connection closed by peer"):
        with _in_a_sentence():
            raise RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711")
    with pytest.raises(RuntimeError, match="shapes"), _in_a_sentence():
        raise RuntimeError("shapes do not fit")


def test_parts_of_a_batch_are_all_of_it_and_never_one_cell() -> None:
    for n in range(8, 100):
        for size in (1, 2, 3):
            batches = cut(np.arange(n), 8, 2 * size)
            np.testing.assert_array_equal(np.concatenate(batches), np.arange(n))
            for batch in batches:
                parts = [Processes(rank, size).part(batch) for rank in range(size)]
                np.testing.assert_array_equal(np.concatenate(parts), batch)
                assert min(map(len, parts)) >= 2


def test_too_small_batches_are_refused() -> None:
    with pytest.raises(SettingError, match="a batch of 5 cells is too small for 3 processes"):
        Processes(0, 3).check_batches([np.arange(9), np.arange(5)])
    Processes(0, 1).check_batches([np.arange(2)])
