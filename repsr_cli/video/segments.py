"""Store finished segments on disk, so that a job can be killed at any time and resumed.

A hidden folder next to the target contains ``job.json``, which describes the job and holds a digest of that, and one
file for every finished segment. A segment file is written under another name first, so that it is complete if it
exists. Whatever is damaged, the description too, is made anew.

A segment file: a line of JSON that names the job and the segment; for every packet five integers (pts, dts, duration,
flags, size) and its bytes; five zeros. Flags are 1 for a keyframe, and 2 for a frame that could not be decoded and
repeats the one before. The line, every packet and the zeros are each followed by the SHA-256 of all before. So a
packet is checked before it is used, whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import PendingFile, is_temporary, open_regular, translated_errors, write_bytes, write_text
from repsr_cli.job_records import MAX_BYTES, identity, read_job, read_note, same_file, twice, write_job
from repsr_cli.video.encode import EncodedPacket
from repsr_cli.video.image_sequence import is_pattern, numbered
from repsr_cli.video.lock import FolderLock, is_own_folder, remove_empty
from repsr_cli.video.open import translated

_PACKET = struct.Struct("<qqqqq")
_DIGEST = hashlib.sha256().digest_size
_ENDS = 2**20
_SEGMENT = re.compile(r"[0-9]{6,9}\.segment")
_JOB = "job.json"
# Says that the target is complete, from before it gets its name until the folder is removed.
_DONE = "complete.json"
# In the folder of a job whose numbered images get their names, which takes more than a moment.
_WRITING = "writing"


class _Damaged(Exception):
    """A segment file is not what was written, or belongs elsewhere."""


def fingerprint(path: Path) -> str:
    """What identifies a source: its size and a digest of its first and last megabyte; for numbered images, of all."""
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


def is_job_file(name: str) -> bool:
    """Whether a file of that name in a job's folder is one that a job put there, and may remove."""
    return name in (_JOB, _DONE, _WRITING) or _SEGMENT.fullmatch(name) is not None or is_temporary(name)


def begun(target: Path) -> dict[str, Any] | None:
    """The description of an interrupted job, as given to ``Store.begin``; None if there is nothing to resume."""
    folder = job_folder(target)
    if not (is_own_folder(folder) and _segments(folder)):
        return None
    return read_job(folder / _JOB)


def stored_bytes(target: Path) -> int:
    """The size of the finished segments of an interrupted job, in bytes."""
    folder, found = job_folder(target), 0
    with suppress(OSError):  # another process may just be finishing the job
        found += sum(path.stat().st_size for path in _segments(folder)) if is_own_folder(folder) else 0
    return found


def is_complete(target: Path) -> bool:
    """Whether a job finished a target and was stopped while it tidied up.

    Also removes an empty folder, left by a job that was killed just before it removed that.
    """
    remove_empty(job_folder(target))
    return _completed_by(target) is not None


def being_numbered(target: Path) -> bool:
    """Whether a job was stopped while its numbered images got their names."""
    return is_own_folder(job_folder(target)) and (job_folder(target) / _WRITING).is_file()


