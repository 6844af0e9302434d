import ctypes
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repsr_cli import files
from repsr_cli.errors import CheckpointError, MediaError, UsageError
from repsr_cli.files import (
    PendingFile,
    check_target,
    is_to_be_made,
    publish,
    reading,
    remove_leftovers,
    staging,
    write_bytes,
    write_text,
    writing,
)

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


@pytest.fixture(params=["renameat2", "link"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways to rename without replacing."""
    if request.param == "link":
        monkeypatch.setattr(files, "_libc_renameat2", lambda: None)
    elif sys.platform != "linux":
        pytest.skip("Linux only")
    return request.param


def names(folder: Path) -> Any:
    return sorted(path.name for path in folder.iterdir())


def write_while(target: Path, meddle: Any, *, overwrite: bool = False, failure: Any = MediaError) -> None:
    """Write a file, and do something before it is complete."""
    with writing(target, overwrite=overwrite, failure=failure) as file:
        file.write(b"mine")
        meddle()


def write_by_path_while(target: Path, meddle: Any, *, overwrite: bool = False) -> None:
    """The same as a library that wants a path."""
    with staging(target, overwrite=overwrite) as path:
        path.write_bytes(b"mine")
        meddle()


def raise_(error: Any) -> None:
    raise error


def fail_with(code: int) -> Any:
    def fail(*_arguments: Any, **_keywords: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path, way: str) -> None:
    target = tmp_path / "a.bin"
    with writing(target, overwrite=False) as file:
        file.write(b"abc")
        assert not target.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".a.bin.")
    assert target.read_bytes() == b"abc"
    assert names(tmp_path) == ["a.bin"]


def test_an_error_leaves_nothing(tmp_path: Path, way: str) -> None:
    for write in (write_while, write_by_path_while):
        for error in (ZeroDivisionError, KeyboardInterrupt):
            with pytest.raises(error):
                write(tmp_path / "a", lambda error=error: raise_(error))
    assert names(tmp_path) == []


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), writing(target, overwrite=True):
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_existing_file_is_refused_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    for attempt in (writing, staging):
        with pytest.raises(UsageError, match=r"a: exists\. Add -y to replace it\."), attempt(target, overwrite=False):
            pytest.fail("the work began")
    with pytest.raises(UsageError, match="exists"):
        check_target(target, overwrite=False)
    check_target(target, overwrite=True)
    write_bytes(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_file_that_appears_during_the_work_is_kept(tmp_path: Path, way: str) -> None:
    target = tmp_path / "a"
    for write in (write_while, write_by_path_while):
        with pytest.raises(UsageError, match="appeared while"):
            write(target, lambda: target.write_bytes(b"theirs"))
        assert target.read_bytes() == b"theirs"
        assert names(tmp_path) == ["a"]
        target.unlink()


def test_a_file_that_appears_at_the_last_moment_is_kept(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, made = tmp_path / "a", tmp_path / "made"
    made.write_bytes(b"mine")
    sync = os.fsync

    def sync_and_meddle(descriptor: int) -> None:
        sync(descriptor)
        target.write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", sync_and_meddle)
    with pytest.raises(UsageError, match="appeared while"):
        publish(made, target, overwrite=False)
    assert target.read_bytes() == b"theirs"
    assert made.read_bytes() == b"mine", "what was made stays where it is"


def test_of_many_writers_exactly_one_wins(tmp_path: Path, way: str) -> None:
    target, barrier = tmp_path / "a", threading.Barrier(8)
    outcomes: list[int | None] = []

    def write(number: int) -> None:
        try:
            with writing(target, overwrite=False) as file:
                file.write(bytes([number]) * 1000)
                barrier.wait()
            outcomes.append(number)
        except UsageError:
            outcomes.append(None)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number in outcomes if number is not None]
    assert target.read_bytes() == bytes([winner]) * 1000
    assert names(tmp_path) == ["a"]


@POSIX
def test_a_link_is_never_followed(tmp_path: Path, way: str) -> None:
    victim, target = tmp_path / "victim", tmp_path / "a"
    for there in (True, False):
        if there:
            victim.write_bytes(b"precious")
        else:
            victim.unlink()
        target.symlink_to(victim)
        with pytest.raises(UsageError, match="exists"):
            write_bytes(target, b"new", overwrite=False)
        assert victim.exists() == there
        write_bytes(target, b"new", overwrite=True)
        assert not target.is_symlink()
        assert target.read_bytes() == b"new"
        assert not there or victim.read_bytes() == b"precious"
        target.unlink()


@POSIX
def test_a_link_that_appears_during_the_work_is_kept(tmp_path: Path, way: str) -> None:
    target, victim = tmp_path / "a", tmp_path / "victim"
    with pytest.raises(UsageError, match="appeared while"):
        write_while(target, lambda: target.symlink_to(victim))
    assert target.is_symlink()
    assert not victim.exists()


@POSIX
def test_a_link_under_the_temporary_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr("repsr_cli.files.secrets.token_hex", lambda _count: "guessed")
    (tmp_path / ".a.guessed.part").symlink_to(victim)
    with pytest.raises(MediaError, match="cannot be written"):
        write_bytes(tmp_path / "a", b"new", overwrite=True)
    assert victim.read_bytes() == b"precious"


@POSIX
def test_a_temporary_file_that_was_exchanged_is_not_published(tmp_path: Path) -> None:
    victim, made = tmp_path / "victim", tmp_path / "made"
    victim.write_bytes(b"precious")
    made.symlink_to(victim)
    with pytest.raises(MediaError):
        publish(made, tmp_path / "a", overwrite=True)
    made.unlink()
    os.mkfifo(made)
    with pytest.raises(MediaError):
        publish(made, tmp_path / "a", overwrite=True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Free some space or choose another disk."),
        (errno.EROFS, "Choose another folder."),
        (errno.EIO, "Check the folder and the free space."),
    ],
)
def test_errors_of_the_system_are_translated_once(tmp_path: Path, code: int, remedy: str) -> None:
    target = tmp_path / "a"
    with pytest.raises(CheckpointError) as caught:
        write_while(target, fail_with(code), failure=CheckpointError)
    assert str(caught.value) == f"{target}: cannot be written: {os.strerror(code)}. {remedy}"
    assert names(tmp_path) == []


@POSIX
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr("repsr_cli.files.os.open", lambda *_arguments: os.dup(full.fileno()))
        monkeypatch.setattr(PendingFile, "_probe", lambda _self: None)
        with pytest.raises(MediaError, match="No space left on device"):
            write_bytes(tmp_path / "a", b"abc", overwrite=False)
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_flushed_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(MediaError, match=os.strerror(errno.EIO)):
        write_bytes(tmp_path / "a", b"abc", overwrite=True)
    assert names(tmp_path) == []


@POSIX
def test_a_folder_that_cannot_be_flushed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def sync_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fail_with(errno.EIO)()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_files)
    with pytest.raises(MediaError, match=os.strerror(errno.EIO)):
        write_bytes(tmp_path / "a", b"abc", overwrite=True)


def test_file_systems_without_fsync_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))
    write_bytes(tmp_path / "a", b"abc", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"abc"


@POSIX
def test_file_and_folder_are_flushed(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, sync = [], os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_bytes(tmp_path / "a", b"abc", overwrite=False)
    file, folder = (tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino
    assert flushed.index(file) < len(flushed) - 1 - flushed[::-1].index(folder)


def test_a_file_system_that_can_protect_nothing_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_libc_renameat2", lambda: None)
    for code in (errno.EPERM, errno.EOPNOTSUPP):
        monkeypatch.setattr(os, "link", fail_with(code))
        with (
            pytest.raises(UsageError, match="cannot rename without replacing"),
            writing(tmp_path / "a", overwrite=False),
        ):
            pytest.fail("the work began")
    assert names(tmp_path) == []
    write_bytes(tmp_path / "a", b"abc", overwrite=True)
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_file_system_without_renameat2_uses_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> Any:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(files, "_libc_renameat2", lambda: refuse)
    write_bytes(tmp_path / "a", b"abc", overwrite=False)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_nlink == 1


@POSIX
def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"", overwrite=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_missing_folder(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "a"
    expected = f"{target}: cannot be written: the folder {target.parent} does not exist. Check that the folder exists."
    with pytest.raises(MediaError) as caught:
        write_bytes(target, b"", overwrite=False)
    assert str(caught.value) == expected
    with pytest.raises(MediaError):
        check_target(target, overwrite=False)


def test_a_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def remove() -> None:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    with pytest.raises(MediaError, match=r"the folder .* does not exist"):
        write_while(folder / "a", remove)


def test_names_of_any_length(tmp_path: Path) -> None:
    longest = tmp_path / ("ä" * 127)
    write_bytes(longest, b"abc", overwrite=False)
    assert names(tmp_path) == [longest.name]
    with pytest.raises(MediaError, match=r"File name too long\. Choose a shorter name\."):
        check_target(tmp_path / ("ä" * 128), overwrite=False)


@POSIX
def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    write_bytes(target, b"abc", overwrite=False)
    assert names(tmp_path) == ["\udcff\udcfe"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    for overwrite in (True, False):
        with pytest.raises(UsageError, match=r"is a folder\. Choose another name\."):
            write_bytes(tmp_path, b"", overwrite=overwrite)


@POSIX
def test_devices_and_pipes_are_written_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:  # a thread might open it too late
        write_text(pipe, "a,b\n", overwrite=False)
        assert reader.read() == b"a,b\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for overwrite in (True, False):
        write_text(Path("/dev/null"), "abc", overwrite=overwrite)
    with pytest.raises(UsageError, match="is not a regular file"), staging(Path("/dev/null"), overwrite=True):
        pytest.fail("the work began")


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ä\r\nb\n", overwrite=False)
    assert (tmp_path / "a").read_bytes() == "ä\r\nb\n".encode()


def test_publish_moves_a_finished_file(tmp_path: Path, way: str) -> None:
    made, target = tmp_path / "made", tmp_path / "a"
    made.write_bytes(b"abc")
    publish(made, target, overwrite=False)
    assert names(tmp_path) == ["a"]
    made.write_bytes(b"new")
    with pytest.raises(UsageError, match="appeared"):
        publish(made, target, overwrite=False)
    publish(made, target, overwrite=True)
    assert target.read_bytes() == b"new"
    with pytest.raises(MediaError):
        publish(made, target, overwrite=True)


@POSIX
def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    pending = [PendingFile.begin(tmp_path / name, overwrite=False) for name in ("a", "b.png", "c\nd.mp4")]
    others = [".a", ".a.part", "a.0123456789abcdef.part", ".a.0123456789abcdef.parts"]
    for name in others:
        (tmp_path / name).touch()
    assert len(list(tmp_path.iterdir())) == len(pending) + len(others)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(others)
    for each in pending:
        each.file.close()


def test_a_kill_leaves_no_final_name(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from repsr_cli.files import writing\n"
        "with writing(pathlib.Path(sys.argv[1]), overwrite=False) as file:\n"
        "    file.write(b'abc'); file.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "a"
    with subprocess.Popen([sys.executable, "-c", program, target], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    write_bytes(target, b"whole", overwrite=False)
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize("abandoned", [False, True])
def test_an_error_as_a_file_that_was_read_is_closed_costs_nothing(tmp_path: Path, abandoned: bool) -> None:
    (tmp_path / "a").write_bytes(b"abc")

    def parts() -> Iterator[bytes]:
        with reading(tmp_path / "a") as file:
            os.close(file.fileno())  # closing it again is an error
            yield b"abc"

    complaints: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, complaints.append
    try:
        found = parts()
        assert next(found) == b"abc"
        if not abandoned:
            assert next(found, None) is None
        del found
    finally:
        sys.unraisablehook = hook
    assert not complaints


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(MediaError, match="cannot be written"), writing(tmp_path / "a", overwrite=False):
        pass
    reader = os.open(tmp_path / "a", os.O_RDONLY | os.O_NONBLOCK)
    with writing(tmp_path / "a", overwrite=False) as file:
        file.write(b"abc")
    assert os.read(reader, 10) == b"abc"
    os.close(reader)


def test_folders_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to("nowhere")
    assert is_to_be_made(tmp_path / "new")
    assert is_to_be_made(tmp_path / "new" / "deep")
    assert not is_to_be_made(tmp_path)
    assert not is_to_be_made(tmp_path / "file")
    assert not is_to_be_made(tmp_path / "file" / "new")
    assert not is_to_be_made(tmp_path / "lost" / "new")
