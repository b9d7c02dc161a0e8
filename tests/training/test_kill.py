"""A real process, really killed, at random times; then resumed until it is done."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import lucidcell as lc
from lucidcell.training import loop

loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_SHARE = 0.0, 0
folder = Path(sys.argv[1])
model = lc.SCVI(lc.simulate_counts(200, 80), batch_key="batch", n_hidden=32, n_latent=4)
print("ready", flush=True)
model.train(12, batch_size=32, num_threads=1, progress=False, checkpoint_dir=folder / "checkpoint", resume=True)
model.save(folder / "run")
"""


def start(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "ready\n"
    return process


def outcome(folder: Path) -> tuple[str, list[list[str]]]:
    """Hash of the weights, and the history without the clock."""
    weights = hashlib.sha256((folder / "run/weights.safetensors").read_bytes()).hexdigest()
    rows = [line.split(",")[:-1] for line in (folder / "run/history.csv").read_text().splitlines()]
    return weights, rows


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_six_sigkills_and_the_result_is_that_of_the_unbroken_run(tmp_path):
    began = time.perf_counter()
    assert start(tmp_path / "whole").wait() == 0
    duration = time.perf_counter() - began
    rng, kills = random.Random(0), 0
    while kills < 6:
        process = start(tmp_path / "broken")
        time.sleep(rng.uniform(0.05, duration / 3))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "broken/run/model.json").exists():
            break
    assert start(tmp_path / "broken").wait() == 0 or (tmp_path / "broken/run/model.json").exists()
    assert kills >= 1
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")
