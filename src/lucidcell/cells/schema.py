"""What a trained model must remember of its data: genes, categories and keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from lucidcell.cells.taxonomy import TOP, Taxonomy
from lucidcell.errors import DataError


@dataclass(frozen=True)
class Schema:
    """Names and numbering of genes, batches, labels and covariates."""

    gene_names: tuple[str, ...]
    layer: str | None = None  # None: X
    batch_key: str | None = None
    batch_categories: tuple[str, ...] = ("all",)
    labels_key: str | None = None  # of the finest labels
    coarser_labels_keys: tuple[str, ...] = ()  # columns with coarser labels, coarse to fine
    label_categories: tuple[str, ...] = ()  # never contains the unlabelled one
    label_parents: tuple[int, ...] = ()  # position of the label above each, -1 for none; empty if no label has one
    unlabeled_category: str | None = None
    categorical_covariates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    continuous_covariates: dict[str, tuple[float, float]] = field(default_factory=dict)  # mean and scale of the column
    size_factor_key: str | None = None
    counts: bool = True  # whether the values are counts; otherwise they need only be finite

    @property
    def n_genes(self) -> int:
        return len(self.gene_names)

    @property
    def n_batches(self) -> int:
        return len(self.batch_categories)

    @property
    def n_labels(self) -> int:
        return len(self.label_categories)

    @property
    def labels_keys(self) -> tuple[str, ...]:
        """All columns with labels, coarse to fine."""
        return () if self.labels_key is None else (*self.coarser_labels_keys, self.labels_key)

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels as a tree; without taxonomy, of depth 1."""
        return Taxonomy(self.label_categories, self.label_parents or (TOP,) * self.n_labels)

    @property
    def n_covariates(self) -> int:
        """Columns of the covariate matrix: one for each category and each continuous covariate."""
        return sum(map(len, self.categorical_covariates.values())) + len(self.continuous_covariates)

    def with_batches(self, names: Iterable[str]) -> Schema:
        """The same with further batches after the known ones."""
        new = tuple(name for name in dict.fromkeys(names) if name not in self.batch_categories)
        return replace(self, batch_categories=self.batch_categories + new)

    def to_json(self) -> dict[str, Any]:
        """Plain dict of strings, numbers, lists, dicts and None."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Schema:
        """Inverse of `to_json`.

        Raises
        ------
        DataError
            If fields are missing, unknown or of the wrong type.
        """
        later: dict[str, Any] = {"coarser_labels_keys": [], "label_parents": [], "counts": True}  # than version 0.1.0
        stored = later | dict(stored)
        names = {one.name for one in fields(cls)}
        if set(stored) != names:
            odd = sorted(names.symmetric_difference(stored))
            raise DataError(f"the stored schema lacks or adds the fields {odd}: it was written by another version.")
        return cls(
            gene_names=_strings(stored, "gene_names"),
            layer=_optional(stored, "layer"),
            batch_key=_optional(stored, "batch_key"),
            batch_categories=_strings(stored, "batch_categories"),
            labels_key=_optional(stored, "labels_key"),
            coarser_labels_keys=_strings(stored, "coarser_labels_keys"),
            label_categories=_strings(stored, "label_categories"),
            label_parents=_parents(stored),
            unlabeled_category=_optional(stored, "unlabeled_category"),
            categorical_covariates={
                key: _strings(stored["categorical_covariates"], key)
                for key in _mapping(stored, "categorical_covariates")
            },
            continuous_covariates={
                key: _mean_and_scale(value, key) for key, value in _mapping(stored, "continuous_covariates").items()
            },
            size_factor_key=_optional(stored, "size_factor_key"),
            counts=_flag(stored, "counts"),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(below) for key, below in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _wrong(key: str, wanted: str, value: Any) -> DataError:
    return DataError(
        f"the stored schema holds {type(value).__name__} under {key!r} instead of {wanted}: it was changed."
    )


def _strings(stored: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = stored[key]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong(key, "a list of strings", value)
    return tuple(value)


def _parents(stored: Mapping[str, Any]) -> tuple[int, ...]:
    """Position of the parent of each label, which comes before it; or none at all."""
    value = stored["label_parents"]
    whole = isinstance(value, list) and len(value) in (0, len(stored["label_categories"]))
    if not whole or not all(isinstance(one, int) and TOP <= one < i for i, one in enumerate(value)):
        raise _wrong("label_parents", "a list of positions of earlier labels", value)
    return tuple(value)


def _optional(stored: Mapping[str, Any], key: str) -> str | None:
    value = stored[key]
    if not isinstance(value, str | None):
        raise _wrong(key, "a string or null", value)
    return value


def _flag(stored: Mapping[str, Any], key: str) -> bool:
    value = stored[key]
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def _mapping(stored: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = stored[key]
    if not isinstance(value, Mapping):
        raise _wrong(key, "an object", value)
    return value


def _mean_and_scale(value: Any, key: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, int | float) for v in value):
        raise _wrong(key, "two numbers", value)
    return float(value[0]), float(value[1])
