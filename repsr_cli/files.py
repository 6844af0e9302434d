"""Write files so that they appear complete under their name, or not at all.

A file is written beside its target under a random name, flushed to disk, and then moved into place. Without
``overwrite`` the move itself refuses to replace anything, including a file that appeared during the work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from repsr_cli.errors import MediaError, RepsrError, UsageError

Failure = type[RepsrError]
# Gets the path of a complete file just before it is renamed to its target; what it notes then holds for the target.
Noting = Callable[[Path], object]

_MARK = ".part"
_LEFTOVER = re.compile(rf"\..+\.[0-9a-f]{{16}}{re.escape(_MARK)}(\.\w+)?", re.DOTALL)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# Leaves space for the random part whatever the file system's limit on names (255 bytes nearly everywhere) is.
_NAME_BYTES = 100
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_REMEDIES = {
    errno.ENOSPC: "Free some space or choose another disk.",
    errno.EDQUOT: "Free some of your quota or choose another disk.",
    errno.EFBIG: "Choose another disk: this file system or a limit does not allow files of this size.",
    errno.EROFS: "Choose another folder.",
    errno.EACCES: "Check the folder's permissions or choose another one.",
    errno.EPERM: "Check the folder's permissions or choose another one.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOENT: "Check that the folder exists.",
    errno.ENOTDIR: "Check the path: part of it is a file.",
}
_DEFAULT_REMEDY = "Check the folder and the free space."


@dataclass(slots=True)
class PendingFile:
    """A file that is being written and does not have its final name yet.

    Attributes:
        path: the temporary name, in the same folder.
        file: open for writing and reading.
    """

    target: Path
    path: Path
    file: BinaryIO
    overwrite: bool

    @classmethod
    def begin(cls, target: Path, *, overwrite: bool, suffix: str = "") -> PendingFile:
        """Create the temporary file, whose name ends in a suffix.

        Raises:
            UsageError: the target exists and ``overwrite`` is false, or nothing can be written there.
            OSError: the file cannot be created.
        """
        _check(target, overwrite)
        path = _temporary_name(target, suffix)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | safe_flags()
        try:
            pending = cls(target, path, os.fdopen(os.open(path, flags, 0o666), "w+b"), overwrite)
            if not overwrite:
                pending._probe()
        except FileExistsError:  # not ours to remove
            raise
        except BaseException:  # Ctrl-C may come as soon as the file is there
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return pending

    def commit(self, noting: Noting | None = None) -> None:
        """Flush the file to disk and give it its final name.

        Args:
            noting: called with the complete file before that.

        Raises:
            UsageError: a file has appeared under that name and ``overwrite`` is false.
            OSError: the file cannot be flushed or renamed.
        """
        self.file.flush()
        _sync(self.file.fileno())
        self.file.close()
        if noting is not None:
            noting(self.path)
        _move(self.path, self.target, self.overwrite)

    def discard(self) -> None:
        """Remove the temporary file. Harmless after ``commit``."""
        with suppress(OSError):  # flushing what is still buffered fails where writing failed
            self.file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _probe(self) -> None:
        """Find out before the work, not after it, whether this file system can rename without replacing."""
        if sys.platform == "win32":
            return
        before, renamed = self.path, _temporary_name(self.target, self.path.suffix.removeprefix(_MARK))
        self.path = renamed
        try:
            _rename_exclusively(before, renamed, self.target)
        except BaseException:
            for name in (before, renamed):
                with suppress(OSError):
                    name.unlink(missing_ok=True)
            self.file.close()
            raise


def check_target(target: Path, *, overwrite: bool, failure: Failure = MediaError) -> None:
    """Check before the work starts that a target may be written.

    Args:
        failure: the error to raise where the system says no.

    Raises:
        UsageError: it exists and ``overwrite`` is false, or it is not a regular file.
        RepsrError: of class ``failure``: its folder cannot be searched, or its name is too long.
    """
    with translated_errors(target, failure):
        _check(target, overwrite)


def check_names(path: Path) -> None:
    """Check that no name on the way to a path is too long for the file system of what exists of that way.

    Raises:
        MediaError: one is.
    """
    with translated_errors(path, MediaError):
        folder = innermost(path.absolute().parent)
        for name in path.absolute().relative_to(folder).parts:
            try:
                (folder / name).lstat()
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a regular file; False where the system refuses to tell, e.g. for names too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises there


def is_folder(path: str | Path) -> bool:
    """Whether a path leads to a folder; False where the system refuses to tell."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises there


def innermost(path: Path) -> Path:
    """What exists of a path: itself, or the innermost of its parents that does; absolute. Links are not followed."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))


def is_to_be_made(folder: Path) -> bool:
    """Whether a folder does not exist and can be made, as nothing but folders leads to it."""
    there = innermost(folder)
    return there != folder.absolute() and is_folder(there)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are not followed, and named pipes do not block.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | safe_flags()), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def safe_flags() -> int:
    """Flags with which ``os.open`` follows no link, waits for nobody, and changes no bytes."""
    found = 0
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
        found |= getattr(os, name, 0)
    return found


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file to read. An error as it is closed costs nothing, so it is none, whoever closes it and whenever.

    Raises:
        OSError: it cannot be opened; whatever the block raises passes through.
    """
    file = path.open("rb")
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


@contextmanager
def writing(
    target: Path, *, overwrite: bool, failure: Failure = MediaError, noting: Noting | None = None
) -> Iterator[BinaryIO]:
    """A binary file that appears under its name when the block ends without an error.

    Devices and named pipes are written directly: they hold nothing that could be replaced. A pipe that nobody reads is
    an error.

    Args:
        failure: the error to raise where the system says no.
        noting: called with the complete file before it gets its name.

    Raises:
        UsageError: the target exists, or appeared meanwhile, and ``overwrite`` is false.
        RepsrError: of class ``failure``: an operating system error, in the block too.
    """
    with translated_errors(target, failure):
        if _is_stream(target):
            with _open_stream(target) as stream:
                yield stream
            return
        pending = PendingFile.begin(target, overwrite=overwrite)
        try:
            yield pending.file
            pending.commit(noting)
        finally:
            pending.discard()


