"""Atomic checkpoints: a reader finds the old file or the new one, never a part of either."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lucidcell.errors import FileError

VERSION = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, on the disk before the call returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(
            f"{path} could not be written ({error.strerror}); what was there before is unchanged."
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Checkpoint(NamedTuple):
    """Tensors by name, and everything else as JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def write(self, folder: Path) -> None:
        from safetensors.torch import save

        facts = json.dumps({"version": VERSION} | self.facts)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_atomically(folder / "checkpoint.safetensors", save(contiguous, metadata={"facts": facts}))

    @classmethod
    def read(cls, folder: Path) -> Checkpoint | None:
        """The checkpoint in `folder`, or None if there is none."""
        from safetensors import SafetensorError, safe_open

        path = folder / "checkpoint.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            version = facts["version"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path} is not a readable checkpoint ({error}); delete it to start afresh.") from error
        if version != VERSION:
            raise FileError(
                f"{path} has checkpoint version {version}, this lucidcell reads {VERSION}; delete it to start afresh."
            )
        return cls(tensors, facts)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name starts with `prefix.`, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}
