"""Files: what is whole is read as it is, what is damaged is a `FileError`, and nothing crashes or hangs."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from lucidcell.cells import read as read_module
from lucidcell.cells import read_10x, read_h5ad, read_zarr
from lucidcell.errors import FileError, SettingError


@pytest.fixture
def whole(adata: ad.AnnData) -> ad.AnnData:
    """Data with a sparse matrix in every place where there can be one."""
    adata.layers["counts"] = sp.csc_matrix(adata.X)
    adata.raw = adata.copy()
    adata.obsm["S"] = sp.csr_matrix(np.eye(37, 4))
    adata.obsp["graph"] = sp.csr_matrix(np.eye(37))
    adata.varp["network"] = sp.csr_matrix(np.eye(23))
    adata.varm["loadings"] = sp.csc_matrix(np.eye(23, 3))
    adata.uns["deep"] = {"graph": sp.csr_matrix(np.eye(37)), "text": "hello"}
    adata.uns["numbers"] = np.arange(4)
    return adata


@pytest.fixture
def file(whole: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "data.h5ad"
    whole.write_h5ad(path)
    return path


def assert_same(first: ad.AnnData, second: ad.AnnData) -> None:
    pd.testing.assert_frame_equal(first.obs, second.obs)
    pd.testing.assert_frame_equal(first.var, second.var)
    np.testing.assert_array_equal(first.X[:].toarray(), second.X[:].toarray())
    np.testing.assert_array_equal(first.raw.X[:].toarray(), second.raw.X[:].toarray())
    np.testing.assert_array_equal(first.layers["counts"][:].toarray(), second.layers["counts"][:].toarray())
    np.testing.assert_array_equal(first.obsp["graph"].toarray(), second.obsp["graph"].toarray())


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_a_whole_file_is_read_as_anndata_reads_it(whole: ad.AnnData, tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "data.h5ad"
    whole.write_h5ad(path, compression=compression)
    assert_same(read_h5ad(path), ad.read_h5ad(path))
    assert_same(read_h5ad(str(path)), whole)


def test_a_file_may_stay_backed(file: Path, whole: ad.AnnData) -> None:
    backed = read_h5ad(file, backed="r")
    assert backed.isbacked
    assert_same(backed, whole)
    backed.file.close()
    with pytest.raises(SettingError, match="never writes into a data file"):
        read_h5ad(file, backed="r+")


def test_a_missing_path_is_answered_with_the_closest(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"dta\.h5ad does not exist; did you mean '.*/data\.h5ad'\?"):
        read_h5ad(tmp_path / "dta.h5ad")
    with pytest.raises(FileError, match="neither does its folder"):
        read_h5ad(tmp_path / "none" / "data.h5ad")
    with pytest.raises(FileError, match=r"is a folder; use read_zarr"):
        read_h5ad(tmp_path)
    with pytest.raises(FileError, match=r"is a file, while a zarr store is a folder; use read_h5ad"):
        read_zarr(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"gene,cell\n1,2\n", r"not an HDF5 file \(it starts with b'gene,cel'\)"),
        (gzip.compress(b"x", mtime=0), "packed with gzip: unpack it first"),
        (b"PK\x03\x04abc", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
)
def test_other_files_are_recognised(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.h5ad").write_bytes(content)
    with pytest.raises(FileError, match=said):
        read_h5ad(tmp_path / "x.h5ad")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5ad")
    with pytest.raises(FileError, match="neither a file nor a folder"):
        read_h5ad(tmp_path / "pipe.h5ad")


def test_a_file_open_for_writing_is_not_called_damaged(file: Path) -> None:
    with h5py.File(file, "r+"), pytest.raises(FileError, match=r"data\.h5ad is locked .*: close it where it is open"):
        read_h5ad(file)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the walk in another process, so that a fault meets the checks of this one."""
    monkeypatch.setattr(read_module, "check_store", lambda *_: None)


SPARSE = [
    "X",
    "raw/X",
    "layers/counts",
    "obsm/S",
    "obsp/graph",
    "varp/network",
    "varm/loadings",
    "uns/deep/graph",
]


