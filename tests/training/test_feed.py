"""Training on cells that stay in their file: which cells come when, and that it can be cut off anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import numpy as np
import pytest
from battery import assert_same_weights, checkpoint_every_step

import lucidcell as lc
from lucidcell.cells import stored
from lucidcell.cells.cells import Cells
from lucidcell.cells.simulate import simulate_counts
from lucidcell.cells.stored import StoredMatrix
from lucidcell.errors import SettingError
from lucidcell.models.scvi import SCVI
from lucidcell.readouts import streamed
from lucidcell.training.feed import Feed, Windows, held_out_in_memory
from lucidcell.training.split import shuffled


@pytest.fixture(autouse=True)
def _no_file_is_small() -> Iterator[None]:
    with patch.object(stored, "IN_MEMORY", 0):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """2,000 cells, sorted by type."""
    adata = simulate_counts(2000, 50, n_programs=4, n_types=4, seed=0)
    adata[np.argsort(adata.obs["cell_type"].astype(str).to_numpy(), kind="stable")].copy().write_h5ad(
        tmp_path / "cells.h5ad"
    )
    return tmp_path / "cells.h5ad"


def cells_of(file: Path) -> Cells:
    return Cells.from_anndata(lc.read_h5ad(file, backed="r"), labels_key="cell_type")


def test_every_cell_comes_once_an_epoch_and_from_what_was_read(file: Path) -> None:
    cells = cells_of(file)
    rows = np.flatnonzero(np.arange(2000) % 10 > 0)
    feed = Feed(cells, rows, 32, 0, Windows(16, 8))
    orders = []
    for epoch in range(3):
        seen = []
        for first, stop, batches, source in feed.stretches(epoch, 0):
            for batch in batches[first:stop]:
                np.testing.assert_array_equal(source.take(batch).rows, batch)
                seen.append(batch)
        orders.append(np.concatenate(seen))
        np.testing.assert_array_equal(np.sort(orders[-1]), rows)
        np.testing.assert_array_equal(orders[-1], np.concatenate(feed.batches(epoch)))
    assert not np.array_equal(orders[0], orders[1])
    feed.close()


def test_an_epoch_can_be_entered_at_any_step(file: Path) -> None:
    cells = cells_of(file)
    whole = Feed(cells, np.arange(2000), 32, 0, Windows(16, 8))
    wanted = [batch for one in whole.stretches(1, 0) for batch in one.batches[one.first : one.stop]]
    for step in (0, 1, 7, 8, 9, 62):
        feed = Feed(cells, np.arange(2000), 32, 0, Windows(16, 8))
        found = [batch for one in feed.stretches(1, step) for batch in one.batches[one.first : one.stop]]
        for one, other in zip(found, wanted[step:], strict=True):
            np.testing.assert_array_equal(one, other)
        feed.close()
    whole.close()


def test_the_next_window_is_read_ahead_also_into_the_next_epoch(file: Path) -> None:
    feed = Feed(cells_of(file), np.arange(2000), 32, 0, Windows(16, 40))
    first, second = feed.stretches(0, 0)
    assert (first.stop, second.stop) == (40, 63)
    assert feed.ahead is not None
    assert feed.ahead[0] == (1, 0)
    ahead = feed.ahead[1].result()
    np.testing.assert_array_equal(np.concatenate(ahead.batches), np.concatenate(feed.batches(1)))
    feed.close()


def test_blocks_stay_together_on_the_way_from_the_file() -> None:
    rows = np.arange(10_000)
    order = shuffled(rows, 0, 0, block=64, window=1280)
    np.testing.assert_array_equal(np.sort(order), rows)
    for start in range(0, 10_000, 1280):  # a window has whole blocks, but for those cut at its ends
        held = np.sort(order[start : start + 1280])
        assert np.count_nonzero(np.diff(held) > 1) <= 1280 // 64 + 1
    first = [shuffled(rows, 0, epoch, block=64, window=1280)[:1280] for epoch in range(2)]
    assert len(np.intersect1d(*first)) < 400  # another selection of blocks


def test_batches_are_mixed_as_sampling_without_replacement_would() -> None:
    """Types of a sorted file over batches: chi-square of the table stays near its degrees of freedom."""
    labels = np.repeat(np.arange(4), 10_000)

    def statistic(block: int | None, window: int | None) -> float:
        total, n = 0.0, 0
        for epoch in range(5):
            order = shuffled(np.arange(40_000), 0, epoch, block, window)
            table = np.stack([np.bincount(labels[part], minlength=4) for part in np.split(order[:39_936], 312)])
            total += (np.square(table - 32) / 32).sum()
            n += 312 * 3
        return total / n

    assert statistic(None, None) == pytest.approx(1, abs=0.05)
    # a window has 256 random blocks: its shares vary like those of 256 draws, a batch of 128 by half as much again
    assert statistic(64, 16_384) == pytest.approx(1 + 128 / 256, abs=0.25)
    assert statistic(64, 1024) > 5  # 16 blocks are too few, and the test can see it


def test_windows_follow_from_memory(file: Path) -> None:
    cells = cells_of(file)
    per_cell = 8 * cells.counts.lengths().mean()
    windows = Windows.of(cells, 32, 2 * 640 * per_cell / 2**30)
    assert windows is not None
    assert windows.n_batches in (19, 20)
    assert windows.block == windows.n_batches * 32 // 16
    assert Windows.of(cells, 32, 1e-9) == (16, 8)  # never fewer
    with patch.object(stored, "IN_MEMORY", 2**60):
        assert Windows.of(cells_of(file), 32, 1.0) is None


def test_held_out_cells_are_in_memory_and_as_many_as_fit(file: Path) -> None:
    cells = cells_of(file)
    rows = np.arange(0, 2000, 4)
    source, all_of_them = held_out_in_memory(cells, rows, 0, 1.0)
    np.testing.assert_array_equal(all_of_them, rows)
    with patch.object(StoredMatrix, "read", side_effect=AssertionError("the file was read")):
        source.take(rows[10:20])
    per_cell = 8 * cells.counts.lengths().mean()
    _, some = held_out_in_memory(cells, rows, 0, 2 * 100.5 * per_cell / 2**30)
    assert len(some) == 100
    assert np.isin(some, rows).all()


def test_from_a_sorted_file_the_model_is_as_good_as_from_memory(file: Path) -> None:
    backed = lc.read_h5ad(file, backed="r")
    training = {"max_epochs": 30, "batch_size": 64, "num_threads": 1, "progress": False}
    found = {}
    for name, adata in (("file", backed), ("memory", backed.to_memory())):
        model = SCVI(adata, n_hidden=32, n_latent=4)
        model.train(**training, buffer_gb=2e-4)
        assert model.cells is not None
        assert model.cells.in_memory == (name == "memory")
        found[name] = model.history["validation_negative_elbo"].min()
    assert found["file"] == pytest.approx(found["memory"], rel=0.005)


SCRIPT = """
import sys
from unittest.mock import patch
import lucidcell as lc
from lucidcell.cells import stored
from lucidcell.training import loop, resume
file, folder, kill = sys.argv[1:]
stored.IN_MEMORY, resume.CHECKPOINT_SECONDS, resume.CHECKPOINT_SHARE = 0, 0.0, 0
if kill == "kill":
    import os, signal
    step = loop.Adam.step
    n = 0
    def killing(self, *arguments):
        global n
        n += 1
        if n == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments)
    loop.Adam.step = killing
