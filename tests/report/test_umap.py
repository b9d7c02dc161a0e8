"""The map of cells: written once, the same each time, without touching anyone's random state."""

from __future__ import annotations

import os
import random
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness

from lucidcell.report.folder import Run
from lucidcell.report.umap import cell_map, compute_umap, uncorrected_map


@pytest.fixture
def latent():
    rng = np.random.default_rng(3)
    centres = 6 * rng.normal(size=(4, 5))
    return centres[np.arange(200) % 4] + rng.normal(size=(200, 5))


def read(run):
    return pd.read_csv(run / "tables/umap.csv")


def age(path, seconds):
    """Make a file this much older than the latent table."""
    stamp = (path.parent / "latent.csv").stat().st_mtime - seconds
    os.utime(path, (stamp, stamp))


def test_neighbours_stay_neighbours(latent):
    xy = compute_umap(latent)
    assert xy.shape == (200, 2)
    assert trustworthiness(latent, xy, n_neighbors=10) > 0.9
    shuffled = np.random.default_rng(0).permutation(xy)
    assert trustworthiness(latent, shuffled, n_neighbors=10) < 0.7  # the measure can tell


def test_same_map_whatever_the_global_random_state_which_stays_as_it_is(latent):
    import torch

    maps = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        torch.manual_seed(seed)
        before = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
        maps.append(compute_umap(latent))
        after = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
        assert (before[0][1] == after[0][1]).all()
        assert before[0][2:] == after[0][2:]
        assert before[1] == after[1]
        assert (before[2] == after[2]).all()
    np.testing.assert_array_equal(maps[0], maps[1])


@pytest.mark.parametrize(("n", "n_factors"), [(10, 1), (10, 3), (11, 2), (16, 1), (17, 5)])
def test_small_runs_have_a_map(n, n_factors):
    xy = compute_umap(np.random.default_rng(0).normal(size=(n, n_factors)))
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()


def test_cells_that_are_all_alike_have_a_map():
    assert np.isfinite(compute_umap(np.ones((30, 3)))).all()


def test_map_is_written_and_then_read(make_run):
    run = make_run(umap=False)
    first = cell_map(Run(run))
    table = read(run)
    assert list(table.columns) == ["cell", "umap1", "umap2"]
    assert list(table["cell"]) == list(Run(run).cells["cell"])
    np.testing.assert_allclose(table[["umap1", "umap2"]], first.xy, rtol=1e-5)
    table.assign(umap1=range(120)).to_csv(run / "tables/umap.csv", index=False)
    np.testing.assert_array_equal(cell_map(Run(run)).xy[:, 0], range(120))


def test_a_map_older_than_the_latent_table_is_made_again(make_run):
    run = make_run()
    path = run / "tables/umap.csv"
    before = read(run)
    age(path, -10)
    cell_map(Run(run))
    assert read(run).equals(before)
    age(path, 10)
    cell_map(Run(run))
    assert not read(run).equals(before)


def test_a_map_of_some_cells_in_any_order(make_run):
    run = make_run()
    table = read(run).iloc[[40, 7, 100]]
    table.to_csv(run / "tables/umap.csv", index=False)
    drawn = cell_map(Run(run))
    assert list(drawn.rows) == [40, 7, 100]
    np.testing.assert_array_equal(drawn.xy, table[["umap1", "umap2"]])


def test_large_runs_are_mapped_and_drawn_in_part(make_run, monkeypatch):
    module = import_module("lucidcell.report.umap")
    monkeypatch.setattr(module, "MAPPED_CELLS", 60)
    monkeypatch.setattr(module, "DRAWN_CELLS", 25)
    run = make_run(umap=False)
    first, second = cell_map(Run(run)), cell_map(Run(run))  # computed, then read
    assert len(read(run)) == 60
    assert len(first.rows) == 25
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_allclose(first.xy, second.xy, rtol=1e-4)
    place = read(run).set_index("cell")["umap1"]
    names = Run(run).cells["cell"].to_numpy()[first.rows]
    np.testing.assert_allclose(place[names], second.xy[:, 0])


def test_uncorrected_cells_have_a_map_of_their_own(make_run):
    run = make_run()
    assert uncorrected_map(Run(run)) is None
    rng = np.random.default_rng(0)
    cells = Run(run).cells["cell"].to_numpy()[[50, 3, *range(60, 90)]]
    table = pd.DataFrame(rng.normal(size=(32, 3)), columns=["PC1", "PC2", "PC3"])
    table.assign(cell=cells).to_csv(run / "tables/uncorrected.csv", index=False)
    first, second = uncorrected_map(Run(run)), uncorrected_map(Run(run))  # computed, then read
    assert list(first.rows) == [50, 3, *range(60, 90)]
    assert list(pd.read_csv(run / "tables/umap_uncorrected.csv")["cell"]) == list(cells)
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_allclose(first.xy, second.xy, rtol=1e-4)


def test_a_map_that_cannot_be_kept_is_still_drawn(make_run, monkeypatch, caplog):
    run = make_run(umap=False)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert len(cell_map(Run(run)).rows) == 120
    assert "not kept for the next report" in caplog.text
    assert not list((run / "tables").glob("*umap*"))
