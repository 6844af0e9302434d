"""One job at a time for a target: a lock that the system takes back when its holder dies, however it dies."""

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
    """A folder that belongs to this process.

    Attributes:
        folder: the folder; it was made if need be.
        file: the open file in it that is locked.
        holds: whether the file system knows locks; without them two processes are not kept apart.
    """

    folder: Path
    file: BinaryIO
    holds: bool

    @classmethod
    def take(cls, folder: Path, subject: Path) -> FolderLock:
        """Lock a folder, without waiting.

        Args:
            folder: made if it is not there; its parent is.
            subject: the target that the folder belongs to, for the message.

        Raises:
            UsageError: another process has it.
            OSError: it cannot be made.
        """
        while True:
            folder.mkdir(exist_ok=True)
            try:
                file = (folder / _NAME).open("a+b")
            except FileNotFoundError:  # the holder finished, and removed the folder, between these two lines
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
            file.close()  # what was locked has been removed meanwhile: a lock on nothing

    def release(self) -> None:
        """Let others have it; harmless when it is released already."""
        self.file.close()

    def clear(self) -> None:
        """Remove all files in the folder but the lock."""
        for path in self.folder.iterdir():
            if path.name != _NAME:
                path.unlink()

    def remove(self) -> None:
        """Remove the folder and let go of it; the lock goes last, so that nobody finds the folder half empty."""
        self.clear()
        if sys.platform == "win32":  # where an open file cannot be removed
            self.release()
        (self.folder / _NAME).unlink(missing_ok=True)
        self.release()
        with suppress(OSError):  # the next one is in it already
            self.folder.rmdir()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; False where the file system knows no locks.

    Raises:
        BlockingIOError: it is locked.
    """
    try:
        if sys.platform == "win32":
            file.seek(2**30)  # the bytes themselves stay readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, "locked") from error
        return False
    return True


def _is_same(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is the one that has a name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
