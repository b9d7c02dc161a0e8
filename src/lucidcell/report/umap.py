"""Maps of cells, and of genes and topics: two dimensions that keep neighbours together."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucidcell.errors import FileError
from lucidcell.maths.sampling import some_rows
from lucidcell.report.files import read_table, write_atomically
from lucidcell.report.folder import Run

logger = logging.getLogger("lucidcell")

MAPPED_CELLS = 50_000  # above, a random sample is mapped: exact neighbours stay a matter of seconds
DRAWN_CELLS = 20_000
FEWEST_CELLS = 10
N_NEIGHBORS = 15


class CellMap(NamedTuple):
    """Where cells lie on the map."""

    rows: np.ndarray  # (m,) positions of the drawn cells among all
    xy: np.ndarray  # (m, 2)


def cell_map(run: Run) -> CellMap | None:
    """Read tables/umap.csv, or compute and write it; then draw at most 20,000 of its cells at random (seeded).

    The file is computed again when it is older than latent.csv.

    Raises
    ------
    FileError
        If the file is damaged or names cells that the run does not have.
    """
    if run.latent is None or run.cells is None or len(run.latent) < FEWEST_CELLS:
        return None
    mapped = some_rows(len(run.latent), MAPPED_CELLS)
    found = _kept_map(run, "umap", "latent", run.cells["cell"], mapped, run.latent.to_numpy()[mapped])
    if len(found.rows) <= DRAWN_CELLS:
        return found
    drawn = np.isin(found.rows, some_rows(len(run.latent), DRAWN_CELLS))
    return CellMap(found.rows[drawn], found.xy[drawn])


def uncorrected_map(run: Run) -> CellMap | None:
    """The same for what the counts say without any correction, in tables/umap_uncorrected.csv; None for one batch.

    Raises
    ------
    FileError
        If the file is damaged or names cells that the run does not have.
    """
    table = run.uncorrected
    if table is None or run.cells is None or len(table) < FEWEST_CELLS:
        return None
    cells = run.cells["cell"]
    rows = _rows_of(table["cell"].to_numpy(), cells)
    if (rows < 0).any():  # cells that share a name, so that it is not known which these are
        return None
    return _kept_map(run, "umap_uncorrected", "uncorrected", cells, rows, table.drop(columns="cell").to_numpy())


def point_map(run: Run) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Places of genes and of topics on one map, in tables/umap_points.csv; None for a model without topics.

    Raises
    ------
    FileError
        If the file is damaged or names others.
    """
    table = run.points
    if table is None or len(table) < FEWEST_CELLS:
        return None
    values = table.drop(columns=["name", "kind"]).to_numpy()
    xy = _kept_map(run, "umap_points", "points", table["name"], np.arange(len(table)), values).xy
    places = pd.DataFrame(xy, table["name"], ["UMAP 1", "UMAP 2"])
    is_topic = (table["kind"] == "topic").to_numpy()
    return places[~is_topic], places[is_topic]


def _kept_map(run: Run, name: str, source: str, names: pd.Series, rows: np.ndarray, values: np.ndarray) -> CellMap:
    """The map in tables/`name`.csv or, if that is missing or older than its source, a new one of `values` (rows, D)."""
    path = run.path / f"tables/{name}.csv"
    if not path.exists() or path.stat().st_mtime_ns < (run.path / f"tables/{source}.csv").stat().st_mtime_ns:
        xy = compute_umap(values)
        _write(path, names.iloc[rows], xy)
        return CellMap(rows, xy)
    return CellMap(*_read(path, names))


def compute_umap(latent: np.ndarray) -> np.ndarray:
    """UMAP (m, 2) of latent coordinates (m, D), from exact neighbours and random_state=0; m is at least 10."""
    import scanpy as sc  # takes seconds to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads and tiny graphs; nothing the reader could act on
        adata = sc.AnnData(np.ascontiguousarray(latent, dtype=np.float32))
        n_neighbors = min(N_NEIGHBORS, len(latent) - 1)
        sc.pp.neighbors(adata, n_neighbors, use_rep="X", transformer="sklearn", random_state=0)
        sc.tl.umap(adata, random_state=0)
    return np.asarray(adata.obsm["X_umap"], dtype=float)


def _read(path: Path, names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    table = read_table(path, [str(names.name)], ["umap1", "umap2"])
    rows = _rows_of(table[names.name].to_numpy(), names)
    xy = table[["umap1", "umap2"]].to_numpy()
    n_bad = int(((rows < 0) | ~np.isfinite(xy).all(axis=1)).sum())
    if n_bad or not len(table):
        faults = f"{len(table):,} rows, {n_bad:,} of them of an unknown {names.name} or without numbers"
        msg = f"{path} has {faults}: delete it, and the report computes the map again."
        raise FileError(msg)
    return rows, xy


def _rows_of(wanted: np.ndarray, names: pd.Series) -> np.ndarray:
    """Position of each among the names, -1 where it is not found; of those that share a name the order counts."""
    if np.array_equal(wanted, names.to_numpy()):
        return np.arange(len(names))
    index = pd.Index(names)
    return np.asarray(index.get_indexer(wanted)) if index.is_unique else np.full(len(wanted), -1)


def _write(path: Path, names: pd.Series, xy: np.ndarray) -> None:
    table = pd.DataFrame({names.name: names.to_numpy(), "umap1": xy[:, 0], "umap2": xy[:, 1]})
    try:
        write_atomically(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    except FileError as error:  # a report can be made of a folder that is read-only
        logger.warning("%s is not kept for the next report: %s", path.name, error)
