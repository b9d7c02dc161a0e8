from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import lucidcell as lc
from lucidcell.errors import SettingError
from lucidcell.models.ldvae import LDVAE
from lucidcell.readouts import refits
from lucidcell.readouts.stability import intervals, matched, subspace_agreement

FAST = {"max_epochs": 6, "batch_size": 32}
SMALL = {"n_latent": 3, "n_hidden": 16, "batch_key": "batch"}


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.standard_normal((80, 4)), [f"g{i}" for i in range(80)], list("abcd"))


def test_permuted_and_flipped_factors_are_matched(table):
    order, signs = [2, 0, 3, 1], np.array([1, -1, -1, 1])
    other = pd.DataFrame(table.to_numpy()[:, order] * signs, table.index)
    partner, correlation = matched(table, other)
    assert [order[p] for p in partner] == [0, 1, 2, 3]
    np.testing.assert_allclose(correlation, [signs[p] for p in partner])
    assert subspace_agreement(table, other) == pytest.approx(1)


def test_a_factor_without_partner_has_no_agreement(table):
    partner, correlation = matched(table, table[["d", "b"]])
    assert list(partner) == [-1, 1, -1, 0]
    np.testing.assert_allclose(correlation, [0, 1, 0, 1], atol=1e-12)


def test_subspace_agreement_ignores_rotations_and_sees_strangers(table):
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    assert subspace_agreement(table, pd.DataFrame(table.to_numpy() @ rotation)) == pytest.approx(1)
    stranger = table.assign(d=np.random.default_rng(2).standard_normal(80))
    assert 0.7 < subspace_agreement(table, stranger) < 0.95


def test_intervals_hold_the_planted_spread(table):
    rng, signs = np.random.default_rng(3), [1, -1, 1, -1]
    fits = [
        pd.DataFrame((table.to_numpy() + 0.1 * rng.standard_normal(table.shape))[:, ::-1] * signs, table.index)
        for _ in range(400)
    ]
    low, high = intervals(table, fits)
    np.testing.assert_allclose((high - low).mean(), 2 * 1.96 * 0.1, rtol=0.05)
    assert ((low < table) & (table < high)).mean(axis=None) > 0.99


def test_planted_programs_come_back_and_noise_does_not(tmp_path: Path):
    adata = lc.simulate_counts(400, 200, n_programs=6, n_types=6, mean_library=3000, seed=5)
    found = lc.stability(
        LDVAE, adata, seeds=3, n_bootstrap=2, n_jobs=2, training={"max_epochs": 40}, folder=tmp_path,
        n_latent=6, n_hidden=32, batch_key="batch",
    )  # fmt: skip
    assert list(found.factors["factor"]) == [f"R{d}" for d in range(1, 7)]
    assert found.factors["agreement"].min() > 0.9
    assert list(found.matches.index) == [1, 2]
    assert found.subspace.min() > 0.95
    expression = adata.X.mean(0).A1
    planted = adata.varm["programs"] - expression @ adata.varm["programs"] / expression.sum()
    weighted = pd.DataFrame(planted * np.sqrt(expression)[:, None])
    assert np.abs(matched(weighted, found.loadings)[1]).min() > 0.9
    assert found.low is not None
    assert (found.low <= found.high).all(axis=None)


def test_a_run_that_was_cut_off_goes_on(simulated, tmp_path, monkeypatch):
    whole = lc.stability(LDVAE, simulated, seeds=3, n_jobs=1, training=FAST, **SMALL)
    made = []
    build = LDVAE.train

    def train(self, *args, **kwargs):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(kwargs["seed"])
        build(self, *args, **kwargs)

    monkeypatch.setattr(LDVAE, "train", train)
    with pytest.raises(KeyboardInterrupt):
        lc.stability(LDVAE, simulated, seeds=3, n_jobs=1, training=FAST, folder=tmp_path, **SMALL)
    monkeypatch.setattr(LDVAE, "train", build)
    made.clear()
    monkeypatch.setattr(refits, "comparable_loadings", lambda model: made.append(model.seed) or _comparable(model))
    resumed = lc.stability(LDVAE, simulated, seeds=3, n_jobs=1, training=FAST, folder=tmp_path, **SMALL)
    assert made == [2], "two of three were there"
    pd.testing.assert_frame_equal(resumed.matches, whole.matches)


_comparable = refits.comparable_loadings


def test_other_settings_need_another_folder(simulated, tmp_path):
    lc.stability(LDVAE, simulated, seeds=2, n_jobs=1, training=FAST, folder=tmp_path, **SMALL)
    with pytest.raises(SettingError, match="fits of other config"):
        lc.stability(LDVAE, simulated, seeds=2, n_jobs=1, training=FAST, folder=tmp_path, **(SMALL | {"n_latent": 4}))
    other = simulated.copy()
    other.X = other.X[::-1].copy()
    with pytest.raises(SettingError, match="fits of other data"):
        lc.stability(LDVAE, other, seeds=2, n_jobs=1, training=FAST, folder=tmp_path, **SMALL)


