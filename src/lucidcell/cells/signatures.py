"""Signatures of cell types: genes that a type expresses, and genes that it does not, from a dict, CSV or GMT."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from lucidcell.cells.gene_sets import read_gmt, read_text
from lucidcell.errors import DataError, FileError, SettingError

SIGNS = {"+": "positive", "positive": "positive", "1": "positive", "+1": "positive",
         "-": "negative", "negative": "negative", "-1": "negative"}  # fmt: skip
ENDINGS = {"_UP": "positive", "_DN": "negative"}  # MSigDB's, of the two halves of one signature

Halves: TypeAlias = dict[str, dict[str, list[str]]]  # genes by type and sign


class Signature(NamedTuple):
    """Genes of a cell type, each once."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


Signatures: TypeAlias = Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]] | str | os.PathLike[str]


def read_signatures(signatures: Signatures) -> dict[str, Signature]:
    """Signatures of cell types by name, from a mapping or a file.

    Parameters
    ----------
    signatures
        A mapping from each type to its genes, or to ``{"positive": genes, "negative": genes}``. Or the path of a CSV
        file with the columns type, gene and, if wanted, sign (+ or -). Or the path of a GMT file, where the sets
        ``X_UP`` and ``X_DN`` are the positive and the negative genes of the type X, and any other set is positive.

    Raises
    ------
    FileError
        If the file cannot be read, or is neither CSV nor GMT.
    DataError
        If a type has no positive gene, a gene is both positive and negative, or a file is malformed.
    SettingError
        If the mapping has no type, or something else than genes.
    """
    if isinstance(signatures, Mapping):
        signed = _of_mapping(signatures)
    elif isinstance(signatures, str | os.PathLike):
        signed = _of_file(Path(signatures))
    else:
        raise SettingError(
            f"signatures are a {type(signatures).__name__}; pass a dict, or the path of a CSV or GMT file."
        )
    return {name: _checked(name, genes) for name, genes in signed.items()}


def _of_mapping(
    signatures: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]],
) -> Halves:
    if not signatures:
        raise SettingError("signatures are empty; give at least one cell type with its genes.")
    found: Halves = {}
    for name, genes in signatures.items():
        halves = genes if isinstance(genes, Mapping) else {"positive": genes}
        if odd := sorted(set(halves) - {"positive", "negative"}):
            raise SettingError(f"the signature of {name!r} has the key {odd[0]!r}; use 'positive' and 'negative'.")
        for sign, listed in halves.items():
            listable = isinstance(listed, Iterable) and not isinstance(listed, str)
            if not listable or not all(isinstance(gene, str) for gene in listed):
                raise SettingError(f"the {sign} genes of {name!r} are {listed!r}; pass a list of gene names.")
        found[str(name)] = {sign: list(listed) for sign, listed in halves.items()}
    return found


def _of_file(path: Path) -> Halves:
    endings = [ending.lower() for ending in path.suffixes]
    if ".gmt" in endings:
        return _of_gmt(path)
    if ".csv" in endings:
        return _of_csv(path)
    raise FileError(f"{path} is neither a .csv nor a .gmt file; signatures come in one of these, or as a dict.")


def _of_gmt(path: Path) -> Halves:
    found: Halves = {}
    for name, genes in read_gmt(path).items():
        ending = name[-3:].upper()
        cell_type, sign = (name[:-3], ENDINGS[ending]) if ending in ENDINGS else (name, "positive")
        halves = found.setdefault(cell_type, {})
        if sign in halves:
            raise DataError(f"{path} has two sets of {sign} genes for {cell_type!r}, one of them {name!r}: rename one.")
        halves[sign] = list(genes)
    return found


def _of_csv(path: Path) -> Halves:
    lines = csv.reader(read_text(path).lstrip("\N{ZERO WIDTH NO-BREAK SPACE}").splitlines())
    header = [name.strip().lower() for name in next(lines, [])]
    if missing := [name for name in ("type", "gene") if name not in header]:
        raise DataError(
            f"{path} lacks the column {missing[0]!r} (it has {', '.join(header)}): give type, gene and sign."
        )
    found: Halves = {}
    for number, fields in enumerate(lines, start=2):
        row = {name: field.strip() for name, field in zip(header, fields, strict=False)}
        if not any(row.values()):
            continue
        sign = SIGNS.get(row.get("sign", "+").lower() or "+")
        if sign is None or not row.get("type") or not row.get("gene"):
            raise DataError(
                f"{path}, line {number} is {','.join(fields)!r}: it takes a type, a gene, and + or - as sign."
            )
        found.setdefault(row["type"], {}).setdefault(sign, []).append(row["gene"])
    if not found:
        raise DataError(f"{path} holds no gene: is it the right file?")
    return found


def _checked(name: str, halves: dict[str, list[str]]) -> Signature:
    positive, negative = (tuple(dict.fromkeys(halves.get(sign, []))) for sign in ("positive", "negative"))
    if not positive:
        raise DataError(f"the signature of {name!r} has {len(negative)} negative genes and no positive one: add some.")
    if both := [gene for gene in positive if gene in negative]:
        raise DataError(
            f"the signature of {name!r} has {both[0]!r} as positive and as negative gene: keep one of the two."
        )
    return Signature(positive, negative)
