"""Write a packed file pair by pair, so that hours of work can be resumed after a stop.

Beside the target lies ``TARGET.parts/``: ``job.json`` says what is being made, ``pixels`` holds what is finished, and
``pairs.jsonl`` has a line for each finished pair, with a digest of its pixels. A line is written after its pixels, so
whatever follows the last undamaged line and pair is cut off on resuming, and made again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.files import check_target, is_file, is_temporary, safe_flags, write_text
from repsr_cli.job_records import read_job, read_note, same_file, twice, write_job
from repsr_cli.training.dataset import (
    PackEntry,
    Pair,
    append_pair,
    assemble_pack,
    end_of,
    parsed_entry,
    writing_errors,
)
from repsr_cli.video.lock import FolderLock, is_own_folder, leftover, remove_empty

_JOB, _PIXELS, _LINES, _DONE = "job.json", "pixels", "pairs.jsonl", "complete.json"
_BLOCK = 1 << 20  # digested at a time
Task = tuple[str, Callable[[], Pair]]


def write_resumable(
    target: Path,
    scale: int,
    job: dict[str, Any],
    tasks: Iterable[Task],
    *,
    overwrite: bool,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Make pairs one after the other and pack them.

    Args:
        job: everything that decides the pairs, as JSON takes it.
        tasks: the name of each pair and what makes it, in an order that ``job`` decides.
        say: gets a line if what was only needed on the way cannot be removed.

    Raises:
        UsageError: an unfinished file of another job lies there, or the target exists.
        RecipeError: the target cannot be written.
    """
    with writing_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not overwrite and is_complete(target) and read_job(_folder(target) / _JOB) in (None, _as_read(job)):
            _remove(FolderLock.take(_folder(target), target), target, say)
            return
        check_target(target, overwrite=overwrite, failure=RecipeError)
        lock = FolderLock.take(_folder(target), target)
        _write(target, scale, job, tasks, lock, overwrite=overwrite)
        _remove(lock, target, say)


def _write(
    target: Path, scale: int, job: dict[str, Any], tasks: Iterable[Task], lock: FolderLock, *, overwrite: bool
) -> None:
    worthless = False
    try:
        folder = lock.folder
        fresh = _claim(folder, job)
        with _appending(folder / _PIXELS) as pixels, _appending(folder / _LINES) as lines:
            done = [] if fresh else list(_finished(lines, pixels, scale))
            entries = [entry for entry, _ in done]
            names = {entry.name for entry in entries}
            end = end_of(entries[-1], scale) if entries else 0
            pixels.truncate(end)
            lines.truncate(sum(length for _, length in done))
            worthless = not entries
            for name, make in tasks:
                if name not in names:
                    entry, nbytes = append_pair(pixels, make(), scale, end)
                    pixels.flush()
                    os.fsync(pixels.fileno())
                    lines.write(_line(entry, _digest(entry, pixels, scale)))
                    lines.flush()
                    end += nbytes
                    entries.append(entry)
                    worthless = False
            assemble_pack(
                target,
                scale,
                entries,
                pixels,
                overwrite=overwrite,
                noting=lambda pack: _note(folder, pack),
            )
    except BaseException:
        if worthless:
            _remove(lock, target)
        lock.release()
        raise


def _folder(target: Path) -> Path:
    """Where what is finished is kept."""
    return target.with_name(f"{target.name}.parts")


def _note(folder: Path, pack: Path) -> None:
    """Note that a file is complete, which is about to become the target; where that fails, it is forgotten."""
    with suppress(RecipeError, OSError):
        write_text(folder / _DONE, twice({"file": same_file(pack)}), overwrite=True, failure=RecipeError)


def _remove(lock: FolderLock, target: Path, say: Callable[[str], None] = lambda _line: None) -> None:
    """Remove what is not needed any more; files that others put there stay, and what cannot be removed."""
    try:
        lock.remove(is_temporary, last=(_PIXELS, _LINES, _JOB, _DONE))
        left = lock.left()
    except OSError as error:
        left = error.strerror or str(error)
    if left:
        say(leftover(target, lock.folder, left))


def is_complete(target: Path) -> bool:
    """Whether a target was finished by a run that was stopped while it tidied up.

    Also removes an empty folder, left by a run that was killed just before it removed that.
    """
    if not is_file(target):
        return False
    folder = _folder(target)
    remove_empty(folder)
    return is_own_folder(folder) and read_note(folder / _DONE).get("file") == same_file(target)


def _claim(folder: Path, job: dict[str, Any]) -> bool:
    """Whether an unfinished folder is new, or so damaged that nobody knows what was made in it."""
    there = read_job(folder / _JOB)
    for name in (_DONE,) if there is not None else (_DONE, _JOB):
        (folder / name).unlink(missing_ok=True)  # a named pipe would be written to
    if there is None:
        write_job(folder / _JOB, job, failure=RecipeError)
        return True
    if there != _as_read(job):
        raise UsageError(folder, "is an unfinished file of other settings", "Delete it, or write to another file.")
    return False


def _as_read(job: dict[str, Any]) -> Any:
    """A job as its record gives it back: lists for tuples, names for keys."""
    return json.loads(json.dumps(job))


def _appending(path: Path) -> IO[bytes]:
    """A file to read and to append to, never by way of a link."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | safe_flags(), 0o666)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise UsageError(path, "is not a file of repsr", "Remove it, or choose another name with -o.")
    return os.fdopen(descriptor, "a+b")


def _finished(lines: IO[bytes], pixels: IO[bytes], scale: int) -> Iterator[tuple[PackEntry, int]]:
    """The pairs of the first whole, undamaged lines whose pixels follow each other and are what was written.

    Yields:
        Each with the length of its line.
    """
    lines.seek(0)
    length = pixels.seek(0, os.SEEK_END)
    end = 0
    for line in lines:
        try:
            values = json.loads(line)
            digest = values.pop("digest")
            entry = parsed_entry(values, scale, length)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return
        following = end_of(entry, scale)
        if entry.offset != end or line != _line(entry, digest) or digest != _digest(entry, pixels, scale):
            return
        yield entry, len(line)
        end = following


def _line(entry: PackEntry, digest: str) -> bytes:
    return json.dumps({**dataclasses.asdict(entry), "digest": digest}).encode() + b"\n"


def _digest(entry: PackEntry, pixels: IO[bytes], scale: int) -> str:
    """A digest of a pair, its pixels as they are in the file."""
    found = hashlib.sha256(json.dumps(dataclasses.asdict(entry)).encode())
    nbytes = end_of(entry, scale) - entry.offset
    pixels.seek(entry.offset)
    while nbytes > 0 and (block := pixels.read(min(nbytes, _BLOCK))):
        found.update(block)
        nbytes -= len(block)
    return found.hexdigest()
