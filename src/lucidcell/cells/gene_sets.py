"""Gene sets from GMT files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lucidcell.errors import DataError, FileError


def read_gmt(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Read a GMT file: each line a set's name, a description and its genes, separated by tabs.

    Parameters
    ----------
    path
        The file, plain or packed with gzip.

    Returns
    -------
    dict
        Genes of each set in the order of the file, each once.

    Raises
    ------
    FileError
        If the file is missing, or not readable text.
    DataError
        If a line has fewer than three fields or no gene, a name occurs twice, or the file holds no set.
    """
    file = Path(path)
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise DataError(
                f"{file}, line {number} has {len(rest) + 1} fields and {len(genes)} genes: a line of a GMT file has "
                f"a name, a description and at least one gene, separated by tabs."
            )
        if name in sets:
            raise DataError(f"{file}, line {number} repeats the gene set {name!r}: rename or remove one of the two.")
        sets[name] = genes
    if not sets:
        raise DataError(f"{file} holds no gene set: is it the right file?")
    return sets


GeneSets = Mapping[str, Sequence[str]] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def gene_sets_of(given: GeneSets) -> dict[str, tuple[str, ...]]:
    """Gene sets as a dict: those of one GMT file, of several, or the given ones.

    Raises
    ------
    FileError
        If a file cannot be read.
    DataError
        If two files name the same set, or there is no set.
    """
    if isinstance(given, str | os.PathLike):
        return read_gmt(given)
    if given is None or isinstance(given, bool | int | float):
        raise DataError(f"gene_sets is {given!r}: pass a GMT file, or a dict from names to genes.")
    if isinstance(given, Mapping):
        texts = [name for name, genes in given.items() if isinstance(genes, str)]
        if texts:
            raise DataError(f"the gene set {texts[0]!r} is one text: pass a list of gene names.")
        sets = {str(name): tuple(dict.fromkeys(map(str, genes))) for name, genes in given.items()}
    else:
        sets = {}
        for path in given:
            read = read_gmt(path)
            twice = sorted(sets.keys() & read.keys())
            if twice:
                raise DataError(f"{path} repeats {len(twice)} gene sets of the files before it, such as {twice[0]!r}.")
            sets |= read
    if not sets:
        raise DataError("there is no gene set: pass a GMT file, or a dict from names to genes.")
    return sets


def read_text(file: Path) -> str:
    """Content of a text file, plain or packed with gzip.

    Raises
    ------
    FileError
        If the file is missing, or not readable text.
    """
    try:
        data = file.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except FileNotFoundError:
        raise FileError(f"{file} does not exist: check the path.") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read as text ({error}): is it the right file?") from error