model = lc.SCVI(lc.read_h5ad(file, backed="r"), n_hidden=16, n_latent=3)
assert not model.cells.in_memory
model.train(max_epochs=3, batch_size=32, num_threads=1, progress=False, buffer_gb=2e-4,
            checkpoint_dir=folder + "/checkpoint", resume=True)
model.save(folder, overwrite=True)
"""


def test_killed_in_the_middle_of_an_epoch_it_goes_on_bit_for_bit(file: Path, tmp_path: Path) -> None:
    def run(folder: str, kill: str) -> int:
        command = [sys.executable, "-c", SCRIPT, str(file), str(tmp_path / folder), kill]
        return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode

    assert run("whole", "no") == 0
    assert run("killed", "kill") == -signal.SIGKILL
    assert (tmp_path / "killed" / "checkpoint" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "killed" / "model.json").exists()
    assert run("killed", "no") == 0
    one, other = lc.load(tmp_path / "whole"), lc.load(tmp_path / "killed")
    assert_same_weights(one.module.state_dict(), other.module.state_dict())


def test_read_outs_of_a_model_on_a_file_go_to_a_zarr_array(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backed = lc.read_h5ad(file, backed="r")
    model = SCVI(backed, n_hidden=16, n_latent=3)
    model.train(max_epochs=1, progress=False)
    monkeypatch.setattr(streamed, "CELLS_AT_A_TIME", 300)
    z = model.get_latent_representation(out=tmp_path / "z.zarr")
    assert z.chunks == (300, 3)
    np.testing.assert_array_equal(z[...], model.get_latent_representation())
    of_memory = ad.read_h5ad(file)
    with patch.object(stored, "IN_MEMORY", 2**60):
        np.testing.assert_allclose(z[...], model.get_latent_representation(of_memory), rtol=1e-5, atol=1e-6)
        rho = model.get_normalized_expression(
            of_memory, gene_list=["g3", "g1"] if "g3" in of_memory.var_names else None
        )
    genes = list(rho.columns)
    written = model.get_normalized_expression(gene_list=genes, out=tmp_path / "rho.zarr")
    np.testing.assert_allclose(written[...], rho.to_numpy(), rtol=1e-4, atol=1e-7)
    assert not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(lc.errors.FileError, match="exists already"):
        model.get_latent_representation(out=tmp_path / "z.zarr")


def test_a_run_from_a_file_does_not_go_on_from_memory(file: Path, tmp_path: Path) -> None:
    """Which cells have been seen would be unknown."""
    training = {
        "max_epochs": 2,
        "batch_size": 64,
        "num_threads": 1,
        "progress": False,
        "checkpoint_dir": tmp_path / "c",
    }
    with checkpoint_every_step():
        SCVI(lc.read_h5ad(file, backed="r"), n_hidden=16).train(**training, buffer_gb=1e-4)
    with patch.object(stored, "IN_MEMORY", 2**60), pytest.raises(SettingError, match="windows was"):
        SCVI(lc.read_h5ad(file), n_hidden=16).train(**training, buffer_gb=1e-4, resume=True)


def test_without_held_out_cells_and_with_one(file: Path) -> None:
    backed = lc.read_h5ad(file, backed="r")
    for train_size, n in ((1.0, 0), (0.9995, 1)):
        model = SCVI(backed, n_hidden=16)
        model.train(max_epochs=1, train_size=train_size, progress=False, buffer_gb=1e-6)
        assert len(model.validation_indices) == n
        assert ("validation_negative_elbo" in model.history) == (n > 0)
