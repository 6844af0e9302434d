"""Locks on job folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from repsr_cli.errors import UsageError
from repsr_cli.video.lock import FolderLock, remove_empty


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    folder, target = tmp_path / ".x.repsr", tmp_path / "x"
    first = FolderLock.take(folder, target)
    assert first.holds
    with pytest.raises(UsageError, match=rf"x: is being written by another process \({os.getpid()}\)\. Wait"):
        FolderLock.take(folder, target)
    first.release()
    second = FolderLock.take(folder, target)
    (folder / "rest").touch()
    (folder / "last").touch()
    second.remove("rest".__eq__, last=("last",))
    assert not folder.exists()


def test_files_of_others_stay_with_their_folder(tmp_path: Path) -> None:
    lock = FolderLock.take(tmp_path / ".x.repsr", tmp_path / "x")
    for name in ("own", "thesis.txt"):
        (lock.folder / name).touch()
    lock.clear("own".__eq__)
    assert sorted(path.name for path in lock.folder.iterdir()) == ["lock", "thesis.txt"]
    lock.remove("own".__eq__)
    assert [path.name for path in lock.folder.iterdir()] == ["thesis.txt"]


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
            first.remove(bool)
        honest(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    second = FolderLock.take(folder, tmp_path / "x")
    assert len(calls) == 2
    assert (folder / "lock").exists()
    second.remove(bool)


@pytest.mark.skipif(os.name == "nt", reason="POSIX only")
def test_a_folder_goes_where_a_mount_shows_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    lock = FolderLock.take(tmp_path / ".x.repsr", tmp_path / "x")
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    lock.remove(bool)
    assert not lock.folder.exists()
    assert lock.left() == ""


def test_what_others_left_is_named(tmp_path: Path) -> None:
    lock = FolderLock.take(tmp_path / ".x.repsr", tmp_path / "x")
    (lock.folder / "thesis.txt").touch()
    lock.remove("own".__eq__)
    assert lock.left() == "it holds thesis.txt, which repsr did not put there"
    again = FolderLock.take(tmp_path / ".x.repsr", tmp_path / "x")
    assert lock.left() == ""  # another process uses it
    again.release()


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("precious")
    for number, there in enumerate((victim, tmp_path / "nothing", victim / "thesis.txt")):
        folder = tmp_path / f".{number}.repsr"
        folder.symlink_to(there)
        with pytest.raises(UsageError, match=r"repsr: is a link.*Remove it, or choose another name"):
            FolderLock.take(folder, tmp_path / "x")
    (tmp_path / ".f.repsr").write_text("a file")
    with pytest.raises(UsageError, match="not a folder"):
        FolderLock.take(tmp_path / ".f.repsr", tmp_path / "x")
    assert [path.name for path in victim.iterdir()] == ["thesis.txt"]
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "link to itself"])
def test_a_lock_that_leads_elsewhere_is_refused(tmp_path: Path, kind: str) -> None:
    folder, victim = tmp_path / ".x.repsr", tmp_path / "thesis.txt"
    folder.mkdir(mode=0o777)
    victim.write_text("precious")
    lock = folder / "lock"
    if kind == "hard link":
        lock.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to({"link": victim, "dangling link": tmp_path / "new"}.get(kind, lock))
    with pytest.raises(UsageError, match="lock: is not a file of repsr"):
        FolderLock.take(folder, tmp_path / "x")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can play two users")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".x.repsr"
    folder.mkdir(mode=0o777)
    (folder / "thesis.txt").touch()
    os.chown(folder, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        FolderLock.take(folder, tmp_path / "x")
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    remove_empty(folder)
    assert folder.exists()


def test_a_folder_that_is_exchanged_for_a_link_is_not_emptied(tmp_path: Path) -> None:
    folder, victim = tmp_path / ".x.repsr", tmp_path / "victim"
    lock = FolderLock.take(folder, tmp_path / "x")
    victim.mkdir()
    (victim / "thesis.txt").touch()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(victim)
    with pytest.raises(OSError, match=r"."):
        lock.clear(bool)
    assert (victim / "thesis.txt").exists()
    lock.release()
