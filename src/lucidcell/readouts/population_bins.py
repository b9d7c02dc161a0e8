"""Cells of populations (donors, cell lines) in bins of equal size, and a siVAE of every bin.

Equal bins, so that no network is better known than another because its population has more cells. Fits run with joblib,
each with one thread; the result of each is a small file in `folder`, and what is there already is not fitted again.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from lucidcell.cells.covariates import encode, require_complete
from lucidcell.cells.matrix import row_blocks
from lucidcell.errors import DataError, FileError
from lucidcell.readouts.many_fits import noted_folder, side_by_side
from lucidcell.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from anndata import AnnData

TARGET = 1e4  # counts per cell, before the logarithm of mean expression
WHAT_DIFFERS = {
    "data": "other data", "by": "another by", "bin_size": "another bin_size", "layer": "another layer",
    "seed": "another seed", "model": "other model_arguments", "training": "another training",
    "version": "another version of lucidcell",
}  # fmt: skip


@dataclass(frozen=True)
class Bin:
    """Cells of one population that are fitted together."""

    population: str
    number: int  # within the population
    rows: np.ndarray  # of the AnnData, in its order

    @property
    def file(self) -> str:  # a population may have a name that is none for a file, and other cells another time
        cells = sha256(self.population.encode() + self.rows.astype("<i8").tobytes())
        return f"bin_{cells.hexdigest()[:16]}_{self.number}.npz"


@dataclass(frozen=True)
class FittedBin:
    """What is kept of a fit."""

    loadings: pd.DataFrame  # genes x factors
    centrality: pd.Series  # per gene: share of its variance that the model explains; NaN if it is the same in all cells


@dataclass(frozen=True)
class Expression:
    """Mean expression of each population over the cells of its bins."""

    mean: pd.DataFrame  # genes x populations
    depth: pd.Series  # counts per cell, by population; NaN of values that are no counts
    checksum: int  # of all cells of the AnnData


def fit_bin(
    adata: AnnData, layer: str | None, model_arguments: Mapping[str, Any], training: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, pd.Series]:
    """Loadings (genes x factors) and degree centrality (by gene) of a siVAE of these cells."""
    from lucidcell.models import sivae  # through the module: the class itself is looked up when it is needed

    model: Any = sivae.SIVAE(adata, layer=layer, **model_arguments)
    model.train(**({"progress": False, "num_threads": 1} | dict(training) | {"seed": seed}))
    return model.get_loadings(), model.get_degree_centrality()


def split(
    column: pd.Series, *, bin_size: int, n_bins_max: int | None, seed: int
) -> tuple[list[Bin], list[str], pd.DataFrame]:
    """Bins of all populations, names of those with a bin, and a table of those without: population, n_cells.

    The cells of a population are shuffled with a seed of its own, so that its bins depend on no other population.

    Raises
    ------
    DataError
        If a cell has no population, or fewer than two populations have a bin.
    """
    codes, names = encode(column)
    require_complete(codes, str(column.name), "population")
    bins, kept, dropped = [], [], []
    for code, name in enumerate(names):
        rows = np.flatnonzero(codes == code)
        if len(rows) < bin_size:
            dropped.append((name, len(rows)))
            continue
        kept.append(name)
        rows = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(rows)
        n_bins = len(rows) // bin_size if n_bins_max is None else min(len(rows) // bin_size, n_bins_max)
        bins += [Bin(name, b, np.sort(rows[b * bin_size : (b + 1) * bin_size])) for b in range(n_bins)]
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} of {len(names)} populations in obs[{column.name!r}] have bin_size={bin_size} cells (the "
            f"largest has {int(np.bincount(codes).max())}); at least 2 are needed: lower bin_size."
        )
    return bins, kept, pd.DataFrame(dropped, columns=["population", "n_cells"])


def mean_expression(adata: AnnData, layer: str | None, bins: Sequence[Bin], populations: Sequence[str]) -> Expression:
    """Mean over the cells in bins of log(1 + counts per 10,000); of values that are no counts, the values themselves.

    Raises
    ------
    DataError
        If there is no such layer.
    """
    if layer is not None and layer not in adata.layers:
        raise DataError(f"layer is {layer!r}, and layers has {', '.join(map(str, adata.layers)) or 'none'}: name one.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise DataError("adata.X is empty; name the layer that holds the expression.")
    member = np.full(adata.n_obs, -1)
    for one in bins:
        member[one.rows] = populations.index(one.population)
    totals = {kind: np.zeros((len(populations), adata.n_vars)) for kind in ("plain", "log")}
    checksum, start, counts = zlib.crc32("\n".join(map(str, [*adata.var_names, *adata.obs_names])).encode()), 0, True
    for block in row_blocks(matrix, "adata.X" if layer is None else f"layers[{layer!r}]"):
        for array in (np.diff(block.indptr).astype(np.int64), block.indices.astype(np.int64), block.data):
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
        counts &= bool((block.data >= 0).all() and (block.data == np.floor(block.data)).all())
        of_block = member[start : start + block.shape[0]]
        cells = np.flatnonzero(of_block >= 0)
        at = (np.ones(len(cells)), (of_block[cells], cells))
        indicator = sp.csr_matrix(at, shape=(len(populations), block.shape[0]))
        totals["plain"] += (indicator @ block).toarray()
        if counts:
            totals["log"] += (indicator @ _log_normalised(block)).toarray()
        start += block.shape[0]
    sums = totals["log" if counts else "plain"] / np.bincount(member[member >= 0])[:, None]
    table = pd.DataFrame(sums.T, pd.Index(adata.var_names.astype(str), name="gene"), list(populations))
    table.attrs["unit"] = "mean of log(1 + counts per 10,000)" if counts else "mean of the values given"
    depth = totals["plain"].sum(1) / np.bincount(member[member >= 0]) if counts else np.nan
    return Expression(table, pd.Series(depth, list(populations), name="depth"), checksum)


def _log_normalised(block: sp.csr_matrix) -> sp.csr_matrix:
    scale = TARGET / np.maximum(np.asarray(block.sum(1)).ravel(), 1.0)
    return sp.csr_matrix(
        (np.log1p(block.data * np.repeat(scale, np.diff(block.indptr))), block.indices, block.indptr), block.shape
    )


def fit_bins(
    adata: AnnData,
    bins: Sequence[Bin],
    *,
    layer: str | None,
    model_arguments: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
    place: Path | None,
    n_jobs: int,
    progress: bool,
) -> list[FittedBin]:
    """All fits, in the order of the bins.

    Raises
    ------
    DataError
        If fits do not have the same genes.
    FileError
        If the file of an earlier fit is damaged.
    """
    from tqdm.auto import tqdm

    with tqdm(total=len(bins), disable=not progress, unit="bin", desc="siVAE of each bin") as bar:

        def arguments_of(b: int) -> tuple[Any, ...]:
            bar.update(max(0, b + 1 - bar.n))
            file = None if place is None else place / bins[b].file
            made = file is not None and file.exists()
            cells = None if made else adata[bins[b].rows].to_memory()
            return fit_bin, cells, layer, dict(model_arguments), dict(training), seed, file

        names = [f"{one.population}, bin {one.number}" for one in bins]
        fits: list[FittedBin] = side_by_side(_fit, names, arguments_of, n_jobs=n_jobs, folder=place)
    genes = fits[0].loadings.index
    for one, fit in zip(bins, fits, strict=True):
        if n_other := len(fit.loadings.index.symmetric_difference(genes)):
            raise DataError(
                f"bin {one.number} of population {one.population!r} differs in {n_other} genes from the first bin, of "
                f"{len(genes)} genes: keep genes that are expressed in every population."
            )
    return [FittedBin(fit.loadings.loc[genes], fit.centrality.loc[genes]) for fit in fits]


def own_folder(folder: str | Path, settings: Mapping[str, Any], checksum: int) -> Path:
    """`folder` for fits of bins, with its note: see `noted_folder`."""
    note = {"data": checksum, "version": version("lucidcell")} | {
        key: {name: repr(one) for name, one in sorted(value.items())} if isinstance(value, Mapping) else repr(value)
        for key, value in settings.items()
    }
    return noted_folder(folder, note, name="populations.json", words=WHAT_DIFFERS)


def _fit(
    fit: Any,
    cells: AnnData | None,
    layer: str | None,
    model_arguments: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    file: Path | None,
) -> FittedBin:
    """A siVAE of some cells; without cells, the one that is in the file."""
    if cells is None:
        assert file is not None
        return _read(file)
    loadings, centrality = fit(cells, layer, model_arguments, training, seed)
    genes = pd.Index(loadings.index.astype(str).to_numpy(object), name="gene")
    table = pd.DataFrame(loadings.to_numpy(float), genes, loadings.columns.astype(str).to_numpy(object))
    varied = loadings.index.isin(cells.var_names[_varies(cells.X if layer is None else cells.layers[layer])])
    explained = np.where(varied, centrality.reindex(loadings.index).to_numpy(float), np.nan)
    made = FittedBin(table, pd.Series(explained, genes))
    if file is not None:
        content = BytesIO()
        np.savez(
            content,
            loadings=made.loadings.to_numpy(),
            centrality=made.centrality.to_numpy(),
            genes=made.loadings.index.to_numpy(str),
            factors=made.loadings.columns.to_numpy(str),
        )
        write_atomically(file, content.getvalue())
    return made


def _varies(values: Any) -> np.ndarray:
    """Genes that are not the same in all cells, (G,) bool, of cells x genes."""
    low, high = (getattr(values, which)(axis=0) for which in ("min", "max"))
    low, high = (one.toarray() if sp.issparse(one) else one for one in (low, high))
    return np.asarray(high != low).ravel()


def _read(file: Path) -> FittedBin:
    try:
        with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            genes = pd.Index(stored["genes"].astype(object), name="gene")
            table = pd.DataFrame(stored["loadings"], genes, stored["factors"].astype(object))
            return FittedBin(table, pd.Series(stored["centrality"], genes))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"{file} is not a readable fit ({error}); delete it to fit this bin again.") from error
