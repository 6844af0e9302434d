"""Finished segments on disk: packets, written once and whole, so that a job can be killed at any moment.

Beside the target lies a hidden folder with ``job.json``, which says what job it is, and one file for every segment that
is finished. A segment file is written under another name first, so that a file that is there is a segment that is done;
it ends in a digest of itself.

A segment file: a line of JSON; for every packet five integers (pts, dts, duration, key, size) and its bytes; five
zeros; 32 bytes of SHA-256 over all before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.encode import EncodedPacket
from repsr_cli.video.image_sequence import is_pattern, numbered
from repsr_cli.video.lock import FolderLock
from repsr_cli.video.open import translated

_PACKET = struct.Struct("<qqqqq")
_ENDS = 2**20


def fingerprint(path: Path) -> str:
    """What tells a source from another: its size and the digest of its first and last megabyte; of images, all.

    Raises:
        MediaError: it cannot be read.
    """
    if is_pattern(path):
        prints = " ".join(fingerprint(image) for image in numbered(path).values())
        return hashlib.sha256(prints.encode()).hexdigest()
    with translated(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return f"{size}-{digest.hexdigest()[:32]}"


def job_folder(target: Path) -> Path:
    """The hidden folder beside a target."""
    return target.with_name(f".{target.name}.repsr")


def begun(target: Path) -> dict[str, Any] | None:
    """What an interrupted job depends on, as ``Store.begin`` was given it; None where there is none to go on from."""
    folder = job_folder(target)
    try:
        if not any(folder.glob("*.segment")):
            return None
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said when the folder is opened
        return None
    return job if isinstance(job, dict) else None


@dataclass(frozen=True, slots=True)
class Store:
    """The finished segments of one job; as long as it is open, no other process can have it.

    Attributes:
        folder: where they are.
        lock: that it is ours.
    """

    folder: Path
    lock: FolderLock

    @classmethod
    def begin(cls, target: Path, job: Mapping[str, Any], resume: bool) -> Store:
        """Open the folder of a target, or make it.

        Args:
            target: the file that is to be written.
            job: what the packets depend on, JSON-able: source, segments, encoder, network, device, precision, tile.
            resume: keep what is there.

        Raises:
            UsageError: what is there is of another job, or another process is at work on it.
            MediaError: the folder cannot be written.
        """
        with translated(target):
            lock = FolderLock.take(job_folder(target), target)
            store = cls(lock.folder, lock)
            record = lock.folder / "job.json"
            try:
                if not (resume and any(lock.folder.glob("*.segment"))):
                    lock.clear()
                if record.exists():
                    _check_same(target, json.loads(record.read_text(encoding="utf-8")), json.loads(json.dumps(job)))
                else:
                    write_whole(record, json.dumps(job, indent=1).encode())
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> bool:
        """Let others have it; it is removed if no segment is finished. Whether anything is kept."""
        kept = any(self.folder.glob("*.segment"))
        if kept:
            self.lock.release()
        else:
            self.remove()
        return kept

    def path(self, index: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{index:06d}.segment"

    def put(self, index: int, data: bytes) -> int:
        """Take in a segment's file that was made elsewhere.

        Returns:
            Its frames.

        Raises:
            MediaError: it is damaged.
            OSError: it cannot be written.
        """
        write_whole(self.path(index), data)
        frames = _verify(self.path(index))
        if frames is None:
            self.path(index).unlink()
            raise MediaError(self.path(index), "arrived damaged", "Run the same command again.")
        return frames

    def finished(self) -> dict[int, int]:
        """Frames of the segments that are done, by index; damaged files are thrown away."""
        found = {}
        for path in sorted(self.folder.glob("*.segment")):
            frames = _verify(path)
            if frames is None:
                path.unlink()
            else:
                found[int(path.stem)] = frames
        return found

    def packets(self, index: int) -> Iterator[EncodedPacket]:
        """The packets of a segment."""
        with self.path(index).open("rb") as file:
            file.readline()
            while True:
                pts, dts, duration, key, size = _PACKET.unpack(file.read(_PACKET.size))
                if not size:
                    return
                yield EncodedPacket(pts, dts, duration, bool(key), file.read(size))

    def remove(self) -> None:
        """Throw everything away."""
        self.lock.remove()


class SegmentWriter:
    """Writes one segment, and puts it in its place when it is whole.

    Args:
        store: where to.
        index: number of the segment.
        header: facts to note in its first line.
    """

    def __init__(self, store: Store, index: int, header: Mapping[str, Any]) -> None:
        self.final = store.path(index)
        self.partial = self.final.with_suffix(".partial")
        self._digest = hashlib.sha256()
        self._file: BinaryIO = self.partial.open("wb")
        self._write(json.dumps(dict(header)).encode() + b"\n")

    def add(self, packet: EncodedPacket) -> None:
        """Append a packet."""
        self._write(_PACKET.pack(packet.pts, packet.dts, packet.duration, packet.key, len(packet.data)))
        self._write(packet.data)

    def finish(self) -> None:
        """Put the segment in its place."""
        self._write(_PACKET.pack(0, 0, 0, 0, 0))
        self._file.write(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.partial.replace(self.final)

    def abandon(self) -> None:
        """Throw away what was written; harmless after ``finish``."""
        with suppress(OSError):  # a full disk has no room for what is still in the buffer either
            self._file.close()
        self.partial.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _verify(path: Path) -> int | None:
    """The number of packets in a segment file, or None if it is not whole."""
    digest = hashlib.sha256()
    count = 0
    length = path.stat().st_size
    with path.open("rb") as file:
        digest.update(file.readline())
        while True:
            head = file.read(_PACKET.size)
            if len(head) < _PACKET.size:
                return None
            digest.update(head)
            size = _PACKET.unpack(head)[4]
            if not size:
                return count if file.read(64) == digest.digest() else None
            if not 0 < size <= length - file.tell():
                return None
            data = file.read(size)
            digest.update(data)
            count += 1


def _check_same(target: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to mix the segments of two jobs.

    Raises:
        UsageError: the jobs differ.
    """
    for name in sorted(there.keys() | wanted.keys()):
        if there.get(name) != wanted.get(name):
            was, now = (json.dumps(job.get(name)) for job in (there, wanted))
            shown = f" (was {was}, is {now})" if len(was) + len(now) < 120 else ""
            happened = f"was begun with another {name}{shown}"
            raise UsageError(target, happened, "Begin again with --no-resume, or ask for the same as before.")


def free_space(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free
