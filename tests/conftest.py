"""What all tests share: one thread, no network, and simulated cells."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in child processes
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "agg")

import socket
from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import numpy as np
import pytest

from lucidcell.cells.simulate import simulate_counts

pytest.register_assert_rewrite("battery")

if "copy_on_write_X" in dir(ad.settings):
    ad.settings.copy_on_write_X = True  # as anndata 0.13 does


HERE = ("localhost", "127.0.0.1", "::1", "")  # where the workers of a test may listen


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Any use of the network fails the test that makes it, also inside `except Exception`; this machine is none."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"the network was used: {args}")

    def only_here(function: Callable[..., Any], host_of: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            if host_of(*args) not in HERE:
                refuse(*args)
            return function(*args, **kwargs)

        return checked

    def host(self: socket.socket, address: Any) -> Any:
        return "localhost" if self.family == getattr(socket, "AF_UNIX", None) else address[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, only_here(getattr(socket.socket, name), host))
        patch.setattr(socket.socket, "sendto", refuse)
        for name in ("getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, only_here(getattr(socket, name), lambda name, *_: name))
        yield


@pytest.fixture(scope="session")
def simulated_once() -> ad.AnnData:
    adata = simulate_counts(120, 50, n_programs=3, n_types=3, n_batches=2, seed=1)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["f", "m"], 120)
    adata.obs["age"] = rng.normal(50, 10, 120)
    adata.obs["size"] = adata.X.sum(1).A1 * rng.uniform(0.8, 1.2, 120)
    return adata


@pytest.fixture
def simulated(simulated_once: ad.AnnData) -> ad.AnnData:
    """120 cells x 50 genes of 3 types in 2 batches, with covariates; a copy for each test."""
    return simulated_once.copy()


@pytest.fixture(scope="session")
def trained(simulated_once: ad.AnnData) -> Callable[..., Any]:
    """`trained(**arguments)`: an SCVI of the simulated cells, trained a little; made once, so not to be changed."""
    from lucidcell.models.scvi import SCVI

    made: dict[str, SCVI] = {}

    def get(**arguments: Any) -> SCVI:
        arguments = {"batch_key": "batch", "labels_key": "cell_type", "n_hidden": 16, "n_latent": 3} | arguments
        name = repr(sorted(arguments.items()))
        if name not in made:
            made[name] = SCVI(simulated_once, **arguments)
            made[name].train(6, batch_size=32, num_threads=1, progress=False)
        return made[name]

    return get
