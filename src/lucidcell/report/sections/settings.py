"""Every setting of the model and of its training, and the versions of the software."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lucidcell.report.blocks import Block, Row, Section, Table
from lucidcell.report.folder import Run

_KEYS = ("layer", "batch_key", "labels_key", "unlabeled_category", "categorical_covariates", "continuous_covariates")


def settings(run: Run) -> Section:
    """List the settings and versions."""
    keys = {key: run.schema.get(key) for key in (*_KEYS, "size_factor_key")}
    tables: list[Block] = [_table("model", run.config), _table("data", keys)]
    if run.training is not None and "settings" in run.training:
        tables.append(_table("training", run.training["settings"]))
    tables.append(_table("software", run.model["versions"]))
    return Section("Settings and versions", [Row(tables)])


def _table(title: str, values: Mapping[str, Any]) -> Table:
    return Table([title, ""], [(str(name), _written(value)) for name, value in values.items()], visible=40)


def _written(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | dict) else str(value)
