"""Store finished segments on disk, so that a job can be killed at any time and resumed.

A hidden folder next to the target contains ``job.json``, which describes the job, and one file for every finished
segment. A segment file is written under another name first, so that it is complete if it exists; it ends in a digest of
itself.

A segment file: a line of JSON; for every packet five integers (pts, dts, duration, key, size) and its bytes; five
zeros; 32 bytes of SHA-256 over all before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import PendingFile, write_bytes, write_text
from repsr_cli.video.encode import EncodedPacket
from repsr_cli.video.image_sequence import is_pattern, numbered
from repsr_cli.video.lock import FolderLock
from repsr_cli.video.open import translated

_PACKET = struct.Struct("<qqqqq")
_ENDS = 2**20


def fingerprint(path: Path) -> str:
    """What identifies a source: its size and a digest of its first and last megabyte; for numbered images, of all.

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
    """The hidden folder next to a target."""
    return target.with_name(f".{target.name}.repsr")


def begun(target: Path) -> dict[str, Any] | None:
    """The description of an interrupted job, as given to ``Store.begin``; None if there is nothing to resume."""
    folder = job_folder(target)
    try:
        if not any(folder.glob("*.segment")):
            return None
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # reported when the folder is opened
        return None
    return job if isinstance(job, dict) else None


@dataclass(frozen=True, slots=True)
class Store:
    """The finished segments of one job; while it is open, no other process can open it.

    Attributes:
        folder: the folder that contains them.
        lock: the lock on it.
    """

    folder: Path
    lock: FolderLock

    @classmethod
    def begin(cls, target: Path, job: Mapping[str, Any], resume: bool) -> Store:
        """Open the folder of a target, or create it.

        Args:
            target: the file to write.
            job: what the packets depend on, JSON-able: source, segments, encoder, network, device, precision, tile.
            resume: keep finished segments.

        Raises:
            UsageError: they belong to another job, or another process uses the folder.
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
                    write_text(record, json.dumps(job, indent=1), overwrite=True)
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> bool:
        """Release the folder, and remove it if no segment is finished. Returns whether it was kept."""
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
        """Add the file of a segment that was made elsewhere.

        Returns:
            The number of its frames.

        Raises:
            MediaError: it is damaged.
            OSError: it cannot be written.
        """
        write_bytes(self.path(index), data, overwrite=True)
        frames = _verify(self.path(index))
        if frames is None:
            self.path(index).unlink()
            raise MediaError(self.path(index), "arrived damaged", "Run the same command again.")
        return frames

    def finished(self) -> dict[int, int]:
        """The number of frames of the finished segments, by index; damaged files are removed."""
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
        """Remove the folder with everything in it."""
        self.lock.remove()


class SegmentWriter:
    """Writes one segment and gives the file its final name when it is complete.

    Args:
        store: where to write it.
        index: number of the segment.
        header: facts for its first line.
    """

    def __init__(self, store: Store, index: int, header: Mapping[str, Any]) -> None:
        self._digest = hashlib.sha256()
        self._pending = PendingFile.begin(store.path(index), overwrite=True)
        self._write(json.dumps(dict(header)).encode() + b"\n")

    def add(self, packet: EncodedPacket) -> None:
        """Append a packet."""
        self._write(_PACKET.pack(packet.pts, packet.dts, packet.duration, packet.key, len(packet.data)))
        self._write(packet.data)

    def finish(self) -> None:
        """Complete the file and give it its final name."""
        self._write(_PACKET.pack(0, 0, 0, 0, 0))
        self._pending.file.write(self._digest.digest())
        self._pending.commit()

    def abandon(self) -> None:
        """Remove the incomplete file; harmless after ``finish``."""
        self._pending.discard()

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._pending.file.write(data)


def _verify(path: Path) -> int | None:
    """The number of packets in a segment file, or None if it is damaged."""
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
    """Free bytes on the disk of a folder that may not exist yet."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free
