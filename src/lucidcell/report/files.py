"""Reading and writing the files of a run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from lucidcell.errors import FileError

_ABSENT = ["", "nan", "NaN"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    FileError
        If the file is missing, unreadable, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not valid JSON ({error}): save the model again to replace it."
        raise FileError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} holds a {type(content).__name__} instead of a JSON object: save the model again to replace it."
        raise FileError(msg)
    return content


def read_table(
    path: Path, text: Sequence[str], numbers: Sequence[str] = (), *, other_numbers: bool = False
) -> pd.DataFrame:
    """Read a CSV file; names such as "NA" stay what they are, empty numbers become NaN.

    Parameters
    ----------
    path
        Of the file.
    text
        Columns that must be there, read as text.
    numbers
        Columns that must be there, read as numbers.
    other_numbers
        Keep all further columns, as numbers; they are dropped otherwise.

    Raises
    ------
    FileError
        If the file is missing or unreadable, lacks a column, or holds something else than numbers where they belong.
    """
    try:
        header = list(pd.read_csv(path, nrows=0, encoding="utf-8").columns)
        missing = [column for column in (*text, *numbers) if column not in header]
        if missing:
            msg = f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}: save the model again."
            raise FileError(msg)
        wanted = [column for column in header if other_numbers or column in text or column in numbers]
        numeric = [column for column in wanted if column not in text]
        table: pd.DataFrame = pd.read_csv(
            path,
            usecols=wanted,
            encoding="utf-8",
            dtype=dict.fromkeys(text, str) | dict.fromkeys(numeric, np.float64),
            keep_default_na=False,
            na_values=dict.fromkeys(numeric, _ABSENT),
        )
    except FileError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, OverflowError) as error:  # pandas' own errors, and UnicodeDecodeError, are ValueErrors
        reason = " ".join(str(error).split())
        msg = f"{path} cannot be read as the table it should be ({reason}): save the model again to replace it."
        raise FileError(msg) from error
    return table[wanted]


def write_atomically(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a crash, finds either the old file or the new one.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        msg = f"{path} cannot be written ({error.strerror or error}): choose another place with out=."
        raise FileError(msg) from error


def unreadable(path: Path, error: OSError) -> FileError:
    """Say that a file is missing, or why it cannot be read."""
    if isinstance(error, FileNotFoundError):
        return FileError(
            f"{path} is missing: load the model with its data, lucidcell.load(folder, adata), and save it again."
        )
    return FileError(f"{path} cannot be read ({error.strerror or error}): check its permissions.")
