"""Checkpoints: a reader finds the old one or the new one, whatever goes wrong while writing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from battery import assert_sentence

from lucidcell.errors import FileError
from lucidcell.training.checkpoint import Checkpoint, write_atomically

OLD = Checkpoint({"a": torch.arange(5.0), "b.c": torch.tensor(3)}, {"step": 1, "best": float("inf")})
NEW = Checkpoint({"a": torch.zeros(5000)}, {"step": 2})


def assert_equal(found: Checkpoint | None, wanted: Checkpoint) -> None:
    assert found is not None
    assert found.facts.items() >= wanted.facts.items()
    assert list(found.tensors) == list(wanted.tensors)
    assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_round_trip(tmp_path):
    OLD.write(tmp_path / "new" / "folder")
    assert_equal(Checkpoint.read(tmp_path / "new" / "folder"), OLD)
    assert OLD.part("b").keys() == {"c"}
    assert Checkpoint.read(tmp_path) is None


@pytest.mark.parametrize("place", ["os.fsync", "os.replace", "pathlib.Path.open"])
def test_a_failing_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, place):
    OLD.write(tmp_path)

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(FileError, match=r"could not be written \(No space left on device\)") as caught:
            NEW.write(tmp_path)
    assert_sentence(caught.value)
    assert_equal(Checkpoint.read(tmp_path), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """The limit on file size stands for the disk: the kernel refuses in the middle of the write."""
    OLD.write(tmp_path)
    code = f"""
import resource, torch
from pathlib import Path
from lucidcell.training.checkpoint import Checkpoint
from lucidcell.errors import FileError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    Checkpoint({{"a": torch.zeros(5000)}}, {{}}).write(Path({str(tmp_path)!r}))
except FileError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not be written (File too large); what was there before is unchanged" in run.stdout
    assert_equal(Checkpoint.read(tmp_path), OLD)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_file_in_the_place_of_the_folder_is_a_file_error(tmp_path):
    (tmp_path / "checkpoint").write_text("not a folder")
    with pytest.raises(FileError, match="could not be written"):
        NEW.write(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").read_text() == "not a folder"


@pytest.mark.skipif(os.name != "posix", reason="users and permissions are POSIX")
def test_permissions_of_nobody_are_a_file_error(tmp_path):
    """The superuser may write anywhere, and becomes nobody first."""
    code = f"""
import os, torch
from pathlib import Path
from lucidcell.training.checkpoint import Checkpoint
from lucidcell.errors import FileError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Checkpoint({{"a": torch.zeros(5)}}, {{}}).write(Path({str(tmp_path)!r}))
except FileError as error:
    print(error)
"""
    tmp_path.chmod(0o500)
    try:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    finally:
        tmp_path.chmod(0o700)
    assert "could not be written (Permission denied)" in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 3, 8, 40, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, length):
    NEW.write(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FileError, match="is not a readable checkpoint .*delete it to start afresh") as caught:
        Checkpoint.read(tmp_path)
    assert_sentence(caught.value)


def test_another_version_or_another_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save

    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(save({"a": torch.zeros(2)}, metadata={"facts": '{"version": 99}'}))
    with pytest.raises(FileError, match="has checkpoint version 99"):
        Checkpoint.read(tmp_path)
    for metadata in (None, {"other": "x"}, {"facts": "not json"}, {"facts": "{}"}, {"facts": "[]"}):
        path.write_bytes(save({"a": torch.zeros(2)}, metadata=metadata))
        with pytest.raises(FileError, match="is not a readable checkpoint"):
            Checkpoint.read(tmp_path)


def test_write_atomically_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in Path(tmp_path, "a").iterdir()] == ["b.txt"]
