"""Read files of counts, and refuse damaged ones with a sentence instead of a crash, a hang or wrong numbers."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from lucidcell.cells.guard import check_store, damaged
from lucidcell.cells.matrix import index_fault, pointer_fault, sparse_fault
from lucidcell.errors import FileError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

KNOWN_STARTS = {
    b"\x1f\x8b": "it is packed with gzip: unpack it first",
    b"PK\x03\x04": "it is a zip archive: unpack it first",
    b"version https://git-lfs": "it is a Git LFS pointer, not the data: run 'git lfs pull'",
    b"<!DOCTYPE": "it is a web page: the download went wrong",
    b"<html": "it is a web page: the download went wrong",
}
INDEX_BLOCK = 2**24  # entries of a stored matrix looked at in one go


def read_h5ad(path: str | os.PathLike[str], *, backed: Literal["r"] | None = None) -> AnnData:
    """Read an .h5ad file and check every sparse matrix in it.

    Parameters
    ----------
    path
        The file.
    backed
        "r" leaves X and the layers in the file, to be read piece by piece: models train on it as it lies.

    Returns
    -------
    anndata.AnnData
        What the file holds; nothing is repaired.

    Raises
    ------
    FileError
        If the file is missing, damaged or not an .h5ad file.
    """
    _check_backed(backed)
    file = _existing(path)
    if file.is_dir():
        raise FileError(f"{file} is a folder; use read_zarr for a zarr store, read_10x for a 10x matrix folder.")
    _check_hdf5(file)
    _check_h5ad_groups(file)

    def read() -> AnnData:
        import anndata
        import h5py

        if not backed:
            return anndata.read_h5ad(file)
        adata = _backed_h5ad(file)
        with h5py.File(file, "r") as stored:
            _check_stored(file, stored, adata)
        return adata

    return _read(file, read)


def read_zarr(path: str | os.PathLike[str], *, backed: Literal["r"] | None = None) -> AnnData:
    """Read a zarr store written by AnnData and check every sparse matrix in it.

    Parameters
    ----------
    path
        The folder.
    backed
        "r" leaves X and the layers in the store, sharded or not, to be read piece by piece, as in `read_h5ad`; `raw` is
        left out.

    Raises
    ------
    FileError
        If the folder is missing, damaged or not an AnnData store.
    """
    _check_backed(backed)
    folder = _existing(path)
    if not folder.is_dir():
        raise FileError(f"{folder} is a file, while a zarr store is a folder; use read_h5ad for an .h5ad file.")
    check_store(folder, "zarr")

    def read() -> AnnData:
        import anndata
        import zarr

        if not backed:
            return anndata.read_zarr(folder)
        group = zarr.open_group(folder, mode="r")
        elements = _elements(group) | {"raw": None}  # which AnnData would read into memory
        adata = anndata.AnnData(**elements, X=_as_it_lies(group["X"]) if "X" in group else None)
        _check_stored(folder, group, adata)
        return adata

    return _read(folder, read)


def read_10x(path: str | os.PathLike[str]) -> AnnData:
    """Read the output of Cell Ranger: an .h5 file, or a folder with matrix.mtx, barcodes.tsv and features.tsv.

    Only the rows of type "Gene Expression" are kept. Gene names are symbols and may occur twice.

    Raises
    ------
    FileError
        If the file or folder is missing, damaged or something else.
    """
    source = _existing(path)
    if source.is_file() and ".mtx" in source.name:
        source = source.parent
    if source.is_file():
        _check_hdf5(source)

    def read() -> AnnData:
        import scanpy as sc

        if source.is_file():
            return sc.read_10x_h5(source, gex_only=False)
        return sc.read_10x_mtx(source, gex_only=False, make_unique=False, cache=False)

    adata = _read(source, read)
    if "feature_types" in adata.var.columns:
        is_gene = (adata.var["feature_types"] == "Gene Expression").to_numpy()
        if not is_gene.all():
            adata = adata[:, is_gene].copy()
    return adata


def _check_backed(backed: str | None) -> None:
    if backed not in (None, "r"):
        raise SettingError(
            f"backed={backed!r} is not possible, since lucidcell never writes into a data file: use 'r'."
        )


def _backed_h5ad(file: Path) -> AnnData:
    """As `anndata.read_h5ad(file, backed="r")`, which reads the layers into memory; here they stay where they are."""
    import anndata
    import h5py

    stored = h5py.File(file, "r")
    if not stored.get("layers"):
        stored.close()
        return anndata.read_h5ad(file, backed="r")
    return anndata.AnnData(**_elements(stored), filename=file, filemode="r")  # the layers keep `stored` open


def _elements(stored: Any) -> dict[str, Any]:
    """All of an open store but X, as arguments of AnnData; the layers as they lie."""
    from anndata.io import read_elem

    found = {
        name: read_elem(stored[name])
        for name in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")
        if name in stored
    }
    found["layers"] = {name: _as_it_lies(stored["layers"][name]) for name in stored.get("layers", {})}
    if "raw" in stored:
        found["raw"] = {name: read_elem(stored["raw"][name]) for name in ("var", "varm") if name in stored["raw"]}
    return found


def _as_it_lies(element: Any) -> Any:
    """A matrix of an open store: sparse ones as AnnData's stored matrices, dense ones as the store's arrays."""
    from anndata.io import sparse_dataset

    return element if hasattr(element, "shape") else sparse_dataset(element)


def _existing(path: str | os.PathLike[str]) -> Path:
    """The path, if there is a file or folder."""
    place = Path(path).expanduser()
    if place.is_file() or place.is_dir():
        return place
    if place.exists():
        raise FileError(f"{place} is neither a file nor a folder.")
    if not place.parent.is_dir():
        raise FileError(f"{place} does not exist, and neither does its folder {place.parent}.")
    names = sorted(entry.name for entry in place.parent.iterdir())
    close = difflib.get_close_matches(place.name, names, n=1)
    hint = (
        f"did you mean {str(place.parent / close[0])!r}?" if close else f"its folder holds {len(names)} other entries."
    )
    raise FileError(f"{place} does not exist; {hint}")


def _check_hdf5(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise FileError(f"{file} cannot be opened: {error.strerror or error}.") from error
    if not start:
        raise FileError(f"{file} is empty; fetch or write it again.")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        check_store(file, "hdf5")
        return
    fault = next((said for known, said in KNOWN_STARTS.items() if start.startswith(known)), None)
    raise damaged(file, None, fault or f"it is not an HDF5 file (it starts with {start[:8]!r})")


def _check_h5ad_groups(file: Path) -> None:
    import h5py

    with h5py.File(file, "r") as stored:
        names = set(stored)
    if "matrix" in names and "obs" not in names:
        raise FileError(f"{file} looks like a 10x file, not an .h5ad file: use read_10x.")
    if missing := sorted({"obs", "var"} - names):
        raise damaged(file, missing[0], "it is missing")


def _read(path: Path, read: Callable[[], AnnData]) -> AnnData:
    """Call `read` and check its matrices; whatever goes wrong becomes a `FileError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats and names: a warning turned error is no damage
            adata = read()
    except (FileError, ImportError, KeyboardInterrupt):
        raise
    except Exception as error:  # h5py, zarr, pandas and anndata raise a dozen kinds on damaged files
        raise damaged(path, _element_of(error), _reason_of(error)) from error
    for element, matrix in _sparse_elements(adata):
        if fault := sparse_fault(matrix) or _format_fault(matrix):
            if adata.isbacked:
                adata.file.close()
            raise damaged(path, element, fault)
    raw = None if adata.isbacked else adata.raw
    if raw is not None and raw.X is not None and raw.X.shape != (adata.n_obs, raw.n_vars):
        raise damaged(path, "raw/X", f"its shape is {raw.X.shape} and should be {(adata.n_obs, raw.n_vars)}")
    return adata


def _sparse_elements(adata: AnnData) -> Iterator[tuple[str, Any]]:
    """Name and value of every sparse matrix in memory."""
    pending: list[tuple[str, Any]] = [
        ("layers", {key: value for key, value in adata.layers.items() if key is not None}),
        ("obsm", adata.obsm),
        ("varm", adata.varm),
        ("obsp", adata.obsp),
        ("varp", adata.varp),
        ("uns", adata.uns),
    ]
    if not adata.isbacked:
        pending.append(("X", adata.X))
        if adata.raw is not None:
            pending.append(("raw/X", adata.raw.X))
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend((f"{name}/{key}", below) for key, below in value.items())
        elif sp.issparse(value):
            yield name, value


def _format_fault(matrix: Any) -> str | None:
    if matrix.format not in ("csr", "csc"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unsigned indices
            matrix.check_format(full_check=True)
    except ValueError as error:
        return str(error)
    return None


def _check_stored(path: Path, stored: Any, adata: AnnData) -> None:
    """Check X, the layers and raw/X in an open store, where they lie, block by block."""
    shapes = {f"layers/{name}": adata.shape for name in stored.get("layers", {})} | {"X": adata.shape}
    if adata.raw is not None:
        shapes["raw/X"] = (adata.n_obs, adata.raw.n_vars)
    for element, shape in shapes.items():
        if element in stored and (fault := _stored_fault(stored[element], shape)):
            raise damaged(path, element, fault)


def _stored_fault(stored: Any, expected: tuple[int, int]) -> str | None:
    """What is wrong with a matrix in an open store that should be of the `expected` shape, or None."""
    sparse = not hasattr(stored, "shape")
    shape = tuple(int(n) for n in (stored.attrs["shape"] if sparse else stored.shape))
    if shape != expected:
        return f"its shape is {shape} and should be {expected}"
    if not sparse:
        return None
    n_major, n_minor = shape if stored.attrs["encoding-type"] == "csr_matrix" else shape[::-1]
    indices = stored["indices"]
    if fault := pointer_fault(np.asarray(stored["indptr"][...]), n_major, indices.shape[0], stored["data"].shape[0]):
        return fault
    n_indices = indices.shape[0]
    blocks = (np.asarray(indices[start : start + INDEX_BLOCK]) for start in range(0, n_indices, INDEX_BLOCK))
    return next((fault for block in blocks if (fault := index_fault(block, n_minor))), None)


def _element_of(error: BaseException) -> str | None:
    """The element anndata was reading when the error arose."""
    for note in getattr(error, "__notes__", []):
        if found := re.search(r"reading key '(.*)' of .* from (\S+)", note):
            return f"{found[2]}/{found[1]}".strip("/") or None
    return None


def _reason_of(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0] if error.args else 'something'} is missing"
    if isinstance(error, MemoryError):
        return "it claims more values than fit into memory"
    return f"{error} ({type(error).__name__})"