BROKEN = [
    ("indices", 2, 2_000_000_000, "its indices reach from"),
    ("indices", 2, -7, "its indices reach from -7"),
    ("indptr", 1, 10_000, "indptr falls at 1 of"),
    ("indptr", -1, 10_000, "indptr runs from 0 to 10000"),
]


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize(
    ("element", "part", "position", "value", "said"),
    [("X", *broken) for broken in BROKEN] + [(name, *BROKEN[i % 4]) for i, name in enumerate(SPARSE[1:])],
)
def test_malformed_sparse_matrices_are_named(
    file: Path, element: str, part: str, position: int, value: int, said: str
) -> None:
    with h5py.File(file, "r+") as stored:
        stored[f"{element}/{part}"][position] = value
    with pytest.raises(FileError, match=rf"data\.h5ad cannot be read at element '{element}': {said}"):
        read_h5ad(file)


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("element", ["X", "raw/X"])
@pytest.mark.parametrize(("part", "position", "value"), [("indices", 3, 99), ("indices", 3, -7), ("indptr", 1, 10_000)])
def test_malformed_matrices_that_stay_in_the_file_are_found_too(
    file: Path, element: str, part: str, position: int, value: int
) -> None:
    with h5py.File(file, "r+") as stored:
        stored[f"{element}/{part}"][position] = value
    with pytest.raises(FileError, match=f"at element '{element}'"):
        read_h5ad(file, backed="r")


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("element", ["obs", "var", "X/data", "X/indices", "layers/counts/indptr", "obs/donor/codes"])
def test_missing_elements_are_named(file: Path, element: str) -> None:
    with h5py.File(file, "r+") as stored:
        del stored[element]
    with pytest.raises(FileError, match=f"cannot be read.*{element.split('/')[-1]}"):
        read_h5ad(file)


def change(file: Path, fault: str) -> None:
    with h5py.File(file, "r+") as stored:
        if fault == "shape too small":
            stored["X"].attrs["shape"] = (37, 5)
        elif fault == "shape too large":
            stored["X"].attrs["shape"] = (38, 23)
        elif fault == "raw of other size":
            stored["raw/X"].attrs["shape"] = (37, 24)
        elif fault == "code out of range":
            stored["obs/donor/codes"][5] = 100
        elif fault == "broken text":
            del stored["obs/_index"]
            names = np.array([b"cell\xff\xfe"] * 37, dtype=object)
            made = stored.create_dataset("obs/_index", data=names, dtype=h5py.string_dtype())
            made.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        elif fault == "column too short":
            del stored["obs/age"]
            stored["obs/age"] = np.ones(5)
        elif fault == "unknown encoding":
            stored["X"].attrs["encoding-type"] = "csr_matrxi"
        elif fault == "column without encoding":
            del stored["obs/donor"].attrs["encoding-type"]
        elif fault == "link to nowhere":
            stored["layers/other"] = h5py.SoftLink("/nothing")
        elif fault == "link to another file":
            stored["layers/other"] = h5py.ExternalLink("elsewhere.h5", "/X")
        elif fault == "group in itself":
            stored["uns/deep/again"] = stored["uns"]
        elif fault == "bomb":
            del stored["X/data"]
            stored["X"].create_dataset("data", shape=(2**40,), dtype="f4", chunks=(2**20,), compression="gzip")
        elif fault == "float indices":
            values = stored["X/indices"][()]
            del stored["X/indices"]
            stored["X/indices"] = values + 0.5


