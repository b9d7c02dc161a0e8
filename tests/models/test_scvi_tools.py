"""Models saved by scvi-tools. Here a file of the same form made by hand; `test_oracle.py` reads real ones."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import assert_sentence

from lucidcell.errors import FileError
from lucidcell.models.scvi import SCVI

LAYER = "fc_layers.Layer 0"


def their_weights(model: SCVI) -> dict[str, torch.Tensor]:
    """Our weights under their names: gene weight transposed, log theta as a vector."""
    ours = model.module.state_dict()
    names = {
        "z_mean": "z_encoder.mean_encoder",
        "z_variance": "z_encoder.var_encoder",
        "rho": "decoder.px_scale_decoder.0",
        "encoder.first.norm": f"z_encoder.encoder.{LAYER}.1",
        "decoder.layers.0.linear": f"decoder.px_decoder.{LAYER}.0",
        "decoder.layers.0.norm": f"decoder.px_decoder.{LAYER}.1",
    }
    theirs = {}
    for name, value in ours.items():
        part, _, last = name.rpartition(".")
        if part in names:
            theirs[f"{names[part]}.{last}"] = value.clone()
    theirs[f"z_encoder.encoder.{LAYER}.0.weight"] = ours["encoder.first.gene_weight"].t().contiguous()
    theirs[f"z_encoder.encoder.{LAYER}.0.bias"] = ours["encoder.first.bias"].clone()
    theirs["px_r"] = ours["log_theta"][0].clone()
    return theirs


def their_file(model: SCVI) -> dict[str, Any]:
    """Content of `model.pt`, as scvi-tools 1.4 writes it."""

    def field(name: str, values: tuple[str, ...]) -> dict[str, Any]:
        mapping = {"categorical_mapping": np.array(values, dtype=object), "original_key": name}
        return {"data_registry": {"attr_name": "obs", "attr_key": name}, "state_registry": mapping}

    registry = {
        "scvi_version": "1.4.2",
        "model_name": "SCVI",
        "setup_args": {"layer": None, "batch_key": "batch", "labels_key": None, "size_factor_key": None},
        "field_registries": {
            "X": {"state_registry": {"n_obs": 120, "n_vars": 50, "column_names": np.array(["g"], dtype=object)}},
            "batch": field("batch", model.schema.batch_categories),
            "labels": field("_scvi_labels", ("0",)),
            "extra_categorical_covs": {"state_registry": {}},
            "extra_continuous_covs": {"state_registry": {}},
        },
    }
    settings = {"n_hidden": 16, "n_latent": 3, "n_layers": 1, "dropout_rate": 0.1, "gene_likelihood": "nb"}
    return {
        "model_state_dict": their_weights(model),
        "var_names": np.array(model.schema.gene_names, dtype=object),
        "attr_dict": {
            "registry_": registry,
            "init_params_": {"kwargs": {"kwargs": {}}, "non_kwargs": settings | {"dispersion": "gene"}},
            "is_trained_": True,
            "train_indices_": np.arange(100),
        },
    }


@pytest.fixture(scope="module")
def content(trained: Callable[..., SCVI]) -> bytes:
    return pickle.dumps(their_file(trained(labels_key=None)))


@pytest.fixture
def stored(content: bytes) -> dict[str, Any]:
    """What is in the file, to change."""
    return pickle.loads(content)


def refuse(stored: Any, folder: Path) -> str:
    torch.save(stored, folder / "model.pt")
    with pytest.raises(FileError) as caught:
        SCVI.from_scvi_tools(folder)
    assert_sentence(caught.value)
    return str(caught.value)


def test_the_model_reads_out_as_ours(stored, trained, simulated, tmp_path):
    model = trained(labels_key=None)
    torch.save(stored, tmp_path / "model.pt")
    for path in (tmp_path, tmp_path / "model.pt"):
        read = SCVI.from_scvi_tools(path, simulated)
        np.testing.assert_array_equal(read.get_latent_representation(), model.get_latent_representation())
        np.testing.assert_array_equal(read.get_loadings(), model.get_loadings())
        np.testing.assert_array_equal(read.get_normalized_expression(), model.get_normalized_expression())
        assert read.get_elbo() == model.get_elbo()
    assert SCVI.from_scvi_tools(tmp_path).schema == model.schema
    read.save(tmp_path / "run")


def test_a_read_model_maps_queries(stored, simulated, tmp_path):
    torch.save(stored, tmp_path / "model.pt")
    simulated.obs["batch"] = ["new"] * 120
    assert SCVI.from_scvi_tools(tmp_path).map_query(simulated, max_epochs=1).schema.n_batches == 3


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("place", ["whole", "attr_dict", "model_state_dict", "var_names", "history"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_the_file_is_never_run(stored, tmp_path, place, legacy):
    canary = tmp_path / "canary"
    if place == "whole":
        stored = Canary(canary)
    elif place == "history":
        stored["attr_dict"]["history_"] = {"train": Canary(canary)}
    else:
        stored[place] = Canary(canary)
    torch.save(stored, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileError, match="was not opened") as caught:
        SCVI.from_scvi_tools(tmp_path)
    assert_sentence(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["eval", "exec", "getattr", "builtins.open"])
def test_functions_that_could_do_harm_are_not_allowed(tmp_path, kind):
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            functions = {"eval": eval, "exec": exec, "getattr": getattr, "builtins.open": open}
            return (functions[kind], ("1",) if kind != "getattr" else ("1", "upper"))

    torch.save({"attr_dict": Calls()}, tmp_path / "model.pt")
    with pytest.raises(FileError, match="was not opened"):
        SCVI.from_scvi_tools(tmp_path)


@pytest.mark.parametrize("name", ["SCANVI", "LinearSCVI", "TOTALVI", None])
def test_other_models_are_refused(stored, tmp_path, name):
    stored["attr_dict"]["registry_"]["model_name"] = name
    assert f"holds a {name} model; only SCVI can be read" in refuse(stored, tmp_path)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("use_batch_norm", "encoder", "was trained with use_batch_norm='encoder'; lucidcell's SCVI has 'both' only"),
        ("use_layer_norm", "both", "use_layer_norm='both'"),
        ("log_variational", False, "log_variational=False"),
        ("batch_representation", "embedding", "batch_representation='embedding'"),
        ("deeply_inject_covariates", False, "deeply_inject_covariates=False"),
        ("gene_likelihood", "normal", "gene_likelihood"),
        ("n_hidden", 32, ""),
        ("n_layers", 3, ""),
        ("n_latent", "many", ""),
    ],
)
def test_structures_that_we_do_not_have_are_refused(stored, tmp_path, setting, value, said):
    stored["attr_dict"]["init_params_"]["non_kwargs"][setting] = value
    assert said in refuse(stored, tmp_path)


def test_their_size_factors_mean_something_else_and_are_refused(stored, tmp_path):
    stored["attr_dict"]["registry_"]["setup_args"]["size_factor_key"] = "size"
    assert "softplus in the place of the softmax" in refuse(stored, tmp_path)


@pytest.mark.parametrize("key", ["model_state_dict", "var_names", "attr_dict"])
def test_every_part_of_the_file_is_needed(stored, tmp_path, key):
    del stored[key]
    assert f"saved by scvi-tools 1.x ({key!r} is missing)" in refuse(stored, tmp_path)


@pytest.mark.parametrize("name", ["px_r", "z_encoder.mean_encoder.weight", "decoder.px_scale_decoder.0.bias"])
def test_every_weight_is_needed_in_its_shape(stored, tmp_path, name):
    weights = stored["model_state_dict"]
    weights[name] = weights[name][:-1].clone()
    refuse(stored, tmp_path)
    del weights[name]
    refuse(stored, tmp_path)


@pytest.mark.parametrize(
    "other", [[], {}, 3, torch.zeros(3), {"attr_dict": []}, {"attr_dict": {"registry_": 1}}], ids=str
)
def test_other_contents_are_refused(tmp_path, other):
    refuse(other, tmp_path)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileError, match="does not exist; give the folder that scvi-tools' save wrote"):
        SCVI.from_scvi_tools(tmp_path)
    for content in (b"", b"hello", b"PK\x03\x04", b"\x80\x04."):
        (tmp_path / "model.pt").write_bytes(content)
        with pytest.raises(FileError) as caught:
            SCVI.from_scvi_tools(tmp_path)
        assert_sentence(caught.value)


def test_flipped_bytes_are_refused_or_do_no_harm(stored, tmp_path):
    """200 files with three flipped bytes each: a `FileError`, or a model; nothing else."""
    torch.save(stored, tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(200):
        flipped = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            flipped[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "model.pt").write_bytes(flipped)
        try:
            SCVI.from_scvi_tools(tmp_path)
        except FileError:
            refused += 1
    assert refused > 0
