"""Independent fits side by side: on the cores at hand, or wherever `joblib.parallel_config` sends them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lucidcell.errors import FileError, LucidcellError, SettingError, TrainingError
from lucidcell.training.checkpoint import write_atomically
from lucidcell.training.processes import alone

FAILED = "failed.csv"
NOTE = "fits.json"


class Failure(NamedTuple):
    """What went wrong with a fit."""

    error: str


def side_by_side(
    fit: Callable[..., Any],
    names: Sequence[str],
    arguments_of: Callable[[int], tuple[Any, ...]],
    *,
    n_jobs: int,
    folder: Path | None,
    keep: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """`fit(*arguments_of(i))` for all i, in order.

    One that fails is noted in `failed.csv` of the folder, and tried again, alone, when the others are done.

    Parameters
    ----------
    fit
        Takes its arguments to another process, and keeps its result in a file of its own if that is wanted.
    names
        One for each fit, for messages.
    arguments_of
        Called when the fit is due, so that not all arguments are in memory.
    n_jobs
        Fits at the same time; -1 for one on every core. A Dask or Ray cluster goes before it
        (`with joblib.parallel_config("dask"): ...`).
    folder
        Where failures are noted; None for nowhere.
    keep
        Called in this process as soon as a fit is done, with its position and result.

    Raises
    ------
    TrainingError
        If fits fail twice, or a process is killed; what others have kept in files stays.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    outcomes: list[Any] = [None] * len(names)

    def settle(i: int, outcome: Any) -> None:
        outcomes[i] = outcome
        if keep is not None and not isinstance(outcome, Failure):
            keep(i, outcome)

    try:
        parallel = Parallel(n_jobs=n_jobs, pre_dispatch="n_jobs", return_as="generator_unordered")
        for i, outcome in parallel(delayed(_numbered)(i, fit, arguments_of(i)) for i in range(len(names))):
            settle(i, outcome)
    except TerminatedWorkerError as error:
        kept = "" if folder is None else f", and those that are done are kept in {folder}"
        raise TrainingError(
            f"a process with a fit was killed, most often for want of memory{kept}: run it again with fewer n_jobs."
        ) from error
    notes = []
    for i, name in enumerate(names):
        for attempt in (1, 2):
            if not isinstance(outcomes[i], Failure):
                break
            notes.append({"fit": name, "attempt": attempt, "error": outcomes[i].error})
            if attempt == 1:
                settle(i, _attempt(fit, arguments_of(i)))
    if notes and folder is not None:
        file = folder / FAILED
        pd.DataFrame(notes).to_csv(file, mode="a", header=not file.exists(), index=False)
    lost = [name for name, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, Failure)]
    if lost:
        raise TrainingError(
            f"{len(lost)} of {len(names)} fits failed twice ({', '.join(lost[:3])}): {notes[-1]['error']}"
        )
    return outcomes


def noted_folder(
    folder: str | Path, note: Mapping[str, Any], *, name: str = NOTE, words: Mapping[str, str] | None = None
) -> Path:
    """`folder`, made if need be, with a note of what its fits are of.

    Parameters
    ----------
    folder
        Where fits are kept.
    note
        What makes fits comparable, as JSON has it.
    name
        Of the note's file.
    words
        What a message says of parts of the note that differ; "other <part>" without.

    Raises
    ------
    FileError
        If it cannot be used.
    SettingError
        If it holds fits of something else.
    """
    place, file = Path(folder), Path(folder) / name
    try:
        place.mkdir(parents=True, exist_ok=True)
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError) as error:
        raise FileError(f"{file} cannot be used ({error}); choose another folder.") from error
    if found is None:
        write_atomically(file, json.dumps(note, indent=1).encode())
    elif found != note:
        differing = [key for key in note if not isinstance(found, dict) or found.get(key) != note[key]]
        named = ", ".join((words or {}).get(key, f"other {key}") for key in differing)
        raise SettingError(f"{place} holds fits of {named}; choose another folder, or empty it.")
    return place


def _numbered(i: int, fit: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[int, Any]:
    return i, _attempt(fit, arguments)


def _attempt(fit: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        with alone():
            return fit(*arguments)
    except TrainingError as error:
        return Failure(str(error))
    except LucidcellError:  # a mistake, which would happen again
        raise
    except Exception as error:  # noqa: BLE001 - one fit must not end the others, whatever happened to it
        return Failure(f"{type(error).__name__}: {error}")
