"""Cross-validation: the numbers are those of fits by hand, cells of a fold tell the fit nothing, runs go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc
from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.readouts.cross_validation import _parts

FAST = {"max_epochs": 4, "batch_size": 32}
SMALL: dict[str, Any] = {"n_latent": 3, "n_hidden": 16}


@pytest.fixture(scope="module")
def typed() -> ad.AnnData:
    """300 cells of 3 types; a fifth of them without label in `known`."""
    adata = lc.simulate_counts(300, 60, n_programs=3, n_types=3, n_batches=2, mean_library=3000, seed=1)
    types = adata.obs["cell_type"].astype(str).to_numpy()
    adata.obs["known"] = np.where(np.arange(300) % 5 == 0, "?", types)
    return adata


@pytest.mark.parametrize("model_class", [lc.SCVI, lc.LDVAE])
def test_numbers_are_those_of_fits_by_hand(simulated: ad.AnnData, model_class: Any) -> None:
    folds = np.arange(120) % 3
    arguments = SMALL | {"batch_key": "batch", "labels_key": "cell_type"}
    found = lc.cross_validate(model_class, simulated, folds=folds, seed=5, training=FAST, n_jobs=1, **arguments)
    assert list(found["fold"]) == ["0", "1", "2"]
    for k, row in enumerate(found.itertuples()):
        fit, test = simulated[folds != k].copy(), simulated[folds == k].copy()
        model = model_class(fit, **arguments)
        model.train(seed=5, num_threads=1, progress=False, **FAST)
        assert (row.n_train, row.n_test) == (80, 40)
        assert row.elbo == pytest.approx(model.get_elbo(test), rel=1e-5)
        assert row.reconstruction_error == pytest.approx(model.get_reconstruction_error(test), rel=1e-5)
        neighbors = KNeighborsClassifier(15).fit(model.get_latent_representation(), fit.obs["cell_type"].astype(str))
        right = neighbors.predict(model.get_latent_representation(test)) == test.obs["cell_type"].astype(str)
        assert row.accuracy == pytest.approx(right.mean())
        assert row.weighted_accuracy == pytest.approx(right.groupby(test.obs["cell_type"], observed=True).mean().mean())


def test_labels_of_a_fold_are_found_and_shuffled_ones_are_not(typed: ad.AnnData) -> None:
    training = {"max_epochs": 20, "batch_size": 32}
    shuffled = typed.copy()
    shuffled.obs["known"] = np.random.default_rng(0).permutation(shuffled.obs["known"].to_numpy())
    arguments = SMALL | {"labels_key": "known", "unlabeled_category": "?", "folds": 2, "n_jobs": 1}
    found, chance = (lc.cross_validate(lc.SCANVI, one, training=training, **arguments) for one in (typed, shuffled))
    best = cross_val_score(KNeighborsClassifier(15), typed.obsm["programs"], typed.obs["cell_type"].astype(str), cv=3)
    assert found["accuracy"].mean() > best.mean() - 0.15  # by the planted programs themselves: types overlap
    assert chance["accuracy"].mean() < 0.5  # a third of the cells is of each type


def test_folds_are_disjoint_and_of_the_same_mixture(typed: ad.AnnData) -> None:
    model = lc.SCVI(typed, labels_key="cell_type", **SMALL)
    part, names = _parts(7, model.cells, 3)
    assert names == [str(k) for k in range(1, 8)]
    assert set(np.bincount(part)) <= {42, 43}
    of_types = pd.crosstab(part, typed.obs["cell_type"].to_numpy())
    assert (of_types.max() - of_types.min()).max() <= 1
    assert not np.array_equal(part, _parts(7, model.cells, 4)[0])


def test_donors_are_left_out_in_turn(simulated: ad.AnnData) -> None:
    found = lc.cross_validate(lc.SCVI, simulated, folds=simulated.obs["sex"], training=FAST, n_jobs=1, **SMALL)
    assert dict(zip(found["fold"], found["n_test"], strict=True)) == simulated.obs["sex"].value_counts().to_dict()
    assert list(found.columns) == ["fold", "n_train", "n_test", "elbo", "reconstruction_error"]


def test_a_run_goes_on_and_does_not_mix_with_another(
    simulated: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = SMALL | {"folds": 3, "folder": tmp_path, "n_jobs": 1, "training": FAST}
    whole = lc.cross_validate(lc.SCVI, simulated, **arguments)
    (tmp_path / "fold1.json").unlink()
    made, train = [], lc.SCVI.train
    monkeypatch.setattr(lc.SCVI, "train", lambda self, **k: (made.append(1), train(self, **k))[1])
    pd.testing.assert_frame_equal(lc.cross_validate(lc.SCVI, simulated, **arguments), whole)
    assert len(made) == 1
    with pytest.raises(SettingError, match="holds fits of other folds"):
        lc.cross_validate(lc.SCVI, simulated, **(arguments | {"folds": 4}))
    (tmp_path / "fold0.json").write_text("{")
    with pytest.raises(FileError, match=r"fold0\.json cannot be read .*; delete it"):
        lc.cross_validate(lc.SCVI, simulated, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"folds": 1}, SettingError, "folds is 1; it must be from 2 to 120"),
        ({"folds": 121}, SettingError, "folds is 121; it must be from 2 to 120"),
        ({"folds": np.zeros(5)}, SettingError, r"folds has shape \(5,\)"),
        ({"folds": np.zeros(120)}, DataError, "all cells are of fold '0'"),
        ({"folds": [None, *"ab" * 59, "a"]}, DataError, "1 of 120 cells have no fold"),
        ({"folds": "batch", "batch_key": "batch"}, DataError, "has the cells of batch 'batch_0', which is in no other"),
        ({"folds": "sex", "categorical_covariate_keys": ["sex"]}, DataError, "has a category of sex that is in no"),
        ({"training": {"seed": 1}}, SettingError, "training has a seed"),
        ({"seed": -1}, SettingError, "seed is -1"),
        ({"n_jobs": 0}, SettingError, "n_jobs is 0"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    simulated: ad.AnnData, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    if isinstance(change.get("folds"), str):
        change = change | {"folds": simulated.obs[change["folds"]]}
    with pytest.raises(error, match=message):
        lc.cross_validate(lc.SCVI, simulated, **(SMALL | {"training": FAST, "n_jobs": 1} | change))
