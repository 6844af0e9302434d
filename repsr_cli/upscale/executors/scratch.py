"""Make temporary folders that do not outlive a worker for long, however it ends."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where the folders of killed workers stay
    fcntl = None  # type: ignore[assignment]

_PREFIX = "repsr-worker-"
_LOCK = "lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, locked while it is used; those of this user's killed workers are removed first."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    held = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_abandoned() -> None:
    """Remove folders whose lock is free."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            # Without a lock file, it has only just been made.
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _locked(folder: Path) -> int | None:
    if fcntl is None:
        return None
    # The file gets its name when it is locked: a folder with an unlocked one is abandoned.
    temporary = folder / f"{_LOCK}.new"
    held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    temporary.rename(folder / _LOCK)
    return held
