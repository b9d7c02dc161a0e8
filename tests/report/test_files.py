"""Writing files whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from lucidcell.errors import FileError
from lucidcell.report.files import write_atomically


def test_new_content_replaces_the_old(tmp_path):
    target = tmp_path / "report.html"
    for content in ("old", "new é\n"):
        write_atomically(target, content)
    assert target.read_bytes() == "new é\n".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match=r"report\.html cannot be written \(No space left on device\): choose"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="No such file or directory"):
        write_atomically(tmp_path / "nowhere" / "report.html", "new")


def test_others_may_read_the_file_as_far_as_the_umask_allows(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_atomically(tmp_path / "report.html", "new")
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
