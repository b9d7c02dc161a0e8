from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from lucidcell.cells import read_gmt
from lucidcell.errors import DataError, FileError

TEXT = "A\thttp://a\tg1\tg2\t\tg1\nB\tna\tg3\t\n\nC\t\tg4\r\n"
SETS = {"A": ("g1", "g2"), "B": ("g3",), "C": ("g4",)}


def test_sets_are_read_in_order_without_empty_or_repeated_genes(tmp_path: Path) -> None:
    (tmp_path / "s.gmt").write_bytes(TEXT.encode())
    assert read_gmt(tmp_path / "s.gmt") == SETS
    assert list(read_gmt(str(tmp_path / "s.gmt"))) == ["A", "B", "C"]


def test_packed_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.gmt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert read_gmt(tmp_path / "s.gmt.gz") == SETS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A\tna\tg1\nA\tna\tg2\n", "line 2 repeats the gene set 'A'"),
        ("A\tna\tg1\n\nB g2 g3\n", "line 3 has 1 fields and 0 genes"),
        ("A\tna\n", "line 1 has 2 fields and 0 genes"),
        ("A\tna\t\t\n", "line 1 has 4 fields and 0 genes"),
        ("\tna\tg1\n", "line 1 has 3 fields and 1 genes"),
        ("\n", "holds no gene set"),
    ],
)
def test_malformed_files_are_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.gmt").write_text(text)
    with pytest.raises(DataError, match=said):
        read_gmt(tmp_path / "s.gmt")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.gmt").write_bytes(b"\x89HDF\r\n\xff\xfe")
    with pytest.raises(FileError, match="cannot be read as text"):
        read_gmt(tmp_path / "s.gmt")
    (tmp_path / "t.gmt.gz").write_bytes(gzip.compress(TEXT.encode() * 50)[:-20])
    with pytest.raises(FileError, match="cannot be read as text"):
        read_gmt(tmp_path / "t.gmt.gz")
    with pytest.raises(FileError, match="does not exist"):
        read_gmt(tmp_path / "none.gmt")


@pytest.mark.parametrize(
    ("name", "n_sets"),
    [("human_hallmark_v2025", 50), ("c2.cp.v2024.1.Hs.symbols", 3917), ("mouse_reactome_v2025", 1309)],
)
def test_real_collections(shared: Callable[[str], Path], name: str, n_sets: int) -> None:
    sets = read_gmt(shared(f"gene_sets/{name}.gmt"))
    assert len(sets) == n_sets
    assert all(sets.values())
