"""Run folders, whole and damaged: the model comes back bit for bit, or a sentence says why not; nothing is ever run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from battery import assert_same_weights, assert_sentence, weights
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

import lucidcell as lc
from lucidcell.errors import FileError
from lucidcell.models.scvi import SCVI


@pytest.fixture(scope="module")
def saved(trained: Callable[..., SCVI], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    trained(categorical_covariate_keys=["sex"], continuous_covariate_keys=["age"]).save(folder)
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def refuse(run: Path, said: str = "") -> str:
    """Loading must end in a `FileError` of one sentence."""
    with pytest.raises(FileError) as caught:
        lc.load(run)
    assert_sentence(caught.value)
    assert said in str(caught.value)
    return str(caught.value)


def change(run: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = run / "model.json"
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))


def put_weights(run: Path, content: bytes) -> None:
    """Replace the weights, and their sha256 with them, as someone who means harm would."""
    (run / "weights.safetensors").write_bytes(content)
    change(run, lambda facts: facts.update(weights_sha256=hashlib.sha256(content).hexdigest()))


def edit_weights(run: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = from_bytes((run / "weights.safetensors").read_bytes())
    edit(tensors)
    put_weights(run, to_bytes(tensors))


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


# --- whole ------------------------------------------------------------------------------------------------------


def test_the_folder_holds_what_it_should(saved, trained):
    model = trained(categorical_covariate_keys=["sex"], continuous_covariate_keys=["age"])
    names = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    written = ("cells", "latent", "loadings", "factors", "genes", "markers", "uncorrected")
    tables = {f"tables/{name}.csv" for name in written}
    assert names == {"model.json", "weights.safetensors", "history.csv", "result.h5ad"} | tables
    facts = json.loads((saved / "model.json").read_text())
    assert facts["class"] == "SCVI"
    assert facts["weights_sha256"] == hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest()
    assert facts["training"]["epochs"] == 6
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["data"]["n_cells"] == 120
    latent = pd.read_csv(saved / "tables/latent.csv")
    np.testing.assert_allclose(latent[model.factor_names], model.get_latent_representation(), rtol=1e-5, atol=1e-6)
    loadings = pd.read_csv(saved / "tables/loadings.csv", index_col="gene")
    np.testing.assert_allclose(loadings, model.get_loadings(), rtol=1e-5, atol=1e-7)
    cells = pd.read_csv(saved / "tables/cells.csv")
    np.testing.assert_allclose(cells["total_counts"], model.cells.library)
    assert list(cells["batch"]) == list(np.array(model.schema.batch_categories)[model.cells.batch])
    result = lc.read_h5ad(saved / "result.h5ad")
    np.testing.assert_array_equal(result.obsm["X_scvi"], latent[model.factor_names].to_numpy(np.float32))
    assert result.X is None


def test_factor_table_by_hand(saved, trained):
    model = trained(categorical_covariate_keys=["sex"], continuous_covariate_keys=["age"])
    table = pd.read_csv(saved / "tables/factors.csv")
    mean, variance = (torch.from_numpy(v).double() for v in model.get_latent_representation(return_dist=True))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    )
    np.testing.assert_allclose(table["kl"], kl.mean(0), rtol=1e-4)
    np.testing.assert_allclose(table["z_variance"], mean.var(0, correction=0), rtol=1e-4)


def test_a_model_that_is_not_trained_can_be_kept_and_trained_later(simulated, tmp_path):
    SCVI(simulated, n_hidden=8, n_latent=2).save(tmp_path / "run")
    assert not (tmp_path / "run" / "tables").exists()
    model = lc.load(tmp_path / "run", simulated)
    model.train(1, num_threads=1, progress=False)
    assert model.get_latent_representation().shape == (120, 2)


def test_an_existing_model_is_not_overwritten_by_accident(run, trained):
    before = (run / "model.json").read_bytes()
    with pytest.raises(FileError, match="already holds a model; save elsewhere, or pass overwrite=True") as caught:
        trained().save(run)
    assert_sentence(caught.value)
    assert (run / "model.json").read_bytes() == before
    trained().save(run, overwrite=True)
    assert_same_weights(weights(lc.load(run)), weights(trained()))


def test_a_place_that_cannot_be_written_is_a_file_error(tmp_path, trained):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError) as caught:
        trained().save(tmp_path / "file")
    assert_sentence(caught.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_save_that_fails_leaves_the_old_weights_readable(run, trained, monkeypatch):
    """model.json is written last; until then its sha256 tells old weights from new ones."""
    old = weights(lc.load(run))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(FileError):
            trained().save(run, overwrite=True)
    assert_same_weights(weights(lc.load(run)), old)


def test_names_with_any_letters_come_back(simulated, tmp_path):
    simulated.var_names = [*simulated.var_names[:-3], "Größe,1", 'say "hi"', "NA"]
    simulated.obs["batch"] = np.where(simulated.obs["batch"] == "batch_0", "a,b\nc", "ünï")
    model = SCVI(simulated, batch_key="batch", n_hidden=8, n_latent=2)
    model.train(1, num_threads=1, progress=False)
    model.save(tmp_path / "run with space")
    loaded = lc.load(tmp_path / "run with space", simulated)
    assert loaded.schema == model.schema
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())


# --- damaged ----------------------------------------------------------------------------------------------------

TOP = ("schema_version", "class", "config", "schema", "data", "training", "command", "weights_sha256")
CONFIG = (
    "n_hidden", "n_latent", "n_layers", "dropout_rate", "gene_likelihood", "dispersion", "latent_distribution",
    "use_observed_lib_size", "encode_covariates", "kl_warmup",
)  # fmt: skip
SCHEMA = (
    "gene_names", "layer", "batch_key", "batch_categories", "labels_key", "label_categories", "unlabeled_category",
    "categorical_covariates", "continuous_covariates", "size_factor_key",
)  # fmt: skip


@pytest.mark.parametrize("key", TOP)
def test_every_key_of_the_description_is_needed(run, key):
    change(run, lambda facts: facts.pop(key))
    assert key in refuse(run)


@pytest.mark.parametrize("key", CONFIG)
def test_every_setting_is_needed(run, key):
    change(run, lambda facts: facts["config"].pop(key))
    refuse(run)


@pytest.mark.parametrize("key", SCHEMA)
def test_every_field_of_the_schema_is_needed(run, key):
    change(run, lambda facts: facts["schema"].pop(key))
    assert key in refuse(run)


@pytest.mark.parametrize("key", TOP)
@pytest.mark.parametrize("value", [7.5, ["list"], False], ids=str)
def test_wrong_types_are_refused(run, key, value):
    change(run, lambda facts: facts.update({key: value}))
    refuse(run)


@pytest.mark.parametrize("key", CONFIG)
@pytest.mark.parametrize("value", [None, "text", -3, ["list"], {"a": 1}, 1e400], ids=repr)
def test_wrong_settings_are_refused(run, key, value):
    change(run, lambda facts: facts["config"].update({key: value}))
    refuse(run)


@pytest.mark.parametrize("key", SCHEMA)
@pytest.mark.parametrize("value", [3, [1, 2], {"a": 1}], ids=repr)
def test_wrong_fields_of_the_schema_are_refused(run, key, value):
    change(run, lambda facts: facts["schema"].update({key: value}))
    refuse(run)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda facts: facts.update({"class": "os.system"}), "names the model 'os.system'; known are SCVI"),
        (lambda facts: facts.update({"class": "../../evil"}), "names the model"),
        (lambda facts: facts.update({"class": "Model"}), "names the model 'Model'"),
        (lambda facts: facts.update({"schema_version": 2}), "has schema version 2; this lucidcell reads 1"),
        (lambda facts: facts["config"].update({"surprise": 1}), "surprise"),
        (lambda facts: facts["schema"].update({"surprise": 1}), "surprise"),
        (lambda facts: facts["schema"]["gene_names"].pop(), "does not hold a complete SCVI"),
        (lambda facts: facts["schema"]["batch_categories"].append("another"), "does not hold a complete SCVI"),
        (lambda facts: facts["config"].update(n_hidden=32), "does not hold a complete SCVI"),
        (lambda facts: facts["config"].update(n_layers=2), "does not hold a complete SCVI"),
        (lambda facts: facts["config"].update(gene_likelihood="zinb"), "does not hold a complete SCVI"),
        (lambda facts: facts["training"].pop("epochs"), "training"),
    ],
    ids=[
        "code as class",
        "path as class",
        "base class",
        "newer",
        "unknown setting",
        "unknown field",
        "gene lost",
        "batch added",
        "wider",
        "deeper",
        "other likelihood",
        "record without epochs",
    ],  # fmt: skip
)
def test_descriptions_that_do_not_fit_are_refused(run, edit, said):
    change(run, edit)
    refuse(run, said)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'"text"', b"[" * 100_000, b"{}", b'{"class": "SCVI"}'],
    ids=["empty", "cut", "list", "null", "binary", "text", "nested", "object", "nearly empty"],
)
def test_files_that_are_no_description_are_refused(run, content):
    (run / "model.json").write_bytes(content)
    refuse(run)


def test_folders_that_are_none_are_refused(tmp_path, run):
    refuse(tmp_path / "nowhere", "holds no model.json, so it is not a run folder")
    refuse(run / "model.json")
    (run / "weights.safetensors").unlink()
    refuse(run, "cannot be read")


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_truncated_weights_are_refused(run, length):
    content = (run / "weights.safetensors").read_bytes()[:length]
    (run / "weights.safetensors").write_bytes(content)
    refuse(run, "its sha256 differs")
    put_weights(run, content)
    refuse(run, "is not a safetensors file")


def test_one_flipped_bit_anywhere_is_seen(run):
    path = run / "weights.safetensors"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [0, len(content) - 1, *rng.integers(0, len(content), 20)]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        refuse(run, "its sha256 differs")


def test_weights_of_another_model_are_refused(run, trained, tmp_path):
    trained(n_latent=4).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "weights.safetensors", run)
    refuse(run, "its sha256 differs")
    put_weights(run, (run / "weights.safetensors").read_bytes())
    refuse(run, "does not hold a complete SCVI")


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t["rho.bias"].fill_(np.nan),
        lambda t: t["log_theta"][0, 3:4].fill_(np.inf),
        lambda t: t.pop("rho.bias"),
        lambda t: t.update(extra=torch.zeros(3)),
        lambda t: t.update({"rho.bias": t["rho.bias"][:-1].clone()}),
        lambda t: t.update({"rho.weight": t["rho.weight"].t().contiguous()}),
    ],
    ids=["NaN", "infinite", "missing", "extra", "shorter", "transposed"],
)
def test_weights_that_do_not_fit_are_refused_even_with_the_right_sha256(run, edit):
    edit_weights(run, edit)
    refuse(run)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "history.csv"])
def test_a_pickle_under_one_of_our_names_is_never_run(run, tmp_path, name):
    canary = tmp_path / "canary"
    for content in (pickle.dumps(Canary(canary)), torch_pickle(canary, tmp_path)):
        if name == "weights.safetensors":
            put_weights(run, content)
        else:
            (run / name).write_bytes(content)
        refuse(run)
        assert not canary.exists()


def torch_pickle(canary: Path, folder: Path) -> bytes:
    torch.save({"rho.bias": Canary(canary)}, folder / "model.pt")
    return (folder / "model.pt").read_bytes()


def test_the_canary_would_sing(tmp_path):
    """The test above means something: the pickle does make its file when it is opened."""
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_a_link_to_foreign_weights_is_checked_like_any_file(run, trained, tmp_path):
    trained(n_latent=4).save(tmp_path / "other")
    (run / "weights.safetensors").unlink()
    (run / "weights.safetensors").symlink_to(tmp_path / "other" / "weights.safetensors")
    refuse(run, "its sha256 differs")


def test_the_history_may_be_missing_and_must_be_readable(run):
    (run / "history.csv").write_bytes(b"\xff\xfe\x00\x01,\n\xff")
    refuse(run, "history.csv cannot be read")
    (run / "history.csv").unlink()
    assert lc.load(run).history.empty


def test_a_file_that_asks_for_too_much_memory_is_refused(run):
    change(run, lambda facts: facts["config"].update(n_hidden=10**13))
    refuse(run)


# --- data that do not fit ---------------------------------------------------------------------------------------


def test_data_that_do_not_fit_the_model_are_data_errors(saved, simulated):
    from lucidcell.errors import DataError

    fewer = simulated[:, :40].copy()
    with pytest.raises(DataError, match=r"10 of the model's 50 genes \(20%\) are missing") as caught:
        lc.load(saved, fewer)
    assert_sentence(caught.value)
    del simulated.obs["sex"]
    with pytest.raises(DataError, match="obs has no 'sex'"):
        lc.load(saved, simulated)
