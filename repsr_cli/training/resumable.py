"""Write a packed file pair by pair, so that work of hours goes on after a stop.

Beside the target lies ``TARGET.parts/``: ``job.json`` says what is being made, ``pixels`` holds what is finished, and
``pairs.jsonl`` has a line for each finished pair. A line is written after its pixels, so whatever follows the last
whole line is cut off on resuming.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.files import check_target
from repsr_cli.training.dataset import PackEntry, Pair, append_pair, assemble_pack, writing_errors

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
    done = _finished(folder / "pairs.jsonl")
    end = max((_end(entry, scale) for entry in done.values()), default=0)
    entries = list(done.values())
    with (folder / "pixels").open("ab") as pixels, (folder / "pairs.jsonl").open("ab") as lines:
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
    with (folder / "pixels").open("rb") as pixels:
        assemble_pack(target, scale, entries, pixels, overwrite=overwrite)
    shutil.rmtree(folder)


def _claim(folder: Path, job: dict[str, Any]) -> None:
    file = folder / "job.json"
    text = json.dumps(job, indent=1, sort_keys=True)
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise UsageError(folder, "is an unfinished file of other settings", "Delete it, or write to another file.")


def _finished(file: Path) -> dict[str, PackEntry]:
    """The pairs of every whole line, by name."""
    if not file.exists():
        return {}
    lines = file.read_bytes().split(b"\n")[:-1]
    entries = [PackEntry(**json.loads(line)) for line in lines]
    return {entry.name: entry for entry in entries}


def _line(entry: PackEntry) -> bytes:
    return json.dumps(dataclasses.asdict(entry)).encode() + b"\n"


def _end(entry: PackEntry, scale: int) -> int:
    pixels = entry.height * entry.width
    return entry.offset + 3 * (pixels * (1 + entry.teacher) + pixels // scale**2)
