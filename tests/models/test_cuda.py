"""Models on a GPU: the loss of the CPU, exact resume, and read-outs; without a GPU nothing here runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pytest
import torch

import lucidcell as lc
from lucidcell.cells.simulate import simulate_counts
from lucidcell.training.loop import _Loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

SMALL = {"batch_key": "batch", "n_latent": 4, "n_hidden": 32}
TRAINING = {"max_epochs": 6, "batch_size": 64, "progress": False}
MODELS = {
    "scvi": lambda adata: lc.SCVI(adata, **SMALL),
    "scvi-zinb": lambda adata: lc.SCVI(adata, gene_likelihood="zinb", use_observed_lib_size=False, **SMALL),
    "scanvi": lambda adata: lc.SCANVI(adata, labels_key="known", unlabeled_category="?", **SMALL),
    "scanvi-sampled": lambda adata: lc.SCANVI(
        adata, labels_key="known", unlabeled_category="?", label_sum="sampled", n_unobserved_types=16, **SMALL
    ),
    "scanvi-tree": lambda adata: lc.SCANVI(adata, labels_key=["group", "known"], unlabeled_category="?", **SMALL),
    "ldvae": lambda adata: lc.LDVAE(adata, **SMALL),
    "sce2tm": lambda adata: lc.SCE2TM(adata, n_topics=4, n_hidden=32),
}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = simulate_counts(500, 80, n_types=4, n_batches=2, seed=5)
    adata.obs["group"] = np.where(adata.obs["cell_type"].astype(str).isin(["type_0", "type_1"]), "left", "right")
    adata.obs["known"] = np.where(np.arange(500) < 300, adata.obs["cell_type"].astype(str), "?")
    return adata


def trained(name: str, cells: ad.AnnData, **settings: Any) -> Any:
    model = MODELS[name](cells)
    model.train(**TRAINING | settings)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_training_reaches_the_elbo_of_the_cpu(name: str, cells: ad.AnnData) -> None:
    """Both hold out the same cells; their random numbers differ, so that they end close by and not at one number."""
    on_cpu = trained(name, cells, device="cpu", precision="float32", max_epochs=40).history["validation_negative_elbo"]
    model = trained(name, cells, device="cuda", max_epochs=40)
    on_gpu = model.history["validation_negative_elbo"]
    fall = on_cpu.iloc[0] - on_cpu.iloc[-1]
    assert abs(on_gpu.iloc[-1] - on_cpu.iloc[-1]) < 0.2 * fall
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_and_its_gradients_are_those_of_the_cpu(name: str, cells: ad.AnnData) -> None:
    """In evaluation mode, at z = mean and at the lowest draw of a type, nothing is random."""
    model = trained(name, cells, device="cpu", precision="float32", max_epochs=1)
    module, batch = model.module.eval(), model.cells.take(np.arange(200, 360))
    found: list[list[torch.Tensor]] = []
    for device in ("cpu", "cuda"):
        module.to(device).zero_grad()
        on_device = batch.to(device)
        with patch.multiple(torch, randn=torch.zeros, randn_like=torch.zeros_like, rand=torch.zeros):
            loss = module.loss(on_device, 1.0).objective
            if name.startswith("scanvi"):
                known = on_device.label >= 0
                loss = loss + module.cross_entropy(module.vae.encode(on_device).mu[known], on_device.label[known])
        loss.backward()
        parameters = [parameter for parameter in module.parameters() if parameter.numel()]
        assert all(parameter.grad is not None for parameter in parameters)
        found.append([loss.detach().cpu(), *(parameter.grad.cpu().clone() for parameter in parameters)])
    module.to("cpu")
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3 * float(on_cpu.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_a_killed_run_goes_on_with_the_random_state_of_the_gpu(name: str, cells: ad.AnnData, tmp_path: Path) -> None:
    whole = trained(name, cells, device="cuda")
    finish, left = _Loop._finish_epoch, [4]

    def stop(self: _Loop, *arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise SystemExit
        return finish(self, *arguments, **named)

    model = MODELS[name](cells)
    always = patch.multiple("lucidcell.training.resume", CHECKPOINT_SECONDS=0.0, CHECKPOINT_SHARE=0)
    with always, patch.object(_Loop, "_finish_epoch", stop), pytest.raises(SystemExit):
        model.train(device="cuda", checkpoint_dir=tmp_path / "kept", **TRAINING)
    model.train(device="cuda", checkpoint_dir=tmp_path / "kept", resume=True, **TRAINING)
    # atomic additions on a GPU come in no fixed order, so that equal means up to their rounding
    np.testing.assert_allclose(
        model.history["validation_negative_elbo"], whole.history["validation_negative_elbo"], rtol=1e-3
    )


def test_predictions_after_training_on_a_gpu(cells: ad.AnnData) -> None:
    model = trained("scanvi", cells, device="cuda", max_epochs=30)
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    hidden = (cells.obs["known"] == "?").to_numpy()
    assert (np.asarray(model.predict())[hidden] == truth[hidden]).mean() > 0.8
    assert next(model.module.parameters()).device.type == "cpu"
