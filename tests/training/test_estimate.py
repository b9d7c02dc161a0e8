"""What a training is said to take, before it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import anndata as ad
import pandas as pd
import pytest
import torch

from lucidcell.errors import SettingError
from lucidcell.models.scvi import SCVI
from lucidcell.models.sivae import SIVAE
from lucidcell.training import estimate as estimate_module
from lucidcell.training.estimate import Estimate, peak_memory_gb

SMALL = {"n_hidden": 32, "n_latent": 4}


def test_time_is_that_of_some_cells_in_proportion(simulated: ad.AnnData) -> None:
    """Phases of cells by the number of cells, phases of genes as they are; epochs as planned."""
    model = SIVAE(simulated, **SMALL)
    fit = estimate_module.fit
    rows = ["cells", "genes", "joint"]

    def timed(*arguments: object, **options: object) -> object:
        record = fit(*arguments, **options)
        names = list(dict.fromkeys(record.history["phase"]))
        assert len(names) == 3
        record.history = pd.DataFrame({"phase": [names[i] for i in (0, 0, 1, 1, 2)], "seconds": [0.5, 2, 3, 4, 8]})
        rows[:] = names
        return record

    with patch.object(estimate_module, "fit", timed), patch.object(estimate_module, "STEPS", 1):
        found = model.estimate_training(max_epochs=40, batch_size=30)
    model.train(max_epochs=40, batch_size=30, early_stopping=False, progress=False)
    planned = model.history["phase"].value_counts()
    assert found.epochs == len(model.history)
    times_more = len(simulated) / 30
    expected = planned[rows[0]] * 1.0 * times_more + planned[rows[1]] * 1.0 + planned[rows[2]] * 4.0 * times_more
    assert found.seconds == pytest.approx(expected)


def test_memory_and_disk_are_of_the_right_size_and_the_model_stays(simulated: ad.AnnData, tmp_path: Path) -> None:
    model = SCVI(simulated, n_hidden=512, n_latent=4)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    found = model.estimate_training(max_epochs=2)
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.training_facts is None
    peak = peak_memory_gb()
    assert peak is not None
    assert peak < found.memory_gb < peak + 0.1
    model.train(max_epochs=2, progress=False, checkpoint_dir=tmp_path / "run" / "checkpoint")
    model.save(tmp_path / "run")
    assert model.training_facts is not None
    assert model.training_facts["peak_memory_gb"] >= peak
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()) / 2**30
    assert size / 2 < found.disk_gb < size * 6  # no checkpoint was due in a second


def test_it_is_a_sentence() -> None:
    said = str(Estimate(epochs=20, seconds=7500.0, memory_gb=2.0, disk_gb=0.5))
    assert said == "at most 20 epochs in about 2.1 hours, 2.0 GiB of memory and 0.5 GiB on the disk"
    assert "in about 12 minutes" in str(Estimate(20, 700.0, 2.0, 0.5))
    assert "in about 12 s" in str(Estimate(20, 12.0, 2.0, 0.5))


def test_arguments_are_checked(simulated: ad.AnnData) -> None:
    with pytest.raises(SettingError, match="max_epochs is 0"):
        SCVI(simulated, **SMALL).estimate_training(max_epochs=0)
    with pytest.raises((SettingError, TypeError), match="epochs"):
        SCVI(simulated, **SMALL).estimate_training(epochs=3)
