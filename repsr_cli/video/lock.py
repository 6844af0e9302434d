"""Lock the folder of a job, so that only one process works on a target.

The operating system releases the lock when the process ends, however it ends. The folder has a predictable name in a
folder that others may write to. So links, folders of other users and files that are known elsewhere by another name are
refused, and files are removed by the open folder, not by its path.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from repsr_cli.errors import UsageError
from repsr_cli.files import safe_flags

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME = "lock"
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_REMEDY = "Remove it, or choose another name with -o."


@dataclass(frozen=True, slots=True)
class FolderLock:
    """A folder that this process has locked.

    Attributes:
        folder: the folder; created if it did not exist.
        file: the open file in it that is locked.
        holds: whether the file system supports locks; if not, two processes may use the folder.
        inode: device and number of the folder.
    """

    folder: Path
    file: BinaryIO
    holds: bool
    inode: tuple[int, int]

    @classmethod
    def take(cls, folder: Path, subject: Path) -> FolderLock:
        """Lock a folder, without waiting.

        Args:
            folder: created if it does not exist, in a folder that does.
            subject: the target that the folder belongs to, for the message.

        Raises:
            UsageError: another process has locked it, or it is a link, another user's, or contains folders.
            OSError: it cannot be created.
        """
        while True:
            try:
                folder.mkdir(mode=0o700)
                made = True
            except FileExistsError:
                made = False
            try:
                inode = _checked(folder, made)
                file = _open_regular(folder / _NAME)
            except FileNotFoundError:  # its owner finished and removed it after mkdir
                continue
            try:
                holds = _lock(file)
            except BlockingIOError as error:
                file.seek(0)
                by = file.read(20).decode("ascii", "replace") or "unknown"
                file.close()
                happened = f"is being written by another process ({by})"
                raise UsageError(subject, happened, "Wait for it, or choose another name with -o.") from error
            if _is_same(file, folder / _NAME):
                file.truncate(0)
                file.write(str(os.getpid()).encode())
                file.flush()
                return cls(folder, file, holds, inode)
            file.close()  # the locked file has been removed in the meantime

    def release(self) -> None:
        """Release the folder; harmless if that has happened already."""
        with suppress(OSError):  # closing writes what is buffered
            self.file.close()

    def clear(self, own: Callable[[str], bool]) -> None:
        """Remove files of the folder. Anything else stays: it is not repsr's.

        Args:
            own: whether a file of that name is to be removed.

        Raises:
            OSError: a file cannot be removed, or the folder was exchanged.
        """
        for path in sorted(self.folder.iterdir()):
            if path.name != _NAME and own(path.name):
                self._unlink(path.name)

    def remove(self, own: Callable[[str], bool], last: tuple[str, ...] = ()) -> None:
        """Remove and release the folder. The lock goes late, so that no other process sees half a folder.

        Args:
            own: whether a file of that name is to be removed; the folder stays if others are in it.
            last: names of files to remove after the lock, in order.

        Raises:
            OSError: a file cannot be removed, or the folder was exchanged. It is released in any case.
        """
        try:
            self.clear(lambda name: name not in last and own(name))
            if sys.platform == "win32":  # open files cannot be removed there
                self.release()
            self._unlink(_NAME)
            for name in last:
                self._unlink(name)
        finally:
            self.release()
        with suppress(OSError):  # something of others is in it, or another process uses it already
            self.folder.rmdir()

    def left(self) -> str:
        """Why the folder is still there after ``remove``; empty if it is not, or if another process uses it."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        return "" if not names or _NAME in names else f"it holds {min(names)}, which repsr did not put there"

    def _unlink(self, name: str) -> None:
        """Remove a file of the folder, even if the folder's path leads elsewhere by now; folders stay."""
        if os.unlink not in os.supports_dir_fd:
            with suppress(FileNotFoundError, PermissionError):
                (self.folder / name).unlink()
            return
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if _inode(os.fstat(folder)) != self.inode:
                raise FileNotFoundError(errno.ENOENT, "the folder was exchanged", str(self.folder))
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            if not self.folder.exists():
                raise
        finally:
            os.close(folder)


def leftover(target: Path, folder: Path, reason: str) -> str:
    """The line that says why the folder of a job outlives it, though its target is complete."""
    return f"{target.name} is complete; {folder} could not be removed: {reason}"


def remove_empty(folder: Path) -> None:
    """Remove a folder of this user, unless something is in it: another process's lock, or files of others."""
    if is_own_folder(folder):
        with suppress(OSError):
            folder.rmdir()


def is_own_folder(folder: Path) -> bool:
    """Whether a path is a folder of this user, and not a link to one."""
    try:
        _checked(folder)
    except (OSError, UsageError):
        return False
    return True


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _checked(folder: Path, made: bool = False) -> tuple[int, int]:
    """Device and number of a folder that may be trusted.

    Args:
        made: whether it has just been made. On network mounts it may have another owner all the same.

    Raises:
        UsageError: it is a link, another user's, or contains folders.
        OSError: it cannot be looked at.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "not a folder"
        raise UsageError(folder, f"is {kind}, where the files of this job would go", _REMEDY)
    if sys.platform != "win32" and not made and found.st_uid != os.geteuid():
        raise UsageError(folder, "belongs to another user", _REMEDY)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                raise UsageError(entry.path, "is a folder, which repsr did not make", _REMEDY)
    return _inode(found)


def _open_regular(path: Path) -> BinaryIO:
    """Open the file to lock, or create it.

    Raises:
        UsageError: it is a link, or anything else than a regular file with this one name.
        OSError: it cannot be opened.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | safe_flags(), 0o600), "r+b", buffering=0)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise
        raise UsageError(path, "is not a file of repsr", _REMEDY) from error
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise UsageError(path, "is not a file of repsr", _REMEDY)
    return file


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; False if the file system does not support locks."""
    try:
        if sys.platform == "win32":
            file.seek(2**30)  # beyond the content, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, "locked") from error
        return False
    return True


def _is_same(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that currently has a name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
