"""A run folder, read and checked as far as the report needs it."""

from __future__ import annotations

from functools import cached_property
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd

from lucidcell.errors import FileError
from lucidcell.readouts.top_genes import gene_signal
from lucidcell.report.files import read_json, read_table

SCHEMA_VERSION = 1
_TEXT = (str, NoneType)
_NUMBER = (int, float)
_SHAPE: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"class": (str,), "created": (str,), "config": (dict,), "schema": (dict,), "data": (dict,),
         "training": (dict, NoneType), "command": _TEXT, "versions": (dict,)},
    "schema": {"layer": _TEXT, "batch_key": _TEXT, "labels_key": _TEXT, "unlabeled_category": _TEXT,
               "label_categories": (list, NoneType)},
    "data": {"n_cells": (int,), "n_genes": (int,), "nonzero_fraction": _NUMBER, "median_library": _NUMBER,
             "n_silent_genes": (int,), "warnings": (list,)},
    "training": {"epochs": (int,), "best_epoch": (int, NoneType), "stopped": (str,), "seconds": _NUMBER},
}  # fmt: skip
_SHAPE_IF_PRESENT: dict[str, tuple[type, ...]] = {  # a model that was not trained here has no record of these
    "settings": (dict,), "n_train": (int,), "n_validation": (int,), "cells_per_second": _NUMBER,
    "peak_memory_gb": (*_NUMBER, NoneType),
}  # fmt: skip
_CALIBRATION: dict[str, tuple[type, ...]] = {
    "temperature": _NUMBER, "labels": (str,), "n_cells": (int,), "declined": _TEXT,
}  # fmt: skip
_GENE_MOMENTS = ["mean", "sd", "explained"]
_GENE_STATISTICS = [f"{name}_{side}" for name in ("mean", "cv", "zero_fraction") for side in ("observed", "expected")]


