"""Recognize files that lost packets."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import av.logging
import numpy as np
from numpy.typing import NDArray

from repsr_cli.video.image_sequence import is_pattern
from repsr_cli.video.matroska import ebml_length
from repsr_cli.video.probe import VideoSource

# The boxes of a whole file that hold images, sound or their index; ISO/IEC 14496-12 and the QuickTime File Format.
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"meta", b"imda"})
# Messages about times, which say nothing of packets that are missing.
_ABOUT_TIMES = re.compile(
    r"discontinu|non[- ]?monoton|non-increasing|out of order|[dp]ts\b.*(invalid|unset|nopts)|(invalid|unset).*[dp]ts\b"
    r"|timestamps? (are|is) (unset|missing|wrong)|no timestamp",
    re.IGNORECASE,
)


TORN = re.compile(r"Packet corrupt \(stream = (\d+), dts = (-?\w+)\)")


def promised(source: VideoSource, names: set[str]) -> int:
    """The number of packets of its video according to a file; 0 if it gives none."""
    if "avi" in names:  # the header also counts frames that were dropped while recording
        return indexed(source.path, source.index) or source.frames or 0
    return source.frames or 0 if "mp4" in names else 0


def is_loss(severity: int, message: str, index: int, ends: Collection[int]) -> bool:
    """Whether a demuxer's message means that packets of the video are lost; some demuxers only warn.

    Args:
        index: the stream of the video.
        ends: decoding times of the last packets of each recording in the file; these may be incomplete.
    """
    torn = TORN.match(message)
    if torn is not None:
        # Packets without a time are counted by their own flags.
        return int(torn[1]) == index and torn[2] not in ("NOPTS", *map(str, ends))
    if _ABOUT_TIMES.search(message):
        return False
    return severity <= av.logging.ERROR or "exceeds containing master element" in message


def shortened(path: Path) -> str | None:
    """In what way a file is shorter than its own structure says; None if it is not, or if its format is unknown.

    Knows MP4 and QuickTime, Matroska and WebM, and AVI.
    """
    if is_pattern(path):
        return None
    size, whole = path.stat().st_size, 0
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _boxes_cut_off(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            at = 4 + sum(ebml_length(head, 4))
            if head[at : at + 4] == b"\x18\x53\x80\x67":
                length, width = ebml_length(head, at + 4)
                unknown = length == 2 ** (7 * width) - 1
                whole = 0 if unknown else at + 4 + width + length
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            length = struct.unpack("<I", head[4:8])[0]
            whole = length + 8 if length else 0
    return f"it should be {whole} bytes long, but has {size}" if whole > size else None


def only_joined(path: Path) -> bool:
    """Whether the counters of a transport stream break only where recordings were joined: nothing is lost there.

    At a join the packet before fills up what its image leaves of it, a table of programs comes between, and the packet
    after begins an image.

    Source: ISO/IEC 13818-1, 2.4.3.3 (continuity_counter) and 2.4.3.5 (adaptation field).
    """
    data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
    for length, sync in ((188, 0), (192, 4), (204, 0)):
        rows = data[: len(data) // length * length].reshape(-1, length)[:, sync : sync + 188]
        if len(rows) and np.all(rows[:, 0] == 0x47):
            break
    else:
        return False
    if np.any(rows[:, 1] & 0x80):  # the receiver saw errors
        return False
    pids = (rows[:, 1].astype(np.uint16) << 8 | rows[:, 2]) & 0x1FFF
    payload, fills, begins = (rows[:, 3] & 0x10 != 0), (rows[:, 3] & 0x20 != 0), (rows[:, 1] & 0x40 != 0)
    tables = np.flatnonzero(pids == 0)
    for pid in np.unique(pids):
        own = np.flatnonzero((pids == pid) & payload)
        if pid == 0x1FFF or not _holds_images_or_sound(rows[own[begins[own]][:1]]):
            continue
        counts = rows[own, 3] & 0x0F
        steps = (counts[1:] - counts[:-1]) & 0x0F
        breaks = np.flatnonzero((steps != 1) & (steps != 0))
        before, after = own[breaks], own[breaks + 1]
        between = np.searchsorted(tables, after) > np.searchsorted(tables, before)
        if not np.all(fills[before] & begins[after] & between):
            return False
    return True


def _holds_images_or_sound(rows: NDArray[np.uint8]) -> bool:
    """Whether the first packet of a transport stream's row begins a packet of an elementary stream, not a table."""
    for row in rows:
        at = 4 + (1 + int(row[4]) if row[3] & 0x20 else 0)
        return bytes(row[at : at + 3]) == b"\0\0\1"
    return False


