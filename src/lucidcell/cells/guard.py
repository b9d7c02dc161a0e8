"""Find out whether a file can be read at all, without risking this process (see `probe.py`)."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

from lucidcell.errors import FileError

logger = logging.getLogger("lucidcell")

BYTES_PER_SECOND = 20e6  # slowest reading that counts as progress
CPU_SECONDS = 10
MEMORY_BYTES = 8 * 2**30


def check_store(path: Path, kind: Literal["hdf5", "zarr"]) -> None:
    """Raise `FileError` if a walk through the store fails, crashes or does not end.

    Parameters
    ----------
    path
        An HDF5 file or a zarr folder.
    kind
        Which of the two.

    Raises
    ------
    FileError
        With the path, the element where the walk ended, and why.
    """
    if not sys.executable or getattr(sys, "frozen", False):  # no Python to start: an embedded interpreter
        return
    size = path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    cpu_seconds = CPU_SECONDS + int(size / BYTES_PER_SECOND)
    limits = [str(cpu_seconds), str(MEMORY_BYTES + 4 * size)]
    # -P keeps this folder off the module path, where our `select.py` would hide the standard one.
    command = [sys.executable, "-P", str(Path(__file__).with_name("probe.py")), kind, str(path), *limits]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=8 * cpu_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        element = _outcome(error.output or b"")[0]
        raise damaged(path, element, f"reading it did not end within {8 * cpu_seconds} seconds") from None
    except OSError as error:
        logger.debug("the check of %s could not be started: %s", path, error)
        return
    element, fault = _outcome(done.stdout)
    if done.returncode == 0 or (done.returncode == 3 and element is None):
        return
    if fault is not None:
        raise damaged(path, element, fault)
    if element is None:  # the child never came as far as the file
        logger.debug("the check of %s failed to start: %s", path, done.stderr.decode(errors="replace")[-500:])
        return
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise damaged(path, element, f"reading it did not end within {cpu_seconds} seconds of computing")
    raise damaged(path, element, f"the {kind} library crashes on it (status {done.returncode})")


def damaged(path: Path, element: str | None, fault: str) -> FileError:
    """The error for a file that cannot be read at `element` (None: at its start) because of `fault`."""
    where = "" if element in (None, "/") else f" at element {element!r}"
    fault = " ".join(fault.split()).rstrip(".")
    if "lock file" in fault:
        return FileError(
            f"{path} is locked ({fault}): close it where it is open for writing, or set HDF5_USE_FILE_LOCKING=FALSE."
        )
    return FileError(
        f"{path} cannot be read{where}: {fault}; the file is damaged or not what it claims to be, "
        f"so fetch or write it again."
    )


def _outcome(output: bytes) -> tuple[str | None, str | None]:
    """Last element visited and the fault reported, if any."""
    element = fault = None
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # a line cut off by a crash
            continue
        if isinstance(value, str):
            element = value
        else:
            fault = value["fault"]
    return element, fault