@dataclass(frozen=True, slots=True)
class Store:
    """The finished segments of one job; while it is open, no other process can open it.

    Attributes:
        job: digest of what the packets depend on.
        complete: whether an earlier run of this job has finished the target.
    """

    folder: Path
    lock: FolderLock
    job: str
    complete: bool = False
    _repeated: dict[int, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def begin(cls, target: Path, job: Mapping[str, Any], resume: bool, anew: bool = False) -> Store:
        """Open the folder of a target, or create it.

        Args:
            job: what the packets depend on, JSON-able: source, segments, encoder, network, device, precision, tile.
            resume: keep finished segments.
            anew: make segments of another job anew, instead of refusing to.

        Raises:
            UsageError: they belong to another job, another process uses the folder, or it is not to be trusted.
            MediaError: the folder cannot be written.
        """
        with translated_errors(target):
            lock = FolderLock.take(job_folder(target), target)
            complete = resume and _completed_by(target) == identity(job)
            store = cls(lock.folder, lock, identity(job), complete)
            if complete:
                return store
            try:
                store._prepare(target, job, resume, anew)
            except BaseException:
                store.close()
                raise
        return store

    def _prepare(self, target: Path, job: Mapping[str, Any], resume: bool, anew: bool) -> None:
        """Remove what an earlier run left and this one cannot use, and describe the job.

        Raises:
            UsageError: there are segments of another job.
        """
        record = self.folder / _JOB
        segments = frozenset(path.name for path in _segments(self.folder))
        described, wanted = read_job(record), json.loads(json.dumps(job))
        keep = frozenset({_WRITING}) if resume and described in (None, wanted) else frozenset[str]()
        if resume and segments:
            if described is not None and not anew:
                _check_same(target, described, wanted)
            keep |= segments
        self.lock.clear(lambda name: name not in keep and is_job_file(name))
        write_job(record, job)

    def close(self) -> bool:
        """Release the folder, and remove it if no segment is finished. Returns whether it was kept."""
        try:
            kept = bool(_segments(self.folder))
        except OSError:
            kept = True
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
            MediaError: it is damaged, or of another job.
        """
        write_bytes(self.path(index), data, overwrite=True)
        frames = self._count(index)
        if frames is None:
            self._discard(self.path(index))
            raise MediaError(self.path(index), "arrived damaged", "Run the same command again.")
        return frames

    def finished(self, say: Callable[[str], None] = lambda _line: None, whole: bool = False) -> dict[int, int]:
        """The number of frames of the finished segments, by index; what is damaged or of another job is removed.

        Args:
            say: gets a line where something is removed.
            whole: remove those as well in which a frame could not be decoded.
        """
        found, removed, partial = {}, 0, 0
        self._repeated.clear()
        for path in _segments(self.folder):
            index = int(path.stem)
            frames = self._count(index) if self.path(index) == path else None
            if frames is None:
                self._discard(path)
                removed += 1
            elif whole and self._repeated.get(index):
                self._discard(path)
                del self._repeated[index]
                partial += 1
            else:
                found[index] = frames
        if removed:
            say(f"segments that are damaged or of another job are made anew: {removed}")
        if partial:
            say(f"segments with frames that could not be decoded are made anew: {partial}")
        return found

    def repeated(self) -> tuple[int, ...]:
        """Times of the frames of ``finished`` segments that could not be decoded."""
        return tuple(sorted(pts for times in self._repeated.values() for pts in times))

    def packets(self, index: int) -> Iterator[EncodedPacket]:
        """The packets of a segment, each checked before it is given.

        Raises:
            MediaError: it is damaged, or of another job; it is removed.
        """
        path = self.path(index)
        try:
            yield from _records(path, self.job, index)
        except (OSError, _Damaged) as error:
            self._discard(path)
            reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
            happened = f"this finished segment changed on disk ({reason})"
            raise MediaError(path, happened, "Run the same command again: only this segment is made anew.") from error

    def number(self) -> None:
        """Note that numbered images get their names from now on."""
        write_bytes(self.folder / _WRITING, b"", overwrite=True)

    def done(self, joined: Path) -> None:
        """Note that a file is complete, which is about to become the target."""
        write_text(self.folder / _DONE, twice({"job": self.job, "file": same_file(joined)}), overwrite=True)

    def remove(self) -> str:
        """Remove the folder with all files of this job. Returns why that failed, or an empty string."""
        try:
            self.lock.remove(is_job_file, last=(_JOB, _WRITING, _DONE))
        except OSError as error:
            return (error.strerror or str(error)) if self.folder.exists() else ""
        return self.lock.left()

    def _count(self, index: int) -> int | None:
        """The number of packets of a segment, or None if it is damaged or not of this job."""
        frames, repeated = 0, []
        try:
            for packet in _records(self.path(index), self.job, index):
                frames += 1
                repeated += [packet.pts] if packet.repeats else []
        except (OSError, _Damaged):
            return None
        self._repeated[index] = repeated
        return frames

    def _discard(self, path: Path) -> None:
        with suppress(OSError):
            path.unlink()


class SegmentWriter:
    """Writes one segment and gives the file its final name when it is complete."""

    def __init__(self, store: Store, index: int) -> None:
        self._digest = hashlib.sha256()
        self._pending = PendingFile.begin(store.path(index), overwrite=True)
        self._write(json.dumps({"job": store.job, "index": index}).encode() + b"\n")

    def add(self, packet: EncodedPacket) -> None:
        """Append a packet."""
        head = _PACKET.pack(packet.pts, packet.dts, packet.duration, packet.key | packet.repeats << 1, len(packet.data))
        self._write(head + packet.data)

    def finish(self) -> None:
        """Complete the file and give it its final name."""
        self._write(_PACKET.pack(0, 0, 0, 0, 0))
        self._pending.commit()

    def abandon(self) -> None:
        """Remove the incomplete file; harmless after ``finish``."""
        self._pending.discard()

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._pending.file.write(data)
        self._pending.file.write(self._digest.digest())


def _records(path: Path, job: str, index: int) -> Iterator[EncodedPacket]:
    """The packets of a segment file, each checked before it is given."""
    with open_regular(path) as file:
        header, digest = _first_line(file)
        if header.get("job") != job or header.get("index") != index:
            raise _Damaged
        left = path.stat().st_size - file.tell()
        while True:
            head = file.read(_PACKET.size)
            if len(head) < _PACKET.size:
                raise _Damaged
            pts, dts, duration, flags, size = _PACKET.unpack(head)
            left -= _PACKET.size + _DIGEST
            if not 0 <= size <= left:
                raise _Damaged
            left -= size
            data = file.read(size)
            digest.update(head)
            digest.update(data)
            if file.read(_DIGEST) != digest.digest():
                raise _Damaged
            if not size:
                break
            yield EncodedPacket(pts, dts, duration, bool(flags & 1), data, bool(flags & 2))
        if file.read(1):
            raise _Damaged


def _first_line(file: BinaryIO) -> tuple[dict[str, Any], Any]:
    """What a segment file says about itself, and the digest so far."""
    line = file.readline(MAX_BYTES)
    digest = hashlib.sha256(line)
    if file.read(_DIGEST) != digest.digest():
        raise _Damaged
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Damaged from error
    if not isinstance(header, dict):
        raise _Damaged
    return header, digest


def _completed_by(target: Path) -> str | None:
    """The job that finished a target and was stopped while it tidied up; None if there is none."""
    folder = job_folder(target)
    record = read_note(folder / _DONE) if is_own_folder(folder) else {}
    if record.get("file") != same_file(target):
        return None
    job = record.get("job")
    return job if isinstance(job, str) else None


def _segments(folder: Path) -> list[Path]:
    """The files of segments in a folder, in order."""
    return sorted(path for path in folder.glob("*.segment") if _SEGMENT.fullmatch(path.name))


def check_continues(target: Path, there: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
    """See that a job can continue an interrupted one, as far as it is known before a network is loaded.

    Args:
        there: the interrupted one, from ``begun``.
        planned: part of what is given to ``Store.begin``.

    Raises:
        UsageError: they are not the same job.
    """
    wanted = json.loads(json.dumps(planned))
    _check_same(target, {name: value for name, value in there.items() if name in wanted}, wanted)


def _check_same(target: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to mix the segments of two jobs."""
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
