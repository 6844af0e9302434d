"""Store what a job records in its folder so that it can be resumed: small JSON files that may be damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsr_cli.errors import MediaError, RepsrError
from repsr_cli.files import open_regular, write_text

# What a record may take.
MAX_BYTES = 1 << 24


def identity(job: Mapping[str, Any]) -> str:
    """A digest of everything that the results of a job depend on."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()


def write_job(record: Path, job: Mapping[str, Any], failure: type[RepsrError] = MediaError) -> None:
    """Describe a job. An operating system error is raised as ``failure``."""
    write_text(record, json.dumps({"job": job, "digest": identity(job)}, indent=1), overwrite=True, failure=failure)


def read_job(record: Path) -> dict[str, Any] | None:
    """The description of a job; None if it is missing or is not what was written."""
    return _undamaged("job", _content(record))


def twice(note: Mapping[str, Any]) -> str:
    """A note as text that holds it twice, each with its digest, so that damage at one place costs nothing."""
    line = json.dumps({"note": note, "digest": identity(note)})
    return f"{line}\n\n{line}\n"  # two ends of line, so that none is the only one between them


def read_note(record: Path) -> dict[str, Any]:
    """The first undamaged note of a file that ``twice`` filled; empty if there is none."""
    for line in _content(record).splitlines():
        note = _undamaged("note", line)
        if note is not None:
            return note
    return {}


def _content(record: Path) -> bytes:
    """What a file holds; nothing if it is missing or something else than a file."""
    try:
        with open_regular(record) as file:
            return file.read(MAX_BYTES)
    except OSError:
        return b""


def _undamaged(name: str, text: bytes) -> dict[str, Any] | None:
    """What a JSON object holds by this name, if its digest is right."""
    try:
        found = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, dict) and found.get("digest") == identity(value) else None


def same_file(path: Path) -> list[int] | None:
    """What stays the same when a file is renamed, and changes when it is replaced or written to; None: no file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