FAULTS = {
    "shape too small": r"must have as many rows as `X` has columns \(5\)",
    "shape too large": r"must have as many rows as `X` has rows \(38\)",
    "raw of other size": r"must have as many rows as `X` has columns \(24\)",
    "code out of range": "'obs/donor'",
    "broken text": "'obs/_index'",
    "column too short": "'obs'",
    "unknown encoding": "'X'",
    "column without encoding": "'obs/donor'",
    "link to nowhere": "'layers/other'",
    "link to another file": "'layers/other': it is a link to another file",
    "group in itself": "nested more than 64 deep",
    "bomb": "'X/data': it claims 4,398,046,511,104 bytes",
    "float indices": "'X': its indices have type float64",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_other_damage_is_a_sentence(file: Path, fault: str) -> None:
    change(file, fault)
    with pytest.raises(FileError, match=FAULTS[fault]) as caught:
        read_h5ad(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    if fault == "raw of other size":
        with pytest.raises(FileError, match="'raw/X': its shape is .37, 24. and should be .37, 23."):
            read_h5ad(file, backed="r")


READ = """
import sys
from lucidcell.cells import Cells, read_h5ad
from lucidcell.errors import LucidcellError
try:
    adata = read_h5ad(sys.argv[1])
    adata.X.sum(), adata.X.T.tocsr(), adata.layers["counts"].toarray()
    Cells.from_anndata(adata)
except LucidcellError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    "fault", ["cut at 10 %", "cut at 60 %", "cut at the end", "bytes 1", "bytes 2", "bytes 3", "bomb", "index"]
)
def test_no_damage_ends_the_process(file: Path, fault: str) -> None:
    if fault.startswith("cut"):
        size = file.stat().st_size
        os.truncate(file, {"cut at 10 %": size // 10, "cut at 60 %": size * 6 // 10, "cut at the end": size - 8}[fault])
    elif fault.startswith("bytes"):
        rng = np.random.default_rng(int(fault[-1]))
        content = bytearray(file.read_bytes())
        for position in rng.integers(0, len(content), 30):
            content[position] ^= int(rng.integers(1, 256))
        file.write_bytes(content)
    elif fault == "bomb":
        change(file, "bomb")
    else:
        with h5py.File(file, "r+") as stored:
            stored["layers/counts/indices"][:] = 2_000_000_000
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("", "FileError", "DataError")
    if not fault.startswith("bytes"):
        assert done.stdout.strip() == "FileError"
    assert time.monotonic() - began < 30


def test_a_file_that_crashes_the_library_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The walk happens elsewhere: when that process dies or does not end, the last element it named is blamed."""
    from lucidcell.cells import guard

    monkeypatch.setattr(guard, "__file__", str(tmp_path / "guard.py"))
    (tmp_path / "probe.py").write_text("import os\nprint('\"obs/donor\"', flush=True)\nos.abort()\n")
    with pytest.raises(FileError, match=r"at element 'obs/donor': the hdf5 library crashes on it \(status -6\)"):
        read_h5ad(file)
    (tmp_path / "probe.py").write_text("print('\"uns\"', flush=True)\nwhile True: pass\n")
    monkeypatch.setattr(guard, "CPU_SECONDS", 0.1)
    with pytest.raises(FileError, match=r"at element 'uns': reading it did not end within"):
        read_h5ad(file)


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize(("version", "shards"), [(2, False), (3, False), (3, True)])
def test_zarr_stores_are_read_and_damage_found(whole: ad.AnnData, tmp_path: Path, version: int, shards: bool) -> None:
    path = tmp_path / "data.zarr"
    with ad.settings.override(zarr_write_format=version, auto_shard_zarr_v3=shards):
        whole.write_zarr(path)
    assert_same(read_zarr(path), whole)
    pieces = {name: next(p for p in (path / name).rglob("*") if p.name == "0") for name in ("X/data", "X/indices")}
    content = pieces["X/indices"].read_bytes()
    pieces["X/indices"].write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"data\.zarr cannot be read at element 'X/indices'"):
        read_zarr(path)
    pieces["X/indices"].write_bytes(content)
    pieces["X/data"].unlink()
    with pytest.raises(FileError, match=r"at element 'X/data': 1 of its 1 chunks are missing"):
        read_zarr(path)
    shutil.rmtree(path / "obs")
    with pytest.raises(FileError):
        read_zarr(path)


def write_10x(path: Path, counts: np.ndarray) -> None:
    """The layout of Cell Ranger 3: genes x cells, compressed by cell, here with one antibody in the last row."""
    matrix = sp.csr_matrix(counts)
    n, g = counts.shape
    with h5py.File(path, "w") as stored:
        group = stored.create_group("matrix")
        group["barcodes"] = np.array([f"BC{i}-1" for i in range(n)], dtype="S")
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices.astype(np.int64)
        group["indptr"], group["shape"] = matrix.indptr.astype(np.int64), np.array([g, n])
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{j}" for j in range(g)], dtype="S")
        features["name"] = np.array([f"g{j}" for j in range(g)], dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * (g - 1) + ["Antibody Capture"], dtype="S")
        features["genome"] = np.array(["hg38"] * g, dtype="S")


def test_10x_files_are_read_without_antibodies(tmp_path: Path, counts: np.ndarray) -> None:
    write_10x(tmp_path / "m.h5", counts)
    got = read_10x(tmp_path / "m.h5")
    np.testing.assert_array_equal(got.X.toarray(), counts[:, :-1])
    assert list(got.var_names) == [f"g{j}" for j in range(22)]
    with pytest.raises(FileError, match="looks like a 10x file, not an .h5ad file: use read_10x"):
        read_h5ad(tmp_path / "m.h5")


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize(("part", "value"), [("indices", 2_000_000_000), ("indices", -3), ("indptr", 10_000)])
def test_malformed_10x_files_are_refused(tmp_path: Path, counts: np.ndarray, part: str, value: int) -> None:
    write_10x(tmp_path / "m.h5", counts)
    with h5py.File(tmp_path / "m.h5", "r+") as stored:
        stored[f"matrix/{part}"][2] = value
    with pytest.raises(FileError, match=r"m\.h5 cannot be read"):
        read_10x(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as stored:
        del stored["matrix/barcodes"]
    with pytest.raises(FileError, match=r"m\.h5 cannot be read"):
        read_10x(tmp_path / "m.h5")


def write_mtx(folder: Path, counts: np.ndarray, names: list[str]) -> None:
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(counts.T))
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
    (folder / "matrix.mtx").unlink()
    lines = [f"ENSG{j}\t{name}\tGene Expression\n" for j, name in enumerate(names)]
    (folder / "features.tsv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress("".join(f"BC{i}-1\n" for i in range(len(counts))).encode()))


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_10x_folders_are_read_with_their_duplicated_names(tmp_path: Path, counts: np.ndarray) -> None:
    names = ["g1", *(f"g{j}" for j in range(1, 23))]
    write_mtx(tmp_path, counts, names)
    for path in (tmp_path, tmp_path / "matrix.mtx.gz"):
        got = read_10x(path)
        np.testing.assert_array_equal(got.X.toarray(), counts)
        assert list(got.var_names) == names


@pytest.mark.parametrize("fault", ["cut matrix", "no barcodes", "too few barcodes", "index out of range"])
def test_damaged_10x_folders_are_refused(tmp_path: Path, counts: np.ndarray, fault: str) -> None:
    write_mtx(tmp_path, counts, [f"g{j}" for j in range(23)])
    matrix, barcodes = tmp_path / "matrix.mtx.gz", tmp_path / "barcodes.tsv.gz"
    if fault == "cut matrix":
        matrix.write_bytes(matrix.read_bytes()[:-60])
    elif fault == "no barcodes":
        barcodes.unlink()
    elif fault == "too few barcodes":
        barcodes.write_bytes(gzip.compress(b"BC0-1\nBC1-1\n"))
    else:
        text = gzip.decompress(matrix.read_bytes()).decode().rstrip().rsplit("\n", 1)[0]
        matrix.write_bytes(gzip.compress(f"{text}\n400 400 1\n".encode()))
    with pytest.raises(FileError, match="cannot be read"):
        read_10x(tmp_path)


@pytest.mark.parametrize("name", ["kang_pbmc_12k.h5ad", "wang_scgpt_embedding.h5ad", "ulv_donors.h5ad"])
def test_real_files_are_read_as_anndata_reads_them(shared: Callable[[str], Path], name: str) -> None:
    ours, theirs = read_h5ad(shared(name)), ad.read_h5ad(shared(name))
    pd.testing.assert_frame_equal(ours.obs, theirs.obs)
    assert abs(ours.X - theirs.X).max() == 0
