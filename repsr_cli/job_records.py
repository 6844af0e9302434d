"""What a job notes of itself in its folder, so that it can be resumed: small JSON files that may be damaged."""

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
    found = read_json(record)
    job = found.get("job") if isinstance(found, dict) else None
    return job if isinstance(job, dict) and found.get("digest") == identity(job) else None


def read_json(record: Path) -> Any:
    """What a JSON file holds; None if it is missing, damaged or something else than a file."""
    try:
        with open_regular(record) as file:
            return json.loads(file.read(MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def same_file(path: Path) -> list[int] | None:
    """What stays the same when a file is renamed, and changes when it is replaced or written to; None: no file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]
