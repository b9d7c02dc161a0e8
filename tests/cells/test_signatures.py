from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lucidcell.cells.signatures import Signature, read_signatures
from lucidcell.errors import DataError, FileError, SettingError

TRUTH = {"naive": Signature(("CCR7", "LEF1"), ("S100A4",)), "NK": Signature(("GNLY",), ())}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_dict_csv_and_gmt_say_the_same(tmp_path: Path) -> None:
    as_dict: dict[str, Any] = {"naive": {"positive": ["CCR7", "LEF1", "CCR7"], "negative": ["S100A4"]}, "NK": ["GNLY"]}
    rows = "\ufefftype,gene,sign\nnaive,CCR7,+\nnaive,LEF1,\n\nnaive,S100A4,-\nNK,GNLY,positive\n"
    sets = "naive_UP\tna\tCCR7\tLEF1\nnaive_DN\tna\tS100A4\nNK\tna\tGNLY\n"
    assert read_signatures(as_dict) == TRUTH
    assert read_signatures(written(tmp_path, "s.csv", rows)) == TRUTH
    assert read_signatures(str(written(tmp_path, "s.gmt", sets))) == TRUTH


def test_a_csv_without_signs_has_positive_genes_only(tmp_path: Path) -> None:
    found = read_signatures(written(tmp_path, "s.csv", "gene,type,source\nNA,T,x\nTRUE,T,x\n"))
    assert found == {"T": Signature(("NA", "TRUE"), ())}


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ({}, "are empty"),
        (["CD4"], "are a list"),
        ({"T": "CD4"}, "pass a list of gene names"),
        ({"T": 5}, "pass a list of gene names"),
        ({"T": [1, 2]}, "pass a list of gene names"),
        ({"T": {"up": ["CD4"]}}, "has the key 'up'"),
    ],
)
def test_mappings_without_meaning_are_refused(signatures: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_signatures(signatures)


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ({"T": []}, "0 negative genes and no positive one"),
        ({"T": {"negative": ["CD4"]}}, "1 negative genes and no positive one"),
        ({"T": {"positive": ["CD4", "CD8A"], "negative": ["CD8A"]}}, "has 'CD8A' as positive and as negative"),
    ],
)
def test_signatures_that_say_nothing_are_refused(signatures: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_signatures(signatures)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.csv", "type,marker\nT,CD4\n", "lacks the column 'gene'"),
        ("s.csv", "", "lacks the column 'type'"),
        ("s.csv", "type,gene\n", "holds no gene"),
        ("s.csv", "type,gene,sign\nT,CD4,*\n", r"line 2 is 'T,CD4,\*'"),
        ("s.csv", "type,gene\nT,CD4\nT,\n", "line 3 is 'T,'"),
        ("s.gmt", "T_UP\tna\tCD4\nT\tna\tCD8A\n", "two sets of positive genes for 'T'"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_signatures(written(tmp_path, name, text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="neither a .csv nor a .gmt"):
        read_signatures(tmp_path / "s.txt")
    with pytest.raises(FileError, match="does not exist"):
        read_signatures(tmp_path / "s.csv")
