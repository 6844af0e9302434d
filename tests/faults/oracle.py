"""Judge the exit code, the messages and the files of a trial."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from signal import SIGABRT

import av

from tests.faults.child import Outcome
from tests.sample_videos import other_packets, video_packets

EXIT_CODES = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 130})
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
# Sizes of what the commands make; anything of more is judged by digest alone.
Snapshot = Mapping[str, tuple[str, str]]


def snapshot(folder: Path) -> dict[str, tuple[str, str]]:
    """Kind and content of everything below a folder; links are not followed, FIFOs are not opened."""
    found = {}
    for path in _walk(folder):
        mode = path.lstat().st_mode
        name = os.fspath(path.relative_to(folder))
        if stat.S_ISLNK(mode):
            found[name] = ("link", os.fspath(path.readlink()))
        elif stat.S_ISREG(mode):
            found[name] = ("file", hashlib.sha256(path.read_bytes()).hexdigest())
        else:
            found[name] = ("folder" if stat.S_ISDIR(mode) else "other", "")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def content(path: Path) -> str:
    """What makes two results the same: bytes; of videos, packets; of checkpoints and models, what they hold.

    Returns:
        A digest, or what is wrong with the file.
    """
    if not path.is_file():
        return "missing"
    try:
        if path.suffix in (".mkv", ".mp4"):
            return _digest(repr((video_packets(path), other_packets(path))).encode())
        if path.suffix == ".safetensors":  # the order of its metadata is by chance
            data = path.read_bytes()
            end = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:end])
            source = header.get("__metadata__", {}).get("source_sha256")
            if source is not None:  # of a checkpoint that may have changed where that makes no difference
                header["__metadata__"]["source_sha256"] = len(source)
            return _digest(json.dumps(header, sort_keys=True).encode() + data[end:])
        if path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    return "damaged archive"
                tensors = [archive.read(name) for name in sorted(archive.namelist()) if "/data/" in name]
            return _digest(b"".join(tensors))
    except (av.FFmpegError, IndexError, zipfile.BadZipFile, OSError, ValueError) as error:
        return f"unreadable: {error!r}"
    return _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plausible(path: Path) -> bool:
    """Whether a file that is different each time is whole."""
    if not path.is_file():
        return False
    data = path.read_bytes()
    if path.suffix == ".svg":
        return data.rstrip().endswith(b"</svg>")
    if path.suffix == ".safetensors":
        return len(data) > 8 and data[8:9] == b"{" and len(data) > int.from_bytes(data[:8], "little") + 8
    return bool(data)


def ending(outcome: Outcome, signals: frozenset[int] = frozenset()) -> list[str]:
    """What is wrong with how a command ended."""
    found = []
    if outcome.code is None:
        found.append("hang")
    elif outcome.code < 0 and -outcome.code not in signals:
        found.append(f"died of {outcome.end}")
    elif outcome.code == 127 and "thread-local data: ABORT" in outcome.stderr and SIGABRT in signals:
        pass  # so the C library ends a process that gets no memory for a thread
    elif outcome.code > 0 and outcome.code not in EXIT_CODES:
        what = "traceback" if "Traceback" in outcome.stderr else f"exit {outcome.code}"
        found.append(f"{what}: {last_error(outcome.stderr)}")
    elif "Traceback (most recent call last)" in outcome.stderr:
        found.append(f"traceback, exit {outcome.code}: {last_error(outcome.stderr)}")
    if outcome.code not in (0, None) and outcome.code > 0 and not outcome.stderr.strip():
        found.append(f"exit {outcome.code} without a message")
    if CONTROL.search(outcome.stderr):
        found.append("control characters on stderr")
    return found


def last_error(stderr: str) -> str:
    """The line that names the exception, and where in the package it was raised."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt|Warning)\b", line)]
    places = [match for line in lines if (match := re.search(r"repsr_cli/([\w/]+\.py)\D+(\d+)", line))]
    at = f" ({places[-1][1]}:{places[-1][2]})" if places else ""
    return (errors[-1] if errors else lines[-1] if lines else "")[:160] + at


def difference(before: Snapshot, after: Snapshot, mine: frozenset[str]) -> list[str]:
    """Files that were there and are changed or gone, but for those that the command may replace."""
    found = []
    for name, was in before.items():
        if name in mine or any(each.endswith("/") and name.startswith(each) for each in mine):
            continue
        if name not in after:
            found.append(f"removed {_shown(name)}")
        elif after[name] != was:
            found.append(f"changed {_shown(name)}")
    return found


def made(before: Snapshot, after: Snapshot, allowed: frozenset[str]) -> list[str]:
    """Names that are new and should not be there."""
    return [name for name in after if name not in before and not below(name, allowed)]


def below(name: str, folders: Iterable[str]) -> bool:
    """Whether a name is one of these, or in one of these."""
    return any(name == folder or name.startswith(folder + "/") for folder in folders)


def _shown(name: str) -> str:
    return name.encode("unicode_escape", "surrogateescape").decode() if not name.isascii() else repr(name)[1:-1]
