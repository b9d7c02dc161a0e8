"""Fits side by side: failures are noted and tried again, and a Dask cluster gives what one process gives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lucidcell as lc
from lucidcell.errors import DataError, TrainingError
from lucidcell.models.ldvae import LDVAE
from lucidcell.readouts.many_fits import side_by_side
from lucidcell.readouts.refits import Task, refit

TRAINING = {"max_epochs": 1, "batch_size": 64}


@pytest.fixture
def small() -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (200, 20)).astype(np.float32)
    return ad.AnnData(sp.csr_matrix(counts))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """Two workers of one thread each; joblib's Dask backend finds the client by itself."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            host="127.0.0.1",
            local_directory=str(tmp_path / "dask"),
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


def fits(model: LDVAE, n: int, folder: Path | None, n_jobs: int = 1) -> list[np.ndarray]:
    found = refit(model, [Task(seed) for seed in range(n)], training=TRAINING, folder=folder, n_jobs=n_jobs)
    return [fit.loadings.to_numpy() for fit in found]


def doubtful() -> Callable[[str, int], int]:
    """Fails the first time for odd i, and always for i = 9; made here, since other processes do not know this file."""

    def squared(place: str, i: int) -> int:
        mark = Path(place, str(i))
        if i % 2 and (i == 9 or not mark.exists()):
            mark.touch()
            raise MemoryError(f"no room for {i}")
        return i * i

    return squared


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_fit_that_fails_is_noted_and_tried_again_alone(tmp_path: Path, n_jobs: int) -> None:
    names = [f"fit {i}" for i in range(6)]
    found = side_by_side(doubtful(), names, lambda i: (str(tmp_path), i), n_jobs=n_jobs, folder=tmp_path)
    assert found == [0, 1, 4, 9, 16, 25]
    noted = pd.read_csv(tmp_path / "failed.csv")
    assert list(noted["fit"]) == ["fit 1", "fit 3", "fit 5"]
    assert set(noted["attempt"]) == {1}
    assert noted["error"][0] == "MemoryError: no room for 1"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_are_kept_as_soon_as_they_are_there(tmp_path: Path, n_jobs: int) -> None:
    kept: list[tuple[int, int]] = []
    with pytest.raises(TrainingError, match="1 of 4 fits failed twice"):
        side_by_side(
            doubtful(), list("abcd"), lambda i: (str(tmp_path), 6 + i), n_jobs=n_jobs, folder=None,
            keep=lambda i, found: kept.append((i, found)),
        )  # fmt: skip
    assert sorted(kept[:2]) == [(0, 36), (2, 64)]  # those that did not fail at first
    assert kept[2:] == [(1, 49)]


def test_functions_that_name_the_package_can_be_sent() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")  # of Dask

    def version() -> str:
        return lc.__version__

    assert cloudpickle.loads(cloudpickle.dumps(version))() == lc.__version__
    assert cloudpickle.loads(cloudpickle.dumps(lc)) is lc


def test_fits_that_fail_twice_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1 of 2 fits failed twice \(fit 9\): MemoryError: no room for 9"):
        side_by_side(doubtful(), ["fit 8", "fit 9"], lambda i: (str(tmp_path), 8 + i), n_jobs=1, folder=tmp_path)
    assert list(pd.read_csv(tmp_path / "failed.csv")["attempt"]) == [1, 2]


def test_mistakes_are_not_tried_again() -> None:
    def mistaken(i: int) -> None:
        raise DataError("there is no such column")

    with pytest.raises(DataError, match="no such column"):
        side_by_side(mistaken, ["a"], lambda i: (i,), n_jobs=1, folder=None)


def test_a_killed_process_is_a_sentence(tmp_path: Path) -> None:
    def suicidal(i: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match="was killed, most often for want of memory, and those that are done"):
        side_by_side(suicidal, ["a", "b"], lambda i: (i,), n_jobs=2, folder=tmp_path)


def test_sixty_fits_on_a_cluster_that_loses_a_worker_are_those_of_one_process(
    small: ad.AnnData, cluster: Any, tmp_path: Path
) -> None:
    model = LDVAE(small, n_hidden=16, n_latent=3)
    wanted = fits(model, 60, None)
    first = next(iter(cluster.run(os.getpid).values()))
    folder = tmp_path / "fits"
    killed = []

    def kill_soon() -> None:
        deadline = time.monotonic() + 100
        while len(list(folder.glob("seed*"))) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(first, signal.SIGKILL)
        killed.append(len(list(folder.glob("seed*"))))

    killer = Thread(target=kill_soon)
    killer.start()
    with joblib.parallel_config("dask"):
        found = fits(model, 60, folder)
    killer.join()
    assert 10 <= killed[0] < 60
    assert len(list(folder.glob("seed*"))) == 60
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_stability_and_population_networks_run_on_a_cluster_unchanged(small: ad.AnnData, cluster: Any) -> None:
    small.obs["donor"] = np.repeat(["a", "b"], 100)
    arguments = {"seeds": 3, "training": TRAINING, "n_hidden": 16, "n_latent": 3}
    networks = {"by": "donor", "bin_size": 50, "n_top_genes": 10, "training": TRAINING, "progress": False}
    networks["model_arguments"] = {"n_hidden": 16, "n_latent": 2}
    serial = lc.stability(LDVAE, small, n_jobs=1, **arguments), lc.population_networks(small, **networks)
    with joblib.parallel_config("dask"):
        spread = lc.stability(LDVAE, small, n_jobs=1, **arguments), lc.population_networks(small, **networks)
    folds = lc.cross_validate(LDVAE, small, n_jobs=1, folds=3, training=TRAINING, n_hidden=16, n_latent=3)
    with joblib.parallel_config("dask"):
        of_cluster = lc.cross_validate(LDVAE, small, n_jobs=1, folds=3, training=TRAINING, n_hidden=16, n_latent=3)
    pd.testing.assert_frame_equal(folds, of_cluster)
    pd.testing.assert_frame_equal(serial[0].matches, spread[0].matches)
    pd.testing.assert_frame_equal(serial[1].centrality, spread[1].centrality)