@contextmanager
def staging(target: Path, *, overwrite: bool, failure: Failure = MediaError) -> Iterator[Path]:
    """A temporary path for libraries that write by name, with the target's suffix.

    See ``writing`` for arguments and errors.
    """
    with translated_errors(target, failure):
        pending = PendingFile.begin(target, overwrite=overwrite, suffix=target.suffix)
        try:
            pending.file.close()
            yield pending.path
            publish(pending.path, target, overwrite=overwrite, failure=failure)
        finally:
            pending.discard()


def write_bytes(
    target: Path, content: bytes, *, overwrite: bool, failure: Failure = MediaError, noting: Noting | None = None
) -> None:
    """Write a file at once; see ``writing`` for arguments and errors."""
    with writing(target, overwrite=overwrite, failure=failure, noting=noting) as file:
        file.write(content)


def write_text(target: Path, content: str, *, overwrite: bool, failure: Failure = MediaError) -> None:
    """Write a file at once as UTF-8, line ends as given; see ``writing`` for arguments and errors.

    Bytes of file names that are not UTF-8 are written as escapes.
    """
    write_bytes(target, content.encode(errors="backslashreplace"), overwrite=overwrite, failure=failure)


def publish(
    temporary: Path, target: Path, *, overwrite: bool, failure: Failure = MediaError, noting: Noting | None = None
) -> None:
    """Flush a complete file to disk and give it its final name.

    Args:
        temporary: the file, in the same file system; it stays where it is if this fails.
        failure: the error to raise where the system says no.
        noting: called with the complete file before it gets its name.

    Raises:
        UsageError: the target exists and ``overwrite`` is false.
        RepsrError: of class ``failure``: an operating system error.
    """
    with translated_errors(target, failure):
        _check(target, overwrite=True)
        _sync_file(temporary)
        if noting is not None:
            noting(temporary)
        _move(temporary, target, overwrite)


@contextmanager
def translated_errors(target: Path, failure: Failure = MediaError) -> Iterator[None]:
    """Turn errors of the operating system into an error about a file that is written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOENT and not target.parent.is_dir():
            reason = f"the folder {target.parent} does not exist"
        remedy = _REMEDIES.get(error.errno or 0, _DEFAULT_REMEDY)
        raise failure(target, f"cannot be written: {reason}", remedy) from error


def _check(target: Path, overwrite: bool) -> None:
    try:
        found = target.lstat()
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise
        return
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(target, "is a folder", "Choose another name.")
    if not overwrite:
        raise UsageError(target, "exists", "Add -y to replace it.")
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise UsageError(target, "is not a regular file", "Choose another name.")


def _is_stream(target: Path) -> bool:
    """Whether a path leads to a named pipe or a character device, such as /dev/stdout."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _open_stream(target: Path) -> BinaryIO:
    """Open a device or a named pipe for writing, without waiting for a reader."""
    descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if sys.platform != "win32":
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


def remove_leftovers(folder: Path, target: Path | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: one that no other process writes to, such as a training run's.
        target: remove only those of this file, which no other process writes; None: all.
    """
    begin = "." if target is None else f".{_shortened(target)}."
    for path in folder.glob(f".*{_MARK}*"):
        if path.name.startswith(begin) and _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a name is one that unfinished files have."""
    return _LEFTOVER.fullmatch(name) is not None


def _temporary_name(target: Path, suffix: str) -> Path:
    return target.with_name(f".{_shortened(target)}.{secrets.token_hex(8)}{_MARK}{suffix}")


def _shortened(target: Path) -> str:
    return os.fsencode(target.name)[:_NAME_BYTES].decode("utf-8", "ignore")


def _move(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(target)
    else:
        _rename_exclusively(temporary, target, target)
    _sync_folder(target.parent)


def _rename_exclusively(old: Path, new: Path, target: Path) -> None:
    """Rename a file and replace nothing.

    Args:
        new: its new name.
        target: the subject of messages.

    Raises:
        UsageError: the new name is taken, or the file system cannot do this.
        OSError: anything else.
    """
    try:
        if sys.platform == "win32":
            old.rename(new)  # never replaces there
        elif not _renameat2(old, new):
            _link(old, new, target)
    except FileExistsError as error:
        happened = "a file of this name appeared while this was running"
        raise UsageError(target, happened, "It was kept; add -y to replace it.") from error


def _link(old: Path, new: Path, target: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=os.link not in os.supports_follow_symlinks)
    except FileExistsError:
        # Over NFS a repeated request may find what its first attempt made.
        if not os.path.samestat(old.lstat(), new.lstat()):
            raise
    except OSError as error:
        if error.errno not in _UNSUPPORTED | {errno.EPERM}:  # EPERM: a file system without hard links
            raise
        happened = "its file system cannot rename without replacing, so an existing file would not be safe"
        raise UsageError(target, happened, "Add -y if nothing there needs protection.") from error
    _sync_folder(new.parent)
    old.unlink()


def _renameat2(old: Path, new: Path) -> bool:
    """Linux: rename without replacement. False where the kernel, the C library or the file system lacks it."""
    function = _libc_renameat2()
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(old), None, str(new))


@cache
def _libc_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync_file(path: Path) -> None:
    """Flush a file that another library wrote."""
    flags = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "the temporary file was exchanged")
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush a folder, so that its entries survive a power failure; where that is impossible, do nothing."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
