"""Read an SCVI model saved by scvi-tools (1.x): `model.pt` is a pickle, so it is opened with an allowlist only.

`torch.load(weights_only=True)` builds tensors and plain containers. What else scvi-tools puts into its files is named
here: NumPy arrays, and the pandas tables of the training history, for which an inert stand-in is built instead.
Anything else is refused, and nothing in the file is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lucidcell.cells.cells import Cells
from lucidcell.cells.schema import Schema
from lucidcell.errors import FileError

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import nn

    from lucidcell.maths.networks import GeneLayer, GeneMLP, Layer
    from lucidcell.models.scvi import SCVI, SCVIModule

HISTORY_TYPES = (
    "pandas._libs.internals._unpickle_block",
    "pandas.core.internals.managers.BlockManager",
    "pandas.core.indexes.base._new_Index",
    "pandas.core.indexes.base.Index",
    "pandas.core.indexes.range.RangeIndex",
    "pandas.core.frame.DataFrame",
)


class _Ignored:
    """Takes the place of a history table; keeps nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _dict(*factory: object) -> dict[str, object]:
    """Takes the place of `defaultdict`, which torch fills no values into."""
    return {}


def allowed_types() -> list[Any]:
    """What may be in the file besides tensors and plain Python containers."""
    from numpy._core import multiarray as core

    dtypes = [type(np.dtype(code)) for code in ("O", "?", "i1", "i2", "i4", "i8", "f4", "f8", "U1")]
    old_names = [
        (core._reconstruct, "numpy.core.multiarray._reconstruct"),
        (core.scalar, "numpy.core.multiarray.scalar"),
    ]
    containers = [slice, bytes, dict, (_dict, "collections.defaultdict")]
    history = [(_Ignored, name) for name in HISTORY_TYPES]
    return [core._reconstruct, core.scalar, np.ndarray, np.dtype, *dtypes, *old_names, *containers, *history]


def read_scvi(path: Path, adata: AnnData | None) -> SCVI:
    """An SCVI model with the weights of scvi-tools' `SCVI.save(path)`.

    Parameters
    ----------
    path
        The folder that scvi-tools wrote, or its `model.pt`.
    adata
        Data to read the model out on, as for `lucidcell.load`.

    Raises
    ------
    FileError
        If the file is missing, holds anything but an SCVI model, or a structure that lucidcell does not have.
    """
    stored = _open(path / "model.pt" if path.is_dir() else path)
    try:
        model = _read(stored, path)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason += " is missing" if isinstance(error, KeyError) else ""
        raise FileError(f"{path} is not a complete SCVI model saved by scvi-tools 1.x ({reason}).") from error
    model.cells = None if adata is None else Cells.from_schema(adata, model.schema, model="SCVI")
    if model.cells is not None:
        model.data_facts = asdict(model.cells.record)
    model.training_facts = {"epochs": 0, "best_epoch": 0, "stopped": "imported from scvi-tools", "seconds": 0.0}
    return model


def _read(stored: Mapping[str, Any], path: Path) -> SCVI:
    """The model with these contents of its file; `path` is for messages."""
    from lucidcell.models.scvi import SCVI, SCVIConfig

    registry, settings = stored["attr_dict"]["registry_"], _settings(stored["attr_dict"])
    if registry["model_name"] != "SCVI":
        raise FileError(f"{path} holds a {registry['model_name']} model; only SCVI can be read.")
    size_factor_key = registry["setup_args"].get("size_factor_key")
    if size_factor_key is not None:
        raise FileError(
            f"{path} was trained with size_factor_key={size_factor_key!r}, where scvi-tools has a softplus in "
            "the place of the softmax; lucidcell's SCVI has the softmax only, so train it anew."
        )
    schema = _schema(registry, [str(name) for name in stored["var_names"]])
    state = {name: value for name, value in stored["model_state_dict"].items() if isinstance(value, Tensor)}
    model = SCVI._restore(vars(SCVIConfig(**_structure(settings, path))), schema, None)
    with torch.no_grad():
        _copy(model.module, state, schema)
    return model