class Run:
    """What `save` has written; each table is read when it is first asked for.

    A table is None where an untrained model has none; the folder of a trained model must hold them all.

    Parameters
    ----------
    path
        The run folder.

    Raises
    ------
    FileError
        If there is no such folder or its model.json is missing or damaged; a table that is asked for, likewise.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            msg = f"{path} is not a folder: pass the folder that model.save or 'lucidcell fit' has written."
            raise FileError(msg)
        self.path = path
        self._file = path / "model.json"
        self.model = read_json(self._file)
        version = self.model.get("schema_version")
        if version != SCHEMA_VERSION:
            versions = f"schema version {version!r}, and this lucidcell reads {SCHEMA_VERSION}"
            msg = f"{self._file} has {versions}: use the lucidcell that wrote it, or train the model again."
            raise FileError(msg)
        self._check("", self.model, _SHAPE[""])
        if not self.model["data"]:
            msg = (
                f"{path} was saved by a model without data, so there is nothing to report: save one that has its data."
            )
            raise FileError(msg)
        for part in ("schema", "data"):
            self._check(part, self.model[part], _SHAPE[part])
        self.training: dict[str, Any] | None = self.model["training"]
        if self.training is not None:
            present = {key: kinds for key, kinds in _SHAPE_IF_PRESENT.items() if key in self.training}
            self._check("training", self.training, _SHAPE["training"] | present)
        self.name: str = self.model["class"]
        self.config: dict[str, Any] = self.model["config"]
        self.schema: dict[str, Any] = self.model["schema"]
        self.data: dict[str, Any] = self.model["data"]
        self.loadings_meaning: dict[str, Any] = self.model.get("loadings") or {}
        self.calibration: dict[str, Any] | None = self.model.get("calibration")
        if self.calibration is not None:
            self._check("", self.model, {"calibration": (dict,)})
            tables = NoneType if self.calibration.get("declined") is not None else dict
            self._check(
                "calibration", self.calibration, _CALIBRATION | {"reliability": (tables,), "confusion": (tables,)}
            )

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """One row per epoch (epoch, phase, train_*, validation_*, ...); None if no epoch was completed."""
        if self.training is None or self.training["epochs"] == 0:
            return None
        n_epochs = self.training["epochs"]
        return self._table("history.csv", ["phase"], ["epoch", "train_loss"], other_numbers=True, n_rows=n_epochs)

    @cached_property
    def cells(self) -> pd.DataFrame | None:
        """One row per cell: cell, batch, label, total_counts."""
        columns = ["cell", "batch", "label"]
        return self._table("tables/cells.csv", columns, ["total_counts"], n_rows=self.data["n_cells"])

    @cached_property
    def latent(self) -> pd.DataFrame | None:
        """Cells x factors, in the order of `cells`, without the column of names."""
        table = self._table("tables/latent.csv", ["cell"], other_numbers=True)
        if table is None or self.cells is None:
            return None
        file = self.path / "tables/latent.csv"
        if not np.array_equal(table["cell"].to_numpy(), self.cells["cell"].to_numpy()):
            sizes = f"{len(table):,} and {len(self.cells):,} rows"
            msg = f"{file} and cells.csv ({sizes}) do not list the same cells in the same order: save the model again."
            raise FileError(msg)
        values = table.drop(columns="cell")
        n_bad = int((~np.isfinite(values.to_numpy())).any(axis=1).sum())
        if n_bad or values.shape[1] == 0:
            msg = f"{file} holds {values.shape[1]} factors, and {n_bad:,} of {len(values):,} cells lack a finite value"
            raise FileError(f"{msg}: save the model again.")
        return values

    @cached_property
    def loadings(self) -> pd.DataFrame | None:
        """Genes x factors, with the column gene; the same genes as in `genes`."""
        table = self._table("tables/loadings.csv", ["gene"], self.factor_names)
        if table is None or self.genes is None:
            return None
        if not table["gene"].equals(self.genes["gene"]):
            file, sizes = self.path / "tables/loadings.csv", f"{len(table):,} and {len(self.genes):,} rows"
            msg = f"{file} and genes.csv ({sizes}) do not list the same genes in the same order: save the model again."
            raise FileError(msg)
        return table

    @cached_property
    def factors(self) -> pd.DataFrame | None:
        """One row per factor: factor, z_variance, kl; of a linear decoder also share and drop_one."""
        table = self._table("tables/factors.csv", ["factor"], ["z_variance", "kl"], other_numbers=True)
        if table is not None and list(table["factor"]) != self.factor_names:
            sizes = f"{len(table)} and {len(self.factor_names)}"
            file = self.path / "tables/factors.csv"
            msg = f"{file} and latent.csv do not list the same factors ({sizes}): save the model again."
            raise FileError(msg)
        return table

    @cached_property
    def genes(self) -> pd.DataFrame | None:
        """One row per gene: gene, and mean, cv and zero_fraction, each observed and expected; of others than counts
        mean and sd before scaling, and the share of variance explained.
        """  # noqa: D205
        columns = _GENE_STATISTICS if self.of_counts else _GENE_MOMENTS
        return self._table("tables/genes.csv", ["gene"], columns, n_rows=self.data["n_genes"])

    @property
    def of_counts(self) -> bool:
        """Whether the likelihood is one of counts."""
        return self.config.get("gene_likelihood", "gaussian") != "gaussian"

    @cached_property
    def signal(self) -> pd.DataFrame | None:
        """Genes x factors, by which genes are ranked: loadings, for counts times the root of the mean count."""
        if self.loadings is None or self.genes is None:
            return None
        if self.topic_genes is not None:
            return self.topic_genes.set_index("gene")
        loadings = self.loadings.set_index("gene")
        return gene_signal(loadings, self.genes["mean_observed"]) if self.of_counts else loadings

    @cached_property
    def topic_genes(self) -> pd.DataFrame | None:
        """Genes x topics, with the column gene; None for a model without topics."""
        return self._optional_table("tables/topic_genes.csv", ["gene"])

    @cached_property
    def topics(self) -> pd.DataFrame | None:
        """Cells x topics: their shares, without the column of names; None for a model without topics."""
        return self._optional_numbers("tables/topics.csv")

    @cached_property
    def points(self) -> pd.DataFrame | None:
        """Genes and topics of one space by principal components: name, kind, PC1 ...; None without topics."""
        return self._optional_table("tables/points.csv", ["name", "kind"])

    @property
    def ranked_by_signal(self) -> bool:
        """Whether genes are ranked by loading and mean count."""
        return self.of_counts or self.topic_genes is not None

    @cached_property
    def uncorrected(self) -> pd.DataFrame | None:
        """Some cells by what their counts say, without any correction: cell, PC1, ...; None for a single batch."""
        return self._optional_table("tables/uncorrected.csv", ["cell"])

    @cached_property
    def annotation(self) -> pd.DataFrame | None:
        """One row per cell: cell, prediction, confidence, entropy; None for a model that predicts no labels."""
        path, n_rows = "tables/annotation.csv", self.data["n_cells"]
        if not (self.path / path).exists():
            return None
        return self._table(path, ["cell", "prediction"], ["confidence", "entropy"], n_rows=n_rows)

    @cached_property
    def posterior(self) -> pd.DataFrame | None:
        """Cells x the most frequent predicted labels: probabilities, without the column of names."""
        return self._optional_numbers("tables/posterior.csv")

    @cached_property
    def taxonomy(self) -> pd.DataFrame | None:
        """One row per predicted label of each level: node, parent, level, n_cells, confidence."""
        return self._optional_table("tables/taxonomy.csv", ["node", "parent", "level"])

    @cached_property
    def new_types(self) -> pd.DataFrame | None:
        """One row per cluster of cells without label: cluster, n_cells, mixing, suspicious, prediction, its share."""
        return self._optional_table("tables/new_types.csv", ["cluster", "prediction"])

    @cached_property
    def markers(self) -> pd.DataFrame | None:
        """One row per gene and label: gene, group1, and what `lucidcell.readouts.markers` says of them."""
        return self._optional_table("tables/markers.csv", ["gene", "group1"])

    @cached_property
    def enrichment(self) -> pd.DataFrame | None:
        """One row per factor and gene set, as `gsea` gives it; None before `lucidcell enrich`."""
        return self._optional_table("tables/enrichment.csv", ["factor", "term", "leading_edge"])

    @cached_property
    def factor_titles(self) -> pd.DataFrame | None:
        """One row per factor and end, as `name_factors` gives it; None before `lucidcell enrich`."""
        text = ["factor", "sign", "name", "term", "leading_edge", "top_genes"]
        return self._optional_table("tables/factor_names.csv", text)

    @cached_property
    def stability(self) -> pd.DataFrame | None:
        """One row per factor: factor, and its agreement with fits of other seeds; None where they were not made."""
        return self._optional_table("tables/stability.csv", ["factor"])

    @property
    def factor_names(self) -> list[str]:
        """Names of the latent factors."""
        return [] if self.latent is None else [str(name) for name in self.latent.columns]

    @cached_property
    def labels(self) -> pd.Categorical | None:
        """Label of each cell, missing where it has none; None if no cell has one."""
        if self.cells is None:
            return None
        names = self.cells["label"]
        known = set(names) - {"", self.schema["unlabeled_category"]}
        order = [name for name in self.schema["label_categories"] or [] if name in known]
        order += sorted(known - set(order))
        return pd.Categorical(names, categories=order) if order else None

    @cached_property
    def batches(self) -> pd.Categorical | None:
        """Batch of each cell; None if there is no batch key."""
        if self.cells is None or self.schema["batch_key"] is None:
            return None
        return pd.Categorical(self.cells["batch"])

    def check(self) -> None:
        """Read all tables now, so that a fault shows before any figure is drawn.

        Raises
        ------
        FileError
            If a table is missing or damaged, or does not fit the others.
        """
        _ = self.history, self.cells, self.latent, self.loadings, self.factors, self.genes, self.uncorrected
        _ = self.annotation, self.posterior, self.taxonomy, self.new_types, self.markers
        _ = self.enrichment, self.factor_titles, self.stability, self.topics, self.topic_genes, self.points

    def _table(
        self,
        name: str,
        text: list[str],
        numbers: list[str] | None = None,
        *,
        other_numbers: bool = False,
        n_rows: int | None = None,
    ) -> pd.DataFrame | None:
        path = self.path / name
        if self.training is None and not path.exists():
            return None
        table = read_table(path, text, numbers or [], other_numbers=other_numbers)
        if n_rows is not None and len(table) != n_rows:
            msg = f"{path} has {len(table):,} rows where model.json says {n_rows:,}: save the model again."
            raise FileError(msg)
        return table

    def _optional_table(self, name: str, text: list[str], n_rows: int | None = None) -> pd.DataFrame | None:
        """A table that not every run has; all columns but `text` are numbers."""
        if not (self.path / name).exists():
            return None
        return self._table(name, text, other_numbers=True, n_rows=n_rows)

    def _optional_numbers(self, name: str) -> pd.DataFrame | None:
        """A table of numbers of all cells that not every run has, without the column of names."""
        table = self._optional_table(name, ["cell"], n_rows=self.data["n_cells"])
        return None if table is None else table.drop(columns="cell")

    def _check(self, part: str, content: dict[str, Any], shape: dict[str, tuple[type, ...]]) -> None:
        for key, kinds in shape.items():
            value = content.get(key)
            is_number = isinstance(value, float) and isfinite(value)
            if key in content and type(value) in kinds and (is_number or not isinstance(value, float)):
                continue
            found = repr(value)[:40] if key in content else "nothing"
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            place = f"{part}.{key}" if part else key
            msg = (
                f"{self._file} holds {found} at {place!r}, where {wanted} belongs: save the model again to replace it."
            )
            raise FileError(msg)
