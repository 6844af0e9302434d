"""Locks on job folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from repsr_cli.errors import UsageError
from repsr_cli.video.lock import FolderLock


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    folder, target = tmp_path / ".x.repsr", tmp_path / "x"
    first = FolderLock.take(folder, target)
    assert first.holds
    with pytest.raises(UsageError, match=rf"x: is being written by another process \({os.getpid()}\)\. Wait"):
        FolderLock.take(folder, target)
    first.release()
    second = FolderLock.take(folder, target)
    (folder / "rest").touch()
    second.remove()
    assert not folder.exists()


def test_a_lock_on_a_folder_that_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / ".x.repsr"
    first = FolderLock.take(folder, tmp_path / "x")
    honest = fcntl.flock
    calls = []

    def late(file: BinaryIO, how: int) -> None:
        # Between opening the file and locking it, the holder finishes.
        calls.append(file)
        if len(calls) == 1:
            first.remove()
        honest(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = FolderLock.take(folder, tmp_path / "x")
    assert len(calls) == 2
    assert (folder / "lock").exists()
    second.remove()