def _open(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise FileError(f"{path} does not exist; give the folder that scvi-tools' save wrote.")
    try:
        with torch.serialization.safe_globals(allowed_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises a dozen kinds on damaged files
        reason = next(
            (line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "damaged file"
        )
        raise FileError(
            f"{path} holds something other than weights and plain values, and was not opened ({reason})."
        ) from error


def _settings(attributes: Mapping[str, Any]) -> dict[str, Any]:
    parameters = attributes["init_params_"]
    keywords = {key: value for group in parameters["kwargs"].values() for key, value in group.items()}
    return parameters["non_kwargs"] | keywords


def _structure(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Their settings under our names; those that we do not have must be at their default."""
    required = {
        "use_batch_norm": "both", "use_layer_norm": "none", "log_variational": True, "batch_representation": "one-hot",
        "deeply_inject_covariates": True, "var_activation": None,
    }  # fmt: skip
    for name, value in required.items():
        if settings.get(name, value) != value:
            raise FileError(f"{path} was trained with {name}={settings[name]!r}; lucidcell's SCVI has {value!r} only.")
    shared = (
        "n_hidden", "n_latent", "n_layers", "dropout_rate", "dispersion", "gene_likelihood", "latent_distribution",
        "use_observed_lib_size", "encode_covariates",
    )  # fmt: skip
    return {name: settings[name] for name in shared if name in settings}


def _schema(registry: Mapping[str, Any], genes: list[str]) -> Schema:
    keys, fields = registry["setup_args"], registry["field_registries"]

    def categories(field: str) -> tuple[str, ...]:
        mapping = fields.get(field, {}).get("state_registry", {}).get("categorical_mapping", [])
        return tuple(str(name) for name in mapping)

    joint = fields.get("extra_categorical_covs", {}).get("state_registry", {}).get("mappings", {})
    continuous = fields.get("extra_continuous_covs", {}).get("state_registry", {}).get("columns", [])
    return Schema(
        gene_names=tuple(genes),
        layer=keys.get("layer"),
        batch_key=keys.get("batch_key"),
        batch_categories=categories("batch") if keys.get("batch_key") else ("all",),
        labels_key=keys.get("labels_key"),
        label_categories=categories("labels") if keys.get("labels_key") else (),
        categorical_covariates={str(key): tuple(map(str, values)) for key, values in joint.items()},
        continuous_covariates={str(key): (0.0, 1.0) for key in continuous},
        size_factor_key=keys.get("size_factor_key"),
    )


def _copy(module: SCVIModule, state: Mapping[str, Tensor], schema: Schema) -> None:
    columns, n_continuous = _design_columns(schema), len(schema.continuous_covariates)
    encoded = columns if module.config.encode_covariates else []
    _copy_encoder(module.encoder, state, "z_encoder.encoder", encoded, n_continuous)
    _copy_linear(module.z_mean, state, "z_encoder.mean_encoder")
    _copy_linear(module.z_variance, state, "z_encoder.var_encoder")
    if not module.config.use_observed_lib_size:
        _copy_encoder(module.library_encoder, state, "l_encoder.encoder", encoded, n_continuous)
        _copy_linear(module.library_mean, state, "l_encoder.mean_encoder")
        _copy_linear(module.library_variance, state, "l_encoder.var_encoder")
        prior = torch.stack([state["library_log_means"][0], state["library_log_vars"][0].sqrt()], dim=1)
        module.library_prior.copy_(prior)
    for i, layer in enumerate(module.decoder.blocks()):
        _copy_layer(layer, state, f"decoder.px_decoder.fc_layers.Layer {i}", columns, n_continuous, first=i == 0)
    _copy_linear(module.rho, state, "decoder.px_scale_decoder.0")
    if module.config.gene_likelihood == "zinb":
        _copy_linear(module.dropout_logit, state, "decoder.px_dropout_decoder")
    if module.config.gene_likelihood != "poisson":
        theta = state["px_r"]
        module.log_theta.copy_(theta.t() if theta.ndim == 2 else theta[None])


def _design_columns(schema: Schema) -> list[int]:
    """For every column of our design [one-hot covariates, continuous covariates, batch]: its place in theirs
    [continuous covariates, batch, one-hot covariates], or -1 where they leave out a category that all cells share.
    """  # noqa: D205
    n_continuous, n_batches = len(schema.continuous_covariates), schema.n_batches
    place = n_continuous
    batch = [place + s if n_batches > 1 else -1 for s in range(n_batches)]
    place += n_batches if n_batches > 1 else 0
    categorical: list[int] = []
    for names in schema.categorical_covariates.values():
        categorical += [place + c if len(names) > 1 else -1 for c in range(len(names))]
        place += len(names) if len(names) > 1 else 0
    return [*categorical, *range(n_continuous), *batch]


def _design_weight(weight: Tensor, n_in: int, columns: list[int], n_continuous: int, first: bool) -> Tensor:
    """The part of their weight (n_out, n_in + design) that meets the design, in our order; (n_out, design)."""
    ours = weight.new_zeros(weight.shape[0], len(columns))
    for target, source in enumerate(columns):
        if source < 0 or (source < n_continuous and not first):
            continue  # continuous covariates enter their first layer only
        shift = 0 if first else n_continuous
        ours[:, target] = weight[:, n_in + source - shift]
    return ours


def _copy_linear(linear: nn.Linear, state: Mapping[str, Tensor], name: str) -> None:
    linear.weight.copy_(state[f"{name}.weight"])
    linear.bias.copy_(state[f"{name}.bias"])


def _copy_norm(norm: nn.BatchNorm1d, state: Mapping[str, Tensor], name: str) -> None:
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        getattr(norm, part).copy_(state[f"{name}.{part}"])


def _copy_layer(
    layer: Layer, state: Mapping[str, Tensor], name: str, columns: list[int], n_continuous: int, first: bool
) -> None:
    weight = state[f"{name}.0.weight"]
    n_in = layer.linear.weight.shape[1] - len(columns)
    layer.linear.weight[:, :n_in] = weight[:, :n_in]
    layer.linear.weight[:, n_in:] = _design_weight(weight, n_in, columns, n_continuous, first)
    layer.linear.bias.copy_(state[f"{name}.0.bias"])
    _copy_norm(layer.norm, state, f"{name}.1")


def _copy_encoder(
    encoder: GeneMLP, state: Mapping[str, Tensor], name: str, columns: list[int], n_continuous: int
) -> None:
    first: GeneLayer = encoder.first
    weight = state[f"{name}.fc_layers.Layer 0.0.weight"]
    n_genes = first.gene_weight.shape[0]
    first.gene_weight.copy_(weight[:, :n_genes].t())
    first.covariate_weight.copy_(_design_weight(weight, n_genes, columns, n_continuous, first=True))
    first.bias.copy_(state[f"{name}.fc_layers.Layer 0.0.bias"])
    _copy_norm(first.norm, state, f"{name}.fc_layers.Layer 0.1")
    for i, layer in enumerate(encoder.rest.blocks(), start=1):
        _copy_layer(layer, state, f"{name}.fc_layers.Layer {i}", columns, n_continuous, first=False)
