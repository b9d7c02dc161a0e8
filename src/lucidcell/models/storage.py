"""The run folder: what `save` writes and `load` reads. Safetensors, JSON and CSV; no pickle anywhere.

model.json            class, settings, schema, data record, training record, versions, sha256 of the weights
weights.safetensors   every tensor of the module
history.csv           one row per epoch
tables/               read-outs as CSV: cells, latent, loadings, factors, genes, and what else the model has
result.h5ad           the same read-outs as AnnData without X
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import DataError, FileError, SettingError
from lucidcell.readouts.calibration import Calibration
from lucidcell.readouts.tables import as_anndata
from lucidcell.training import processes
from lucidcell.training.checkpoint import write_atomically
from lucidcell.training.estimate import peak_memory_gb

if TYPE_CHECKING:
    from anndata import AnnData

    from lucidcell.models.base import Model
    from lucidcell.training.loop import Record

SCHEMA_VERSION = 1
MODELS = {  # the only classes that a file can name
    "SCVI": "lucidcell.models.scvi",
    "SCANVI": "lucidcell.models.scanvi",
    "LDVAE": "lucidcell.models.ldvae",
    "SIVAE": "lucidcell.models.sivae",
    "VAE": "lucidcell.models.vae",
    "SCE2TM": "lucidcell.models.sce2tm",
    "SCETM": "lucidcell.models.scetm",
}
REPORTED = {"epochs", "best_epoch", "stopped", "seconds"}  # of the training record, which is shown
PACKAGES = ("lucidcell", "torch", "numpy", "scipy", "pandas", "anndata")


def training_facts(record: Record) -> dict[str, Any]:
    """The training record as stored in model.json."""
    return {
        "settings": asdict(record.settings),
        "n_train": len(record.train_rows),
        "n_validation": len(record.validation_rows),
        "epochs": record.epochs,
        "planned_epochs": record.n_planned,
        "best_epoch": record.best_epoch + 1,
        "stopped": record.stopped,
        "seconds": record.seconds,
        "cells_per_second": record.cells_per_second,
        "peak_memory_gb": peak_memory_gb(),
    }


def save(model: Model, folder: Path, *, overwrite: bool) -> None:
    """Write the run folder of `model`; see `Model.save`.

    Raises
    ------
    FileError
        If the folder holds a model already and `overwrite` is off, or cannot be written.
    """
    from safetensors.torch import save as to_bytes

    if processes.rank() > 0:  # under torchrun all have the same model, and the first one writes it
        return
    if (folder / "model.json").exists() and not overwrite:
        raise FileError(f"{folder} already holds a model; save elsewhere, or pass overwrite=True.")
    weights = to_bytes({name: tensor.contiguous() for name, tensor in model.module.state_dict().items()})
    facts = {
        "schema_version": SCHEMA_VERSION,
        "class": type(model).__name__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": asdict(model.config),
        "schema": model.schema.to_json(),
        "data": model.data_facts,
        "training": model.training_facts,
        "calibration": None if model.calibration is None else model.calibration.to_json(),
        "command": model.command,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    if model.cells is not None and model.training_facts is not None:
        facts |= _save_read_outs(model, folder)
    write_atomically(folder / "weights.safetensors", weights)
    _write_table(folder / "history.csv", model.history)
    write_atomically(folder / "model.json", json.dumps(facts, indent=1).encode())


def _save_read_outs(model: Model, folder: Path) -> dict[str, Any]:
    tables = model.tables()
    for name, table in tables.items():
        _write_table(folder / "tables" / f"{name}.csv", table)
    for path in (folder / "tables").glob("*.csv"):  # of a model that was here before
        if path.stem not in tables:
            path.unlink()
    temporary = folder / ".result.h5ad.tmp"
    try:
        as_anndata(model.name, tables).write_h5ad(temporary)
        temporary.replace(folder / "result.h5ad")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{folder / 'result.h5ad'} could not be written ({error}).") from error
    return {"loadings": dict(tables["loadings"].attrs)}


def _write_table(path: Path, table: pd.DataFrame) -> None:
    write_atomically(path, table.to_csv(index=False).encode())


def load(folder: Path, adata: AnnData | None) -> Model:
    """Read the model in `folder`; see `lucidcell.load`."""
    facts = _read_facts(folder)
    class_name = facts["class"]
    if class_name not in MODELS:
        raise FileError(f"{folder / 'model.json'} names the model {class_name!r}; known are {', '.join(MODELS)}.")
    model_class = getattr(import_module(MODELS[class_name]), class_name)
    weights = _read_weights(folder, facts["weights_sha256"])
    try:
        schema = Schema.from_json(facts["schema"])
        external_key, required = model_class.external_of(facts["config"])
        cells = None
        if adata is not None:
            cells = Cells.from_schema(
                adata, schema, external_key=external_key, external_required=required, model=class_name
            )
        model = model_class._restore(facts["config"], schema, cells)
        if asdict(model.config) != facts["config"]:  # a setting left out would silently become its default
            raise TypeError(f"its config should have {', '.join(asdict(model.config))}")
        model.module.load_state_dict(weights)
    except DataError as error:
        if adata is not None and "stored schema" not in str(error):
            raise
        raise FileError(f"{folder / 'model.json'} is damaged: {error}") from error
    except (SettingError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise FileError(f"{folder} does not hold a complete {class_name} ({_first_line(error)}).") from error
    model.module.eval()
    model.training_facts, model.data_facts, model.command = facts["training"], facts["data"], facts["command"]
    model.history, model.calibration = _read_history(folder), _read_calibration(facts, folder)
    return model


def _read_calibration(facts: Mapping[str, Any], folder: Path) -> Calibration | None:
    stored = facts.get("calibration")
    try:
        return None if stored is None else Calibration.from_json(stored)
    except (TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{folder / 'model.json'} is damaged: its calibration cannot be read ({error}).") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_facts(folder: Path) -> Mapping[str, Any]:
    path = folder / "model.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"{folder} holds no model.json, so it is not a run folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read ({_first_line(error)}).") from error
    needed = ("schema_version", "class", "config", "schema", "data", "training", "command", "weights_sha256")
    missing = [key for key in needed if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise FileError(f"{path} lacks {', '.join(missing)}; it was not written by lucidcell, or was changed.")
    if facts["schema_version"] != SCHEMA_VERSION:
        raise FileError(
            f"{path} has schema version {facts['schema_version']}; this lucidcell reads {SCHEMA_VERSION}, "
            "so upgrade it."
        )
    kinds = {"class": str, "config": dict, "schema": dict, "data": dict, "training": dict | None, "command": str | None}
    wrong = [key for key, kind in kinds.items() if not isinstance(facts[key], kind)]
    if not wrong and facts["training"] is not None and not REPORTED.issubset(facts["training"]):
        wrong = ["training"]
    if wrong:
        raise FileError(f"{path} is damaged: {wrong[0]} is {str(facts[wrong[0]])[:40]!r}, which has no meaning there.")
    return facts


def _read_weights(folder: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    path = folder / "weights.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}).") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise FileError(f"{path} is not the file that was saved (its sha256 differs); copy the run folder again.")
    try:
        weights = from_bytes(content)
    except SafetensorError as error:
        raise FileError(f"{path} is not a safetensors file ({_first_line(error)}).") from error
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise FileError(
            f"{path} holds NaN or infinite values in {len(broken)} tensors, such as {broken[0]!r}; train again."
        )
    return weights


def _read_history(folder: Path) -> pd.DataFrame:
    path = folder / "history.csv"
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):  # no history is needed to read the model out
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path} cannot be read ({_first_line(error)}); delete it if the history does not matter."
        ) from error
