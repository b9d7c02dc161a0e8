"""Batches from elsewhere: the same training as on the model's own cells, and mistakes as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from battery import Killed, assert_same_weights, checkpoint_every_step, killing

import lucidcell as lc
from lucidcell.cells.loader import Loader
from lucidcell.errors import DataError, SettingError
from lucidcell.training.split import cut, hold_out, shuffled

LAYOUTS = {
    "csr": lambda x: x,
    "dense": lambda x: x.toarray(),
    "torch": lambda x: torch.from_numpy(x.toarray()),
    "torch csr": lambda x: torch.from_numpy(x.toarray()).to_sparse_csr(),
}
FOUR = pd.DataFrame({"batch": ["batch_0"] * 4, "age": [50.0] * 4})
TRAINING = {"max_epochs": 3, "batch_size": 32, "num_threads": 1, "progress": False}


class Batches:
    """What the loop itself would take, epoch by epoch."""

    def __init__(self, adata: ad.AnnData, layout: str = "csr") -> None:
        self.adata, self.layout, self.epoch = adata, LAYOUTS[layout], 0
        self.rows = hold_out(len(adata), 0.9, 0)[0]

    def __len__(self) -> int:
        return len(cut(self.rows, 32))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = cut(shuffled(self.rows, 0, self.epoch), 32)
        self.epoch += 1
        for rows in batches:
            yield {"X": self.layout(self.adata.X[rows]), "obs": self.adata.obs.iloc[rows]}


def model_of(adata: ad.AnnData, **more: Any) -> lc.SCVI:
    return lc.SCVI(adata, batch_key="batch", continuous_covariate_keys=["age"], n_hidden=16, n_latent=3, **more)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_in_the_same_order_train_the_same_model(simulated: ad.AnnData, layout: str) -> None:
    ours, theirs = model_of(simulated), model_of(simulated)
    ours.train(**TRAINING)
    theirs.train(**TRAINING, loader=Batches(simulated, layout))
    assert_same_weights(ours.module.state_dict(), theirs.module.state_dict())
    pd.testing.assert_frame_equal(ours.history.drop(columns="seconds"), theirs.history.drop(columns="seconds"))
    assert theirs.record is not None
    assert theirs.record.cells_per_second > 0


def test_labels_of_the_batches_are_learnt(simulated: ad.AnnData) -> None:
    """The model's own cells have no label but one of each type."""
    few = simulated.copy()
    labels = few.obs["cell_type"].astype(str)
    few.obs["known"] = np.where(~labels.duplicated(), labels, "?")
    model = lc.SCANVI(few, labels_key="known", unlabeled_category="?", training="joint", n_hidden=32, n_latent=4)
    simulated.obs["known"] = labels
    model.train(60, batch_size=32, progress=False, loader=Batches(simulated))
    assert np.mean(model.predict() == labels.to_numpy()) > 0.8
    with pytest.raises(SettingError, match="make the model with training='joint'"):
        lc.SCANVI(few, labels_key="known", unlabeled_category="?").train(**TRAINING, loader=Batches(simulated))


def test_a_refused_loader_leaves_a_trained_model_as_it_is(simulated: ad.AnnData) -> None:
    model = model_of(simulated)
    model.train(**TRAINING)
    before = model.get_latent_representation()
    with pytest.raises(SettingError):
        model.train(loader=Batches(simulated))
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_a_killed_run_goes_on_where_it_was(simulated: ad.AnnData, tmp_path: Path) -> None:
    whole, killed, resumed = model_of(simulated), model_of(simulated), model_of(simulated)
    with checkpoint_every_step():
        whole.train(**TRAINING, loader=Batches(simulated), checkpoint_dir=tmp_path / "whole")
        place = {"checkpoint_dir": tmp_path / "killed"}
        with patch.object(Loader, "take", killing(Loader.take, 6, False)), pytest.raises(Killed):
            killed.train(**TRAINING, loader=Batches(simulated), **place)
        batches = Batches(simulated)
        batches.epoch = 1  # the loader knows its own order
        resumed.train(**TRAINING, loader=batches, resume=True, **place)
    assert_same_weights(whole.module.state_dict(), resumed.module.state_dict())


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (3, "loader is a int; it must be an iterable with a length"),
        ({"X": 1}, "loader is a dict"),
        ([], "loader is a list; it must be an iterable with a length"),
        ((one for one in ()), "loader is a generator"),
        (
            [{"X": np.ones((4, 50)), "obs": {"batch": 1}}],
            "loader gave a dict as obs; it must be a DataFrame of 4",
        ),
        ([{"X": np.ones((3, 50)), "obs": FOUR}], "loader gave a DataFrame as obs; it must be a DataFrame of 3 cells"),
        ([{"X": np.ones((4, 50)), "obs": FOUR, "var": FOUR}], "loader gives genes in another order"),
        ([{"obs": None}], "loader gave a dict without X"),
        (
            [{"X": np.ones((4, 3))}],
            r"X of shape \(4, 3\); a batch has at least 2 cells .*, and the model 50 genes",
        ),
        ([{"X": np.ones((1, 50))}], r"loader gave X of shape \(1, 50\)"),
        ([{"X": np.full((4, 50), 0.5), "obs": FOUR}], "X holds 200 non-integer values"),
        ([{"X": sp.csr_matrix((4, 50)), "obs": FOUR}], "4 of 4 cells have no counts"),
        ([{"X": np.ones((4, 50))}], "obs has no 'batch'"),
    ],
)
def test_mistakes_are_sentences(simulated: ad.AnnData, batches: Any, said: str) -> None:
    with pytest.raises((SettingError, DataError), match=said):
        model_of(simulated).train(**TRAINING, loader=batches)


def test_what_a_loader_cannot_give(simulated: ad.AnnData) -> None:
    with pytest.raises(SettingError, match="max_epochs has no default: say how many"):
        model_of(simulated).train(loader=Batches(simulated))
    simulated.obsm["E"] = np.ones((len(simulated), 3), np.float32)
    with pytest.raises(SettingError, match="make it of one AnnData with batch_key"):
        lc.SCVI([simulated[:60], simulated[60:]], n_hidden=16).train(**TRAINING, loader=Batches(simulated))
    with pytest.raises(SettingError, match="a loader has no external embedding"):
        lc.SCE2TM(simulated, external_key="E", n_topics=3, n_hidden=16).train(**TRAINING, loader=Batches(simulated))


def test_a_loader_that_is_shorter_than_it_says(simulated: ad.AnnData) -> None:
    class Short(Batches):
        def __len__(self) -> int:
            return 7

    with pytest.raises(DataError, match="loader has a length of 7 batches and ended before them"):
        model_of(simulated).train(**TRAINING, loader=Short(simulated))
