"""`Cells`: checked counts with their annotations, all that the models know of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from lucidcell.cells.annotations import Annotations, annotate, doubts, learn_labels, learn_schema, unknown_batches
from lucidcell.cells.checks import DataRecord, check_empty_cells, record_data
from lucidcell.cells.covariates import encode, recode, some
from lucidcell.cells.genes import match_genes
from lucidcell.cells.labels import with_labels
from lucidcell.cells.matrix import Rows
from lucidcell.cells.partners import MOST_TO_SEARCH, Partners, WindowPartners
from lucidcell.cells.parts import Parts
from lucidcell.cells.schema import Schema
from lucidcell.cells.stored import BYTES_PER_ENTRY, StoredRows, Window
from lucidcell.errors import DataError

if TYPE_CHECKING:
    from lucidcell.cells.batch import Batch
    from lucidcell.cells.partners import PartnerSearch
    from lucidcell.cells.parts import Data
    from lucidcell.cells.read_taxonomy import TaxonomySource

READ_AT_ONCE = 2**26  # bytes of counts
MOST_SIZE_RATIO = 5.0  # between mean size factor and mean total count, or the reverse


@dataclass(frozen=True, eq=False, repr=False)
class Cells:
    """n cells over G genes as compressed sparse rows (sorted, no explicit zeros), with their annotations."""

    counts: Rows | StoredRows  # (n, G), in memory or in files
    cell_names: np.ndarray  # (n,) str
    schema: Schema
    batch: np.ndarray  # (n,) int64
    label: np.ndarray  # (n,) int64, -1 where there is none
    covariates: np.ndarray  # (n, P) float32: one-hot categorical covariates, then standardised continuous ones
    library: np.ndarray  # (n,) float32: sum over the genes, or the size factor
    record: DataRecord
    external: np.ndarray | None = None  # (n, E) float32: embedding made elsewhere
    present: np.ndarray = field(
        default_factory=lambda: np.zeros(0, bool)
    )  # (G,) genes that the data have; by default all
    partners: Partners | PartnerSearch | None = None  # of which `take` draws a neighbour for each cell

    def __post_init__(self) -> None:
        if not len(self.present):
            object.__setattr__(self, "present", np.ones(self.n_genes, bool))

    def __len__(self) -> int:
        return len(self.cell_names)

    def __repr__(self) -> str:
        schema = self.schema
        sizes = f"{len(self)} cells, {self.n_genes} genes, {schema.n_batches} batches, {schema.n_labels} labels"
        return f"Cells({sizes}, {schema.n_covariates} covariate columns)"

    @property
    def n_genes(self) -> int:
        return self.schema.n_genes

    def take(self, rows: np.ndarray) -> Batch:
        """The cells `rows` (B,) int as torch tensors, in that order; a cell may occur twice."""
        known = self.partners if isinstance(self.partners, Partners) else None
        return self._batch(self._positions(rows), self.counts, known)

    def _batch(
        self, rows: np.ndarray, counts: Rows | StoredRows | Window, partners: Partners | WindowPartners | None
    ) -> Batch:
        """The cells `rows`, which are in order, with those of `counts`."""
        import torch

        from lucidcell.cells.batch import Batch, SparseRows

        indptr, indices, values, n_genes = counts.take(rows)
        return Batch(
            counts=SparseRows(torch.from_numpy(indptr), torch.from_numpy(indices), torch.from_numpy(values), n_genes),
            batch=torch.from_numpy(self.batch[rows]),
            label=torch.from_numpy(self.label[rows]),
            covariates=torch.from_numpy(self.covariates[rows]),
            library=torch.from_numpy(self.library[rows]),
            rows=torch.from_numpy(rows),
            external=None if self.external is None else torch.from_numpy(self.external[rows]),
            pair=None if partners is None else self._pair(partners.draw(rows), counts),
        )

    def _pair(self, drawn: tuple[np.ndarray, np.ndarray] | None, counts: Rows | StoredRows | Window) -> Batch | None:
        """Neighbours by expression, with the external embedding of neighbours by external embedding."""
        import torch

        if drawn is None:
            return None
        of_expression, of_external = drawn
        assert self.external is not None
        external = torch.from_numpy(self.external[of_external])
        return self._batch(of_expression, counts, None)._replace(external=external)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All cells in order, `size` at a time; of those in files some thousands are read at once."""
        n = len(self)
        step = max(1, n) if self.in_memory else max(1, self.cells_within(READ_AT_ONCE) // size) * size
        for first in range(0, n, step):
            last = min(first + step, n)
            window = self.window(np.arange(first, last))
            for start in range(first, last, size):
                yield window.take(np.arange(start, min(start + size, last)))

    def select(self, rows: np.ndarray) -> Cells:
        """The cells `rows` (int positions or a boolean mask) as `Cells`; the record stays that of the whole data."""
        rows = self._positions(rows)
        return replace(
            self,
            counts=self.counts.select(rows),
            cell_names=self.cell_names[rows],
            batch=self.batch[rows],
            label=self.label[rows],
            covariates=self.covariates[rows],
            library=self.library[rows],
            external=None if self.external is None else self.external[rows],
            partners=None,  # whose positions are others now
        )

    def mean_counts(self) -> np.ndarray:
        """Mean count of each gene, (G,)."""
        total = np.zeros(self.n_genes)
        for block in self.counts.blocks():
            total += np.bincount(block.indices, weights=block.values, minlength=self.n_genes)
        return total / len(self)

    @property
    def in_memory(self) -> bool:
        """Whether the counts are."""
        return not isinstance(self.counts, StoredRows)

    def cells_within(self, n_bytes: float) -> int:
        """How many cells have counts that take about so much memory."""
        per_cell = BYTES_PER_ENTRY * max(1.0, float(self.counts.lengths().mean()))
        most = int(n_bytes / per_cell)
        return most if self.partners is None else min(most, MOST_TO_SEARCH)

    def cells_unpacked_together(self) -> int:
        """Of cells in files: how many lie in one chunk of the file."""
        return 1 if not isinstance(self.counts, StoredRows) else self.counts.rows_per_chunk()

    def window(self, rows: np.ndarray) -> Cells | CellWindow:
        """What the cells `rows` (B,) can be taken from, under the same numbers, without reading files again."""
        if self.in_memory:
            return self
        held = np.unique(self._positions(rows))
        content = self.counts.take(held)
        partners = None
        if self.partners is not None and not isinstance(self.partners, Partners):
            partners = WindowPartners(held, self.partners.among(content, self, held))
        return CellWindow(self, Window(held, content), partners)

    def _positions(self, rows: np.ndarray) -> np.ndarray:
        """Positions as fresh int64; the compiled pass reads whatever it is told, so they are checked."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"the mask has shape {rows.shape} for {len(self)} cells.")
            return np.flatnonzero(rows)
        if rows.dtype.kind not in "iu" and rows.size:
            raise IndexError(f"rows are {rows.dtype}, and should be integers or a boolean mask.")
        rows = np.array(rows, np.int64)
        if rows.ndim != 1 or (rows.size and (rows.min() < 0 or rows.max() >= len(self))):
            raise IndexError(f"rows of shape {rows.shape} do not all lie in 0..{len(self) - 1}.")
        return rows

    @classmethod
    def from_anndata(
        cls,
        adata: Data,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: Sequence[str] | str | None = None,
        unlabeled_category: str | None = None,
        taxonomy: TaxonomySource | None = None,
        categorical_covariate_keys: Sequence[str] | str | None = None,
        continuous_covariate_keys: Sequence[str] | str | None = None,
        size_factor_key: str | None = None,
        external_key: str | None = None,
        model: str = "SCVI",
        counts: bool = True,
    ) -> Cells:
        """Check the data of a model to be trained, and copy what it needs; the AnnData is not changed.

        Parameters
        ----------
        adata
            One AnnData (in memory, a view, backed or lazy), or a list or dict of them; several are joined over the
            genes that all have, and without `batch_key` each is a batch.
        layer
            Layer with the counts; None for X.
        batch_key, labels_key, size_factor_key
            Columns of obs. Labels may be in several, from coarse to fine.
        unlabeled_category
            Value of the label column that means no label. Missing values mean it too.
        taxonomy
            Tree of the labels of one column: a dict from child to parent, a DataFrame or CSV file with these two
            columns, or a networkx DiGraph with edges from parent to child.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of obs that the model corrects for.
        external_key
            Key of obsm with an embedding made elsewhere.
        model
            Name of the model, for messages.
        counts
            Whether values must be counts; otherwise they need only be finite.

        Raises
        ------
        DataError
            With the numbers and a way out, for whatever the model could not use.
        """
        parts = Parts.of(adata, model=model, smallest=2)
        genes = parts.shared_genes()
        warnings = _name_doubts(parts, genes)
        schema = learn_schema(
            parts,
            genes,
            layer=layer,
            batch_key=batch_key,
            labels_key=labels_key,
            unlabeled_category=unlabeled_category,
            taxonomy=taxonomy,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            size_factor_key=size_factor_key,
        )
        schema = replace(schema, counts=counts)
        annotations = annotate(parts, schema)
        warnings += doubts(annotations, schema, parts)
        rows = parts.rows_where_they_lie(layer, genes, model=model, counts=counts)
        if counts:
            all_genes = len(genes) == max(one.n_vars for one in parts.data)
            check_empty_cells(rows, parts.cell_names(), layer, model=model, all_genes=all_genes)
        warnings += _size_factor_doubts(annotations, rows)
        record = record_data(rows, np.ones(len(genes), bool), warnings)
        return _assemble(parts, schema, annotations, rows, record, external_key)

    @classmethod
    def from_schema(
        cls,
        adata: Data,
        schema: Schema,
        *,
        layer: str | None | EllipsisType = ...,
        new_batches: bool = False,
        missing_genes: bool = False,
        external_key: str | None = None,
        external_required: bool = True,
        model: str = "SCVI",
        quiet: bool = False,
    ) -> Cells:
        """Check data for a trained model: genes are found by name in any order, categories by name.

        Parameters
        ----------
        adata
            As in `from_anndata`; a single cell is enough. Further genes are ignored, and so is a missing label column.
        schema
            What the model was trained on.
        layer
            Layer with the counts, None for X; by default the layer that the model was trained on.
        new_batches
            Append unknown batches to the schema of the result, instead of refusing them.
        missing_genes
            Fill genes that the data lack with zeros (`present` says which), instead of refusing them.
        external_key
            Key of obsm with an embedding made elsewhere.
        external_required
            Whether data without it are refused; otherwise they have none.
        model
            Name of the model, for messages.
        quiet
            Whether doubts are kept to the record.

        Raises
        ------
        DataError
            With the numbers and a way out, for whatever the model could not use.
        """
        parts = Parts.of(adata, model=model, smallest=1)
        if external_key is not None and not external_required and not parts.has_embedding(external_key):
            external_key = None
        present = match_genes(schema.gene_names, parts.shared_genes(), pad=missing_genes)
        if new_batches:
            schema = schema.with_batches(unknown_batches(parts, schema))
        annotations = annotate(parts, schema)
        warnings = _query_doubts(parts, schema, annotations, present)
        chosen = schema.layer if isinstance(layer, EllipsisType) else layer
        rows = parts.rows_where_they_lie(chosen, schema.gene_names, model=model, counts=schema.counts)
        if schema.counts:
            check_empty_cells(rows, parts.cell_names(), chosen, model=model, all_genes=False)
        record = record_data(rows, present, warnings, quiet=quiet)
        return replace(_assemble(parts, schema, annotations, rows, record, external_key), present=present)

    @classmethod
    def from_schema_with_labels(
        cls,
        adata: Data,
        schema: Schema,
        *,
        labels_key: Sequence[str] | str | None,
        unlabeled_category: str | None,
        taxonomy: TaxonomySource | None,
        model: str,
    ) -> Cells:
        """As `from_schema`, with the labels that occur in the data instead of those of the schema."""
        parts = Parts.of(adata, model=model, smallest=1)
        return cls.from_schema(
            adata, learn_labels(parts, schema, labels_key, unlabeled_category, taxonomy), model=model
        )

    def relabelled(
        self, labels_key: Sequence[str] | str | None, unlabeled_category: str | None, taxonomy: TaxonomySource | None
    ) -> Cells:
        """The same cells; their labels without the unlabelled category, or in a tree.

        Raises
        ------
        DataError
            If other labels are asked for than were kept, or labels and taxonomy do not fit together.
        """
        kept = self.schema.labels_key
        if kept is None or labels_key not in (None, kept):
            raise DataError(
                f"these cells were kept with the labels of {'no column' if kept is None else f'obs[{kept!r}]'}: pass "
                "adata, which has the column."
            )
        names = self.schema.label_categories
        column = pd.Series(pd.Categorical.from_codes(self.label.tolist(), list(names)), name=kept)
        schema = with_labels(self.schema, {kept: column}, unlabeled_category, taxonomy)
        return replace(self, schema=schema, label=recode(self.label, names, schema.label_categories))


class CellWindow(NamedTuple):
    """Cells of which the counts of some are in memory."""

    cells: Cells
    counts: Window
    partners: WindowPartners | None

    def take(self, rows: np.ndarray) -> Batch:
        """As `Cells.take`, of cells that are held."""
        return self.cells._batch(rows, self.counts, self.partners)


def _assemble(
    parts: Parts,
    schema: Schema,
    annotations: Annotations,
    rows: Rows | StoredRows,
    record: DataRecord,
    external_key: str | None,
) -> Cells:
    library = rows.sums() if annotations.size_factor is None else annotations.size_factor
    return Cells(
        counts=rows,
        cell_names=parts.cell_names(),
        schema=schema,
        batch=annotations.batch,
        label=annotations.label,
        covariates=annotations.covariates,
        library=library.astype(np.float32),
        record=record,
        external=None if external_key is None else parts.embedding(external_key),
    )


def _size_factor_doubts(annotations: Annotations, rows: Rows | StoredRows) -> list[str]:
    """Say so when size factors are not on the scale of counts, which the model takes them for."""
    if annotations.size_factor is None:
        return []
    mean, total = float(annotations.size_factor.mean()), float(rows.sums().mean())
    if MOST_SIZE_RATIO > mean / total > 1 / MOST_SIZE_RATIO:
        return []
    return [
        f"size factors have mean {mean:.3g} where total counts have {total:.3g}, and take their place: multiply them "
        f"by {total / mean:.3g}"
    ]


def _name_doubts(parts: Parts, genes: tuple[str, ...]) -> list[str]:
    """Refuse data sets without a common gene; say what is odd about cell and gene names."""
    found = []
    n_names = len(set(parts.cell_names()))
    if n_names < parts.n_cells:
        found.append(f"{parts.n_cells - n_names} of {parts.n_cells} cell names occur more than once")
    sizes = [one.n_vars for one in parts.data]
    if not genes:
        shown = some([one.var_names[0] for one in parts.data])
        raise DataError(
            f"the {len(sizes)} data sets share no gene name (their first are {shown}): give all the same kind of names."
        )
    if len(genes) < max(sizes):
        found.append(
            f"the {len(sizes)} data sets share {len(genes)} of {min(sizes)} to {max(sizes)} genes; only those are used"
        )
    return found


def _query_doubts(parts: Parts, schema: Schema, annotations: Annotations, present: np.ndarray) -> list[str]:
    """What is allowed but worth saying about data for a trained model."""
    found = []
    if not present.all():
        lost = int(np.count_nonzero(~present))
        found.append(f"{lost} of {len(present)} genes ({lost / len(present):.0%}) are missing")
    known = {*schema.label_categories, schema.unlabeled_category}
    for key in schema.labels_keys:
        if parts.has_column(key):
            unknown = [name for name in encode(parts.column(key, argument="labels_key"))[1] if name not in known]
            if unknown:
                found.append(f"labels unknown to the model ({some(unknown)}) count as none")
    return found
