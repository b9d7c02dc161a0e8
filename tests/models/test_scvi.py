"""Structure of SCVI: its settings, where training starts, how it shows itself."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from battery import assert_sentence
from by_hand import ByHand
from torch.distributions import Normal, kl_divergence

from lucidcell.errors import DataError, SettingError
from lucidcell.models.scvi import SCVI
from lucidcell.training.settings import Settings


def test_training_starts_at_the_mean_expression(simulated):
    """Before any step the decoder's bias alone says the share of each gene, and theta its overdispersion."""
    x = simulated.X.toarray().astype(float)
    library, shares = x.sum(1), x.sum(0) / x.sum()
    model = SCVI(simulated, batch_key="batch")
    module = model._new_module(model.cells, Settings())
    np.testing.assert_allclose(torch.softmax(module.rho.bias, 0).detach(), shares, rtol=0.02, atol=1e-5)
    # E[x (x - 1)] = E[mu^2] (1 + 1 / theta)
    inverse = (x * (x - 1)).mean(0) / ((library**2).mean() * shares**2) - 1
    frequent = x.sum(0) > 300  # a tenth of a count more or less is nothing to them
    theta = module.log_theta.exp().detach().numpy()[0]
    np.testing.assert_allclose(1 / theta[frequent], inverse[frequent].clip(0.05, 20), rtol=0.01)


def test_the_objective_by_hand(trained):
    """Reconstruction, warmed-up KL of z and whole KL of a latent library; the reported terms have both whole."""
    model = trained(use_observed_lib_size=False)
    hand, batch = ByHand(model), model.cells.take(np.arange(120))
    mean, variance = (torch.from_numpy(v) for v in hand.posterior())
    kl_z = kl_divergence(Normal(mean, variance.sqrt()), Normal(0.0, 1.0)).sum().item()
    mean, variance = (torch.from_numpy(v) for v in hand.library_posterior())
    prior = torch.from_numpy(hand.w["library_prior"])[batch.batch]
    kl_library = kl_divergence(Normal(mean, variance.sqrt()), Normal(prior[:, 0], prior[:, 1])).sum().item()
    for progress, weight in ((0.0, 0.0), (0.15, 0.5), (0.3, 1.0), (0.9, 1.0)):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            loss = model.module.loss(batch, progress)
        added = (loss.cells - loss.terms["reconstruction"]).item()
        assert added == pytest.approx(weight * kl_z + kl_library, rel=1e-3, abs=0.5)
        assert loss.terms["kl"].item() == pytest.approx(kl_z + kl_library, rel=1e-3)
        assert loss.objective.item() == pytest.approx(loss.cells.item() / 120)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_latent": 0}, "n_latent is 0"),
        ({"n_hidden": 1.5}, "n_hidden is 1.5"),
        ({"n_layers": True}, "n_layers is True"),
        ({"n_layers": "2"}, "n_layers is '2'"),
        ({"dropout_rate": 1.0}, "dropout_rate is 1.0; it must be at least 0 and below 1"),
        ({"dropout_rate": "low"}, "dropout_rate is 'low'"),
        ({"kl_warmup": -0.1}, "kl_warmup is -0.1"),
        ({"encode_covariates": "yes"}, "encode_covariates is 'yes'; it must be True or False"),
        ({"gene_likelihood": "normal"}, "gene_likelihood is 'normal'; it must be one of nb, zinb, poisson"),
        ({"dispersion": "gene-cell"}, "dispersion is 'gene-cell'; it must be one of gene, gene-batch, gene-label"),
        ({"latent_distribution": "gamma"}, "latent_distribution is 'gamma'"),
        ({"reproduce": "code"}, "reproduce is 'code'; it must be 'paper' or None"),
    ],
)
def test_structures_without_meaning_are_refused(simulated, wrong, said):
    with pytest.raises(SettingError) as caught:
        SCVI(simulated, **wrong)
    assert said in str(caught.value)
    assert_sentence(caught.value)


def test_numpy_numbers_are_welcome(simulated, tmp_path):
    model = SCVI(simulated, n_hidden=np.int64(8), n_latent=np.uint8(2), dropout_rate=np.float64(0.2))
    model.train(np.int64(1), batch_size=np.int32(40), seed=np.int64(3), num_threads=1, progress=False)
    model.save(tmp_path / "run")
    assert model.config.n_hidden == 8


def test_the_paper_has_zinb_and_a_latent_library(simulated):
    config = SCVI(simulated, reproduce="paper").config
    assert (config.gene_likelihood, config.use_observed_lib_size) == ("zinb", False)


def test_display(trained):
    model = trained()
    assert repr(model) == "SCVI(50 genes, 2 batches, 3 factors; trained for 6 epochs)"
    assert "<table>" in model._repr_html_()


def test_names_are_escaped_in_html(simulated):
    simulated.obs["batch"] = np.where(simulated.obs["batch"] == "batch_0", "<script>alert(1)</script>", "b")
    html = SCVI(simulated, batch_key="batch")._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_dispersion_by_label_needs_labels(trained, simulated):
    model = trained(dispersion="gene-label")
    del simulated.obs["cell_type"]
    assert model.get_latent_representation(simulated).shape == (120, 3)
    with pytest.raises(
        DataError, match="dispersion='gene-label' needs a label for every cell, and 120 cells"
    ) as caught:
        model.get_elbo(simulated)
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match="needs labels; pass labels_key"):
        SCVI(simulated, dispersion="gene-label")
    for missing, said in ((slice(0, 7), "7 of 120 have none"), (slice(0, 120), "120 of 120 have none")):
        simulated.obs["cell_type"] = pd.Series(["a"] * 120, index=simulated.obs_names, dtype=object)
        simulated.obs.iloc[missing, simulated.obs.columns.get_loc("cell_type")] = None
        with pytest.raises(DataError, match=said) as caught:
            SCVI(simulated, labels_key="cell_type", dispersion="gene-label")
        assert_sentence(caught.value)


@pytest.mark.slow
def test_the_model_does_not_depend_on_the_hash_seed():
    """Sets and dicts of strings come in another order in another process; nothing may follow from that."""
    code = """
import hashlib
import lucidcell as lc
data = lc.simulate_counts(90, 40)
model = lc.SCVI(data, batch_key="batch", labels_key="cell_type", n_hidden=8, n_latent=2)
model.train(2, batch_size=32, num_threads=1, progress=False)
query = data[:, ::-1].copy()
query.obs["batch"] = ["z", "a", "m"] * 30
found = [model.get_latent_representation(), model.map_query(query, max_epochs=1).get_normalized_expression().to_numpy()]
print([hashlib.sha256(array.tobytes()).hexdigest() for array in found])
"""
    outputs = set()
    for seed in ("0", "1", "77"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1
