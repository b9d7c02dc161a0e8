"""How to run this again, and how to load the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lucidcell.report.blocks import Block, Code, Section
from lucidcell.report.folder import Run

_DATA = "your_data.h5ad"
_ARGUMENTS = {  # of every model, by their names in the schema
    "layer": "layer",
    "batch_key": "batch_key",
    "labels_key": "labels_key",
    "unlabeled_category": "unlabeled_category",
    "categorical_covariates": "categorical_covariate_keys",
    "continuous_covariates": "continuous_covariate_keys",
    "size_factor_key": "size_factor_key",
}


def repeat(run: Run) -> Section:
    """Give the command, or else the lines of Python, that repeat the run; and the lines that load it."""
    blocks: list[Block] = []
    if run.model["command"] is not None:
        blocks.append(Code(run.model["command"], "The command that made this run:"))
    else:
        blocks.append(Code(_python(run), "The model was made in Python; these lines make it again:"))
    load = f"import lucidcell as lc\nadata = lc.read_h5ad({_DATA!r})\nmodel = lc.load({str(run.path)!r}, adata)"
    blocks.append(Code(load, "To go on with this model in Python:"))
    return Section("Repeat and reload", blocks)


def _python(run: Run) -> str:
    stored = {argument: run.schema.get(name) for name, argument in _ARGUMENTS.items()}
    keys = {argument: list(value) if isinstance(value, list | dict) else value for argument, value in stored.items()}
    lines = f"import lucidcell as lc\nadata = lc.read_h5ad({_DATA!r})\n"
    lines += f"model = lc.{run.name}(\n    adata,\n{_given(keys | run.config)})"
    if run.training is not None and "settings" in run.training:
        lines += f"\nmodel.train(\n{_given(run.training['settings'])})"
    return lines


def _given(arguments: Mapping[str, Any]) -> str:
    return "".join(f"    {name}={value!r},\n" for name, value in arguments.items() if value not in (None, [], {}))
