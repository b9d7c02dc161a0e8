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
}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = simulate_counts(500, 80, n_types=4, n_batches=2, seed=5)
    adata.obs["known"] = np.where(np.arange(500) < 300, adata.obs["cell_type"].astype(str), "?")
    return adata


def trained(name: str, cells: ad.AnnData, **settings: Any) -> Any:
    model = MODELS[name](cells)
    model.train(**TRAINING | settings)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_training_reaches_the_elbo_of_the_cpu(name: str, cells: ad.AnnData) -> None:
    """Random numbers differ between devices, so that runs do too, as two seeds do."""
    on_cpu = [trained(name, cells, device="cpu", precision="float32", seed=seed) for seed in range(4)]
    on_gpu = trained(name, cells, device="cuda")
    *ends, end = [model.history["validation_negative_elbo"].iloc[-1] for model in (*on_cpu, on_gpu)]
    spread = max(ends) - min(ends)
    assert min(ends) - spread <= end <= max(ends) + spread
    assert end < on_gpu.history["validation_negative_elbo"].iloc[0]
    assert np.isfinite(on_gpu.get_latent_representation()).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_and_its_gradients_are_those_of_the_cpu(name: str, cells: ad.AnnData) -> None:
    """In evaluation mode and at z = mean, nothing is random."""
    model = trained(name, cells, device="cpu", precision="float32", max_epochs=1)
    module, batch = model.module.eval(), model.cells.take(np.arange(64))
    found = []
    for device in ("cpu", "cuda"):
        module.to(device).zero_grad()
        with patch.object(torch, "randn", torch.zeros), patch.object(torch, "randn_like", torch.zeros_like):
            loss = model.vae.loss(batch.to(device), 1.0).objective
        loss.backward()
        gradients = [p.grad.cpu().clone() for p in model.vae.parameters() if p.grad is not None]
        found.append([loss.detach().cpu(), *gradients])
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
    always = patch.multiple("lucidcell.training.loop", CHECKPOINT_SECONDS=0.0, CHECKPOINT_SHARE=0)
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
