"""Faithfulness against genes set to zero in the data, against chance, and against planted tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import lucidcell as lc
from lucidcell.errors import DataError, SettingError
from lucidcell.readouts.faithfulness import expression_bins, faithfulness, faithfulness_curves, matched_ranking


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    adata = lc.simulate_counts(300, 200, n_programs=3, n_types=3, n_batches=2, seed=3)
    adata.obs["size"] = adata.X.sum(1).A1
    return adata


MODELS: dict[str, Callable[[ad.AnnData], Any]] = {
    "SCVI": lambda a: lc.SCVI(a, n_hidden=32, n_latent=3),
    "LDVAE": lambda a: lc.LDVAE(a, n_hidden=32, n_latent=3, batch_key="batch"),
    "VAE": lambda a: lc.VAE(a, n_hidden=(32, 16), n_latent=3, batch_key="batch", size_factor_key="size"),
}


@pytest.fixture(scope="module")
def models(adata: ad.AnnData) -> dict[str, Any]:
    made = {name: make(adata) for name, make in MODELS.items()}
    for model in made.values():
        model.train(30, batch_size=64, num_threads=1, progress=False)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_curves_equal_genes_set_to_zero_in_the_data(models: dict[str, Any], adata: ad.AnnData, name: str) -> None:
    model = models[name]
    table = model.get_loadings()
    curves = faithfulness_curves(model, table, n_random=1).query("ranking == 0")
    z = model.get_latent_representation()
    for factor, d in zip(table, range(3), strict=True):
        order = table[factor].abs().sort_values(ascending=False).index
        for curve, k in (("deletion", 1), ("deletion", 20), ("insertion", 100)):
            changed = adata.copy()
            dense = changed.X.toarray()
            dense[:, changed.var_names.isin(order[:k] if curve == "deletion" else order[k:])] = 0
            changed.X = dense
            moved = model.get_latent_representation(changed)[:, d]
            wanted = np.sqrt(((moved - z[:, d]) ** 2).mean()) / z[:, d].std(ddof=1)
            one = curves[(curves["factor"] == factor) & (curves["curve"] == curve) & (curves["n_genes"] == k)]
            assert one["movement"].item() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_a_cell_without_counts_is_no_cell(models: dict[str, Any]) -> None:
    curves = faithfulness_curves(models["SCVI"], n_random=1)
    assert np.isfinite(curves["movement"]).all()


@pytest.mark.parametrize("name", MODELS)
def test_loadings_are_faithful_and_random_tables_are_not(models: dict[str, Any], name: str) -> None:
    model = models[name]
    of_loadings = faithfulness(model)
    assert of_loadings["faithfulness"].mean() > 0.2
    assert of_loadings["p_value"].mean() < 0.2
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(10):
        random = pd.DataFrame(rng.normal(size=(200, 3)), model.schema.gene_names, model.factor_names)
        p_values.extend(faithfulness(model, random)["p_value"])
    assert np.mean(p_values) == pytest.approx(0.525, abs=0.17)  # uniform on 1/20 ... 1: three standard errors


def test_the_encoders_own_weights_are_the_most_faithful_of_a_linear_encoder(adata: ad.AnnData) -> None:
    """Of a factor that is a sum over few genes by construction, those genes in another order rank lower."""
    import torch

    model = lc.SCVI(adata, n_hidden=3, n_latent=3)
    model.train(1, num_threads=1, progress=False)
    first = model.module.encoder.first
    with torch.no_grad():
        first.gene_weight.zero_()
        first.bias.fill_(100.0)  # so that every ReLU is open
        for d in range(3):
            first.gene_weight[d * 10 : d * 10 + 10, d] = torch.linspace(0.5, 0.1, 10)
        model.module.z_mean.weight.copy_(torch.eye(3))
    weights = first.gene_weight.detach().numpy()
    truth = pd.DataFrame(weights, model.schema.gene_names, model.factor_names)
    wrong = truth.iloc[:, [1, 2, 0]].set_axis(model.factor_names, axis=1)
    found, shifted = faithfulness(model, truth), faithfulness(model, wrong)
    assert (found["faithfulness"] > 1).all()
    assert (found["p_value"] == 1 / 20).all()
    assert (shifted["faithfulness"] < 0.5).all()
    after_ten = faithfulness_curves(model, truth, n_random=1).query("ranking == 0 and curve == 'insertion'")
    assert after_ten.query("n_genes == 10")["movement"].max() < 1e-3  # all that the factor reads is there


def test_rotated_loadings_move_rotated_factors(models: dict[str, Any]) -> None:
    model = models["LDVAE"]
    rotated = model.get_loadings(rotate="varimax")
    found = faithfulness_curves(model, rotated, n_random=1).query("ranking == 0")
    assert list(found["factor"].unique()) == list(rotated.columns)
    plain = rotated.set_axis(model.factor_names, axis=1)
    plain.attrs = {}
    assert not np.allclose(
        found["movement"], faithfulness_curves(model, plain, n_random=1).query("ranking == 0")["movement"]
    )


def test_random_genes_have_equal_expression() -> None:
    rng = np.random.default_rng(0)
    mean = rng.lognormal(0, 2, 1000)
    bins = expression_bins(mean)
    assert np.bincount(bins).tolist() == [50] * 20
    assert all(mean[bins == b].max() <= mean[bins == b + 1].min() for b in range(19))
    order = rng.permutation(1000)
    drawn = matched_ranking(order, bins, rng)
    assert sorted(drawn) == list(range(1000))
    assert (bins[drawn] == bins[order]).all()
    assert (drawn != order).mean() > 0.9


def test_tables_that_do_not_fit_are_refused(models: dict[str, Any]) -> None:
    model = models["SCVI"]
    good = model.get_loadings()
    for table, words in (
        (good.iloc[:, :2], "columns Z1, Z2"),
        (good.iloc[:50], "50 rows"),
        (pd.concat([good, good]), "400 rows"),
        (good.where(good > 0), "NaN"),
    ):
        with pytest.raises(DataError, match=words):
            faithfulness(model, table)
    with pytest.raises(SettingError, match="n_random is 0"):
        faithfulness(model, n_random=0)
    turned = good.copy()
    turned.attrs["rotation"] = "varimax"
    with pytest.raises(DataError, match="varimax"):
        faithfulness(model, turned)
    shuffled = good.sample(frac=1, random_state=0)
    assert faithfulness(model, shuffled).equals(faithfulness(model, good))