def test_backed_cells_and_several_anndata_are_taken(simulated, tmp_path):
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    wanted = lc.stability(LDVAE, simulated, seeds=2, n_bootstrap=1, n_jobs=1, training=FAST, **SMALL)
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    found = lc.stability(LDVAE, backed, seeds=2, n_bootstrap=1, n_jobs=2, training=FAST, **SMALL)
    pd.testing.assert_frame_equal(found.matches, wanted.matches)
    halves = [simulated[:60].copy(), simulated[60:].copy()]
    parts = lc.stability(LDVAE, halves, seeds=2, n_jobs=1, training=FAST, folder=tmp_path / "fits", **SMALL)
    pd.testing.assert_frame_equal(parts.matches, wanted.matches)


def test_another_model_is_no_reference(simulated):
    model = LDVAE(simulated, **SMALL)
    model.train(**FAST, progress=False, num_threads=1)
    with pytest.raises(SettingError, match="differ in n_latent"):
        lc.stability(LDVAE, simulated, seeds=[1], reference=model, **(SMALL | {"n_latent": 4}))
    with pytest.raises(SettingError, match="differ in gene_names"):
        lc.stability(LDVAE, simulated[:, :40].copy(), seeds=[1], reference=model, **SMALL)
    with pytest.raises(SettingError, match="class"):
        lc.stability(lc.SCVI, simulated, seeds=[1], reference=model, **SMALL)
    with pytest.raises(SettingError, match="at least one besides 0"):
        lc.stability(LDVAE, simulated, seeds=1, reference=model, **SMALL)


def test_a_trained_model_is_judged_by_other_seeds(simulated):
    model = LDVAE(simulated, **SMALL)
    model.train(**FAST, progress=False, num_threads=1, seed=1)
    found = lc.stability(LDVAE, simulated, seeds=3, reference=model, n_jobs=1, training=FAST, **SMALL)
    assert list(found.matches.index) == [0, 2]
    pd.testing.assert_frame_equal(found.loadings, refits.comparable_loadings(model))


def test_models_without_rotation_are_compared_as_they_are(simulated):
    found = lc.stability(lc.SCVI, simulated, seeds=2, n_jobs=1, training=FAST, **SMALL)
    assert list(found.factors["factor"]) == ["Z1", "Z2", "Z3"]
    assert found.factors["agreement"].between(0, 1).all()


def test_number_of_factors_of_planted_programs(tmp_path: Path):
    adata = lc.simulate_counts(600, 150, n_programs=4, n_types=4, mean_library=3000, seed=6)
    table = lc.select_n_latent(
        LDVAE, adata, [8, 2, 4], seeds=2, n_jobs=2, training={"max_epochs": 40}, folder=tmp_path,
        n_hidden=32, batch_key="batch",
    )  # fmt: skip
    assert list(table["n_latent"]) == [2, 4, 8]
    assert table.attrs["selected"] in (4, 8)
    rows = table.set_index("n_latent")
    assert rows["negative_elbo"][2] > rows["negative_elbo"][4] + 1
    assert rows["agreement"][4] > max(0.9, rows["agreement"][8])
    assert rows["above"].min() == 0
    again = lc.select_n_latent(
        LDVAE, adata, [4, 2, 8], seeds=2, n_jobs=1, training={"max_epochs": 40}, folder=tmp_path,
        n_hidden=32, batch_key="batch",
    )  # fmt: skip
    pd.testing.assert_frame_equal(again, table)


def test_number_of_topics():
    adata = lc.simulate_counts(400, 100, n_programs=4, n_types=4, mean_library=3000, seed=6)
    table = lc.select_n_latent(
        lc.SCE2TM, adata, [2, 8], seeds=2, n_jobs=1, training={"max_epochs": 300}, n_hidden=32, n_embedding=16
    )
    assert list(table["n_latent"]) == [2, 8]
    assert table.attrs["selected"] == 8, "two topics are too few for four programs"
    assert table["agreement"].between(0, 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 1}, "seeds is 1; it must name at least one besides 0"),
        ({"seeds": 2.5}, "seeds is 2.5"),
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"training": 5}, "training is 5"),
        ({"training": {"seed": 9}}, "training has a seed"),
        ({"seeds": [0, 0]}, r"seeds is \[0, 0\]"),
        ({"seeds": [-1, 2]}, r"seeds is \[-1, 2\]"),
        ({"n_bootstrap": -1}, "n_bootstrap"),
    ],
)
def test_arguments_without_meaning(simulated: ad.AnnData, arguments, message):
    with pytest.raises(SettingError, match=message):
        lc.stability(LDVAE, simulated, **arguments)


def test_one_number_of_factors_is_no_choice(simulated):
    with pytest.raises(SettingError, match="at least 2 different"):
        lc.select_n_latent(LDVAE, simulated, [5])
    with pytest.raises(SettingError, match="at least 2 different"):
        lc.select_n_latent(LDVAE, simulated, 5)
    with pytest.raises(SettingError, match="hold some out"):
        lc.select_n_latent(LDVAE, simulated, [5, 6], training={"train_size": 1.0})