def _boxes_cut_off(file: BinaryIO, size: int) -> str | None:
    """Which box of an MP4 or QuickTime file reaches beyond its end; None if none does.

    Cameras append data of their own, which is not boxes: what follows after the index and the samples is not checked.
    """
    at = 0
    seen: set[bytes] = set()
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            extended = file.read(8)
            length = struct.unpack(">Q", extended)[0] if len(extended) == 8 else size + 1
        if length == 0:
            return None
        if length < 8 or at + length > size:
            if kind not in _BOXES and {b"moov", b"mdat"} <= seen:
                return None
            name = kind.decode("latin-1")
            return f"its part {name!r} should reach byte {at + length}, the file ends at {size}"
        seen.add(kind)
        at += length
    return None


def out_of_step(path: Path) -> str | None:
    """Where a transport stream loses packet alignment, or an image does not begin as one; None if nowhere.

    Demultiplexers skip to the next packet silently. A stream that is not aligned from its first byte on is not checked.

    Source: ISO/IEC 13818-1, 2.4.3.2 (188 bytes, the first is 0x47) and 2.4.3.6 (00 00 01 begins a packet of an
    elementary stream); 192 bytes with the time code of Blu-ray before them, 204 with parity behind.
    """
    data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
    for length, sync in ((188, 0), (192, 4), (204, 0)):
        marks = data[sync::length] == 0x47
        if marks[:4].all() or 2 * np.count_nonzero(marks) > len(marks):
            break
    else:
        return None
    if not marks.all():
        return f"the packet at byte {int(marks.argmin()) * length} does not begin as one"
    if len(data) % length:
        return f"it ends within a packet, at byte {len(data)}"
    rows = data.reshape(-1, length)[:, sync : sync + 188]
    begins = np.flatnonzero((rows[:, 1] & 0x40 != 0) & (rows[:, 3] & 0x10 != 0))
    offset = 4 + np.where(rows[begins, 3] & 0x20 != 0, 1 + rows[begins, 4].astype(np.intp), 0)
    begins, offset = begins[offset <= 185], offset[offset <= 185]
    whole = np.all([rows[begins, offset + n] == byte for n, byte in enumerate((0, 0, 1))], axis=0)
    streams = rows[begins, 1].astype(np.intp) << 8 & 0x1F00 | rows[begins, 2]
    for stream in np.unique(streams[whole]):
        own = begins[streams == stream], whole[streams == stream]
        if own[1].mean() > 0.5 and not own[1].all():
            at = int(own[0][own[1].argmin()]) * length
            return f"the packet at byte {at} does not begin an image or a sound as the others do"
    return None


def indexed(path: Path, number: int) -> int:
    """Packets of a stream that the first index of an AVI file lists, without dropped frames; 0 if there is no index.

    Source: Microsoft, AVI RIFF file reference (idx1: four bytes each of name, flags, place, size).
    """
    with path.open("rb") as file:
        at, end = 12, path.stat().st_size
        while at + 8 <= end:
            file.seek(at)
            kind, size = struct.unpack("<4sI", file.read(8))
            if kind == b"idx1":
                listed = file.read(size)
                entries = np.frombuffer(listed[: len(listed) // 16 * 16], "S4, <u4, <u4, <u4")
                own = np.char.startswith(entries["f0"], b"%02d" % number)
                return int(np.count_nonzero(own & (entries["f3"] > 0)))
            at += 8 + size + size % 2
    return 0
