"""Write a packed file pair by pair, so that work of hours goes on after a stop.

Beside the target lies ``TARGET.parts/``: ``job.json`` says what is being made, ``pixels`` holds what is finished, and
``pairs.jsonl`` has a line for each finished pair. A line is written after its pixels, so whatever follows the last
undamaged line is cut off on resuming, and made again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.files import check_target, write_text
from repsr_cli.training.dataset import (
    PackEntry,
    Pair,
    append_pair,
    assemble_pack,
    end_of,
    parsed_entry,
    writing_errors,
)

Task = tuple[str, Callable[[], Pair]]


def write_resumable(
    target: Path,
    scale: int,
    job: dict[str, Any],
    tasks: Iterable[Task],
    *,
    overwrite: bool,
) -> None:
    """Make pairs one after the other and pack them.

    Args:
        target: the packed file.
        scale: enlargement factor between LR and HR.
        job: everything that decides the pairs, as JSON takes it.
        tasks: the name of each pair and what makes it, in an order that ``job`` decides.
        overwrite: replace an existing target.

    Raises:
        UsageError: an unfinished file of another job lies there, or the target exists.
        RecipeError: the target cannot be written.
    """
    with writing_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        check_target(target, overwrite=overwrite, failure=RecipeError)
        _write(target, scale, job, tasks, overwrite=overwrite)


def _write(target: Path, scale: int, job: dict[str, Any], tasks: Iterable[Task], *, overwrite: bool) -> None:
    folder = target.with_name(f"{target.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, job)
    with _appending(folder / "pixels") as pixels, _appending(folder / "pairs.jsonl") as lines:
        entries = _finished(lines, scale, pixels.seek(0, os.SEEK_END))
        done = {entry.name for entry in entries}
        end = end_of(entries[-1], scale) if entries else 0
        pixels.truncate(end)
        lines.truncate(sum(len(_line(entry)) for entry in entries))
        for name, make in tasks:
            if name not in done:
                entry, nbytes = append_pair(pixels, make(), scale, end)
                pixels.flush()
                os.fsync(pixels.fileno())
                lines.write(_line(entry))
                lines.flush()
                end += nbytes
                entries.append(entry)
        assemble_pack(target, scale, entries, pixels, overwrite=overwrite)
    shutil.rmtree(folder)


def _claim(folder: Path, job: dict[str, Any]) -> None:
    """See that an unfinished folder is this job's.

    Raises:
        UsageError: it is another's, or a link.
    """
    if folder.is_symlink():
        raise UsageError(folder, "is a link", "Delete it, or write to another file.")
    file = folder / "job.json"
    text = json.dumps(job, indent=1, sort_keys=True)
    if not file.exists():
        write_text(file, text, overwrite=False, failure=RecipeError)
    elif file.read_bytes() != text.encode():
        raise UsageError(folder, "is an unfinished file of other settings", "Delete it, or write to another file.")


def _appending(path: Path) -> IO[bytes]:
    """A file to read and to append to, never by way of a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a+b")


def _finished(lines: IO[bytes], scale: int, length: int) -> list[PackEntry]:
    """The pairs of the first whole, undamaged lines whose pixels follow each other and are there."""
    lines.seek(0)
    entries: list[PackEntry] = []
    end = 0
    for line in lines:
        try:
            entry = parsed_entry(json.loads(line), scale, length)
        except (TypeError, ValueError, RecursionError):
            break
        if entry.offset != end or line != _line(entry):
            break
        entries.append(entry)
        end = end_of(entry, scale)
    return entries


def _line(entry: PackEntry) -> bytes:
    return json.dumps(dataclasses.asdict(entry)).encode() + b"\n"
