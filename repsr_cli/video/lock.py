"""Lock the folder of a job, so that only one process works on a target.

The operating system releases the lock when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from repsr_cli.errors import UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME = "lock"
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


@dataclass(frozen=True, slots=True)
class FolderLock:
    """A folder that this process has locked.

    Attributes:
        folder: the folder; created if it did not exist.
        file: the open file in it that is locked.
        holds: whether the file system supports locks; if not, two processes may use the folder.
    """

    folder: Path
    file: BinaryIO
    holds: bool

    @classmethod
    def take(cls, folder: Path, subject: Path) -> FolderLock:
        """Lock a folder, without waiting.

        Args:
            folder: created if it does not exist, in a folder that does.
            subject: the target that the folder belongs to, for the message.

        Raises:
            UsageError: another process has locked it.
            OSError: it cannot be created.
        """
        while True:
            folder.mkdir(exist_ok=True)
            try:
                file = (folder / _NAME).open("a+b")
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
                return cls(folder, file, holds)
            file.close()  # the locked file has been removed in the meantime

    def release(self) -> None:
        """Release the folder; harmless if that has happened already."""
        self.file.close()

    def clear(self) -> None:
        """Remove all files in the folder except the lock."""
        for path in self.folder.iterdir():
            if path.name != _NAME:
                path.unlink()

    def remove(self) -> None:
        """Remove and release the folder. The lock is removed last, so that no other process sees half a folder."""
        self.clear()
        if sys.platform == "win32":  # open files cannot be removed there
            self.release()
        (self.folder / _NAME).unlink(missing_ok=True)
        self.release()
        with suppress(OSError):  # another process uses it already
            self.folder.rmdir()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; False if the file system does not support locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
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
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
