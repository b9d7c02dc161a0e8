"""What each process of `test_processes.py` runs under torchrun; every process compares with the whole batch itself."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import torch
from battery import HELD_OUT, cells
from torch import nn

import lucidcell as lc
from lucidcell.cells import stored
from lucidcell.maths import across
from lucidcell.maths.folded_norm import fold_batch_norm
from lucidcell.training.optimizer import Adam
from lucidcell.training.processes import Processes

TRAINING = {"max_epochs": 2, "batch_size": 32, "num_threads": 1, "progress": False, "precision": "float32"}
SMALL = {"n_hidden": 16, "n_latent": 3, "dropout_rate": 0.0}
MODELS = {
    "scvi": lambda a: lc.SCVI(a, batch_key="batch", n_layers=2, **SMALL),
    "scanvi": lambda a: lc.SCANVI(
        a, labels_key="known", unlabeled_category="?", training="joint", elbo="marginal", **SMALL
    ),
    "ldvae": lambda a: lc.LDVAE(a, batch_key="batch", **SMALL),
    "vae": lambda a: lc.VAE(a, n_hidden=16, n_latent=3),
    "sivae": lambda a: lc.SIVAE(a, n_hidden=16, n_latent=3, pretrain=False),
    "sce2tm": lambda a: lc.SCE2TM(a, n_hidden=16, n_topics=3),
    "scetm": lambda a: lc.SCETM(a, n_hidden=16, n_topics=3, dropout_rate=0.0),
}


def assert_close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def norms(processes: Processes) -> None:
    """Values, gradients and running moments of batch-norm, plain and folded, in parts of 5 and 4 rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    scores = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    mine = torch.tensor_split(torch.arange(9), 2)[processes.rank]
    part, whole = x[mine].requires_grad_(), x.clone().requires_grad_()
    norm, wanted = across.Norm(6, momentum=0.1).double(), nn.BatchNorm1d(6, momentum=0.1).double()
    with processes.together():
        (norm(part).sin() * scores[mine]).sum().backward()
        processes.sum_gradients(list(norm.parameters()))
    (wanted(whole).sin() * scores).sum().backward()
    assert_close(part.grad, whole.grad[mine], 1e-10)
    for name, value in wanted.named_parameters():
        assert_close(norm.get_parameter(name).grad, value.grad, 1e-10)
    for name, value in wanted.state_dict().items():
        assert_close(norm.state_dict()[name], value, 1e-10)

    def folded(inputs: torch.Tensor, of: list[nn.Parameter], rows: torch.Tensor) -> torch.Tensor:
        found = fold_batch_norm(inputs, *of, eps=1e-3)
        return ((inputs @ found.weight.t() + found.bias).sin() * scores[rows][:, :4]).sum()

    start = [
        torch.randn(4, 6, generator=generator, dtype=torch.float64),
        torch.ones(4).double(),
        torch.zeros(4).double(),
    ]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    part, whole = x[mine].requires_grad_(), x.clone().requires_grad_()
    with processes.together():
        folded(part, ours, mine).backward()
        processes.sum_gradients(ours)
    folded(whole, theirs, torch.arange(9)).backward()
    assert_close(part.grad, whole.grad[mine], 1e-10)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one.grad, other.grad, 1e-10)


@contextmanager
def no_noise():  # type: ignore[no-untyped-def]
    """Latent variables at their means, so that processes do not differ in their draws."""
    randn = torch.randn

    def drawn(*size, **options):  # type: ignore[no-untyped-def]
        return torch.zeros(*size, **options) if "dtype" in options else randn(*size, **options)  # weights have none

    with patch.object(torch, "randn_like", torch.zeros_like), patch.object(torch, "randn", drawn):
        yield


def alone(device: torch.device) -> Processes:
    return Processes()


def models(processes: Processes) -> None:
    """The gradients of the first step in two processes are those of a single one, and so is the course, but for draws.

    Weights are not compared: Adam moves a weight with next to no gradient as far as others, wherever rounding points.
    """
    for name, build in MODELS.items():
        two, one = (first_gradients(build, join) for join in (Processes.join, alone))
        for ours, wanted in zip(two[0], one[0], strict=True):
            size = float(wanted.abs().max()) if wanted.numel() else 0.0
            assert ours.shape == wanted.shape, name
            np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * size + 1e-5, err_msg=name)
        assert list(two[1].columns) == list(one[1].columns)
        np.testing.assert_allclose(two[1][HELD_OUT], one[1][HELD_OUT], rtol=1e-3, err_msg=name)


def first_gradients(
    build: Callable[[ad.AnnData], Any], join: Callable[[torch.device], Processes]
) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Of the first step, with the history of the whole training."""
    gradients: list[torch.Tensor] = []
    plain_step = Adam.step

    def step(self: Adam, rate: float) -> None:
        if not gradients:
            gradients.extend(torch.zeros(0) if p.grad is None else p.grad.clone() for p in self.parameters)
        plain_step(self, rate)

    with no_noise(), patch.object(Processes, "join", join), patch.object(Adam, "step", step):
        model = build(cells())
        model.train(**TRAINING)
    return gradients, model.history


def corners(processes: Processes) -> None:
    """From a file; a process without labelled cells; fewer held-out cells than processes: both end with one model."""
    labelled_first = cells()
    labelled_first.obs["known"] = np.where(np.arange(90) < 20, labelled_first.obs["cell_type"].astype(str), "?")
    with tempfile.TemporaryDirectory() as folder, patch.object(stored, "IN_MEMORY", 0):
        file = Path(folder, "cells.h5ad")
        cells().write_h5ad(file)
        models = {
            "from a file": lc.SCVI(lc.read_h5ad(file, backed="r"), n_hidden=16, n_latent=3),
            "labels on one side": lc.SCANVI(
                labelled_first, labels_key="known", unlabeled_category="?", training="joint", n_hidden=16, n_latent=3
            ),
            "one held out": lc.SCVI(cells(), n_hidden=16, n_latent=3),
        }
        for name, model in models.items():
            model.train(**TRAINING, train_size=0.99 if name == "one held out" else 0.8, buffer_gb=1e-6)
            for key, value in model.module.state_dict().items():
                for other in processes.gather(value):
                    assert torch.equal(other, value), (name, key)
            history = model.history.drop(columns="seconds")
            for other in processes.gather(history):
                pd.testing.assert_frame_equal(other, history)
        assert models["from a file"].cells is not None
        assert not models["from a file"].cells.in_memory
        assert len(models["one held out"].validation_indices) == 1


if __name__ == "__main__":
    here = Processes.join(torch.device("cpu"))
    assert here.size == 2
    {"norms": norms, "models": models, "corners": corners}[sys.argv[1]](here)
    torch.distributed.barrier()
    print(f"process {here.rank} agrees", flush=True)
