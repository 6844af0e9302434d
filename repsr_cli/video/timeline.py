"""When the frames of a video are shown, read from its packets without decoding any.

This is what a video *should* give: the count for a progress bar, the places where segments are cut, and the check that
decoding lost nothing on the way.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.logging
import numpy as np
from av.packet import Packet
from av.stream import Stream
from numpy.typing import NDArray

from repsr_cli.video.image_sequence import is_pattern
from repsr_cli.video.probe import VideoSource, main_stream, open_video, translated

# A segment is cut at the first keyframe after this many frames, and without one at twice as many: enough for an encoder
# not to notice the seam, few enough not to lose much to a power cut.
SEGMENT_FRAMES = 120


@dataclass(frozen=True, slots=True)
class Timeline:
    """A video's packets, counted.

    Attributes:
        pts: presentation times of its frames in units of the stream's time base, ascending, without repeats.
        keys: those of its keyframes.
        packets: number of packets of every stream, by index.
        nbytes: their bytes.
        begin: seconds at which the first packet of any stream is shown.
        damage: what the demuxer complained about first; None if nothing.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    packets: dict[int, int]
    nbytes: dict[int, int]
    begin: Fraction
    damage: str | None

    def between(self, first: int, last: int) -> tuple[int, ...]:
        """Times strictly between two others."""
        return self.pts[bisect_right(self.pts, first) : bisect_left(self.pts, last)]

    def after(self, pts: int) -> int | None:
        """The next time."""
        place = bisect_right(self.pts, pts)
        return self.pts[place] if place < len(self.pts) else None

    def roll(self, pts: int) -> int:
        """The keyframe from which to decode so that the frame at ``pts`` comes out as it does from the beginning.

        That is the one before the last one that is not later: the frames around a keyframe in an open group may lean on
        the group before.
        """
        place = bisect_right(self.keys, pts) - 2
        return self.keys[place] if place >= 0 else self.pts[0]

    def targets(self, pts: int) -> tuple[int, ...]:
        """Keyframes to seek to on the way to the frame at ``pts``, the likeliest first."""
        place = bisect_right(self.keys, self.roll(pts))
        return self.keys[max(0, place - 3) : place][::-1]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of frames: the unit of work.

    Attributes:
        index: its number, from 0.
        first: timestamp of its first frame.
        end: timestamp of the first frame that is no longer in it; None for the last one.
        frames: how many the timeline promises.
    """

    index: int
    first: int
    end: int | None
    frames: int


def scan(source: VideoSource) -> Timeline:
    """Read all packets of a video.

    Raises:
        MediaError: the file cannot be read.
    """
    shown: set[int] = set()
    keys: set[int] = set()
    packets: dict[int, int] = {}
    nbytes: dict[int, int] = {}
    begins: dict[int, Fraction] = {}
    torn: list[int | None] = []
    last_dts: int | None = None
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with translated(source.path), av.logging.Capture() as log, open_video(source.path) as container:
            stream = main_stream(container, source.path)
            names = set(container.format.name.split(",")) | {container.format.name}
            promised = _promised(source, names)
            for packet in container.demux():
                if not packet.size:
                    continue
                index = packet.stream_index
                packets[index] = packets.get(index, 0) + 1
                nbytes[index] = nbytes.get(index, 0) + packet.size
                if index == stream.index and packet.dts is not None:
                    last_dts = packet.dts
                if index == stream.index and packet.is_corrupt:
                    torn.append(packet.pts)
                if packet.pts is None:
                    continue
                shown_at = packet.pts * Fraction(packet.time_base)
                begins[index] = min(begins.get(index, shown_at), shown_at)
                if index == stream.index and not packet.is_discard:
                    if is_shown(packet, source.codec):
                        shown.add(packet.pts)
                    if packet.is_keyframe:
                        keys.add(packet.pts)
    finally:
        av.logging.set_level(level)
    said = [(severity, message.strip()) for severity, name, message in log if name in names]
    complaints = [message for severity, message in said if _is_loss(severity, message, source.index, last_dts)]
    damage = complaints[0] if complaints else shortened(source.path)
    if torn and damage is None:
        damage = f"{len(torn)} packets of its video were torn on the way"
    if packets.get(source.index, 0) < promised and damage is None:
        damage = f"{packets.get(source.index, 0)} of {promised} frames are there"
    if "mpegts" in names and damage is None:
        damage = out_of_step(source.path)
    begin = min(begins.values(), default=Fraction(0))
    return Timeline(tuple(sorted(shown)), tuple(sorted(keys & shown)), packets, nbytes, begin, damage)


def _promised(source: VideoSource, names: set[str]) -> int:
    """How many packets of its video a file says that it has; 0 where it does not say."""
    if "avi" in names:  # its header counts frames that were dropped while recording too
        return indexed(source.path, source.index) or source.frames or 0
    return source.frames or 0 if "mp4" in names else 0


def _is_loss(severity: int, message: str, index: int, last_dts: int | None) -> bool:
    """Whether a demuxer says that packets of the video are lost: some skip what does not fit with a warning only.

    Args:
        severity: of the message, as libav counts it.
        message: what was said.
        index: the stream of the video.
        last_dts: of its last packet: every recording of a broadcast cuts that one off.
    """
    torn = re.match(r"Packet corrupt \(stream = (\d+), dts = (-?\w+)\)", message)
    if torn is not None:
        return int(torn[1]) == index and torn[2] != str(last_dts)
    return severity <= av.logging.ERROR or "exceeds containing master element" in message


def is_shown(packet: Packet[Stream], codec: str) -> bool:
    """Whether a packet gives a frame to show: VP8 and VP9 have frames that others are only predicted from.

    Source: RFC 6386 section 9.1; VP9 bitstream specification, uncompressed header and annex B (superframes).
    """
    if codec not in ("vp8", "vp9"):
        return True
    data = bytes(memoryview(packet)[:1])
    if not data:
        return False
    first = data[0]
    if codec == "vp8":
        return bool(first >> 4 & 1)
    if bytes(memoryview(packet)[-1:])[0] & 0xE0 == 0xC0:
        return True
    profile = (first >> 5 & 1) | (first >> 4 & 1) << 1
    at = 3 if profile < 3 else 2
    exists, shown = first >> at & 1, first >> (at - 2) & 1
    return bool(exists or shown)


def shortened(path: Path) -> str | None:
    """How a file is shorter than it says itself to be; None if it is not, or does not say.

    Understands what MP4 and QuickTime, Matroska and WebM, and AVI write about the sizes of their parts.
    """
    if is_pattern(path):
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            at = 0
            while at + 8 <= size:
                file.seek(at)
                length, kind = struct.unpack(">I4s", file.read(8))
                if length == 1:
                    extended = file.read(8)
                    length = struct.unpack(">Q", extended)[0] if len(extended) == 8 else size + 1
                if length == 0:
                    return None
                if length < 8 or at + length > size:
                    name = kind.decode("latin-1")
                    return f"its part {name!r} should reach byte {at + length}, the file ends at {size}"
                at += length
            return None
        if head[:4] == b"\x1a\x45\xdf\xa3":
            at = 4 + _ebml_length(head, 4)[1]
            at += _ebml_length(head, 4)[0]
            if head[at : at + 4] == b"\x18\x53\x80\x67":
                length, width = _ebml_length(head, at + 4)
                unknown = length == 2 ** (7 * width) - 1
                if not unknown and at + 4 + width + length > size:
                    return f"it should be {at + 4 + width + length} bytes long, but has {size}"
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            length = struct.unpack("<I", head[4:8])[0]
            if length and length + 8 > size:
                return f"it should be {length + 8} bytes long, but has {size}"
    return None


def out_of_step(path: Path) -> str | None:
    """Where a transport stream leaves the raster of its packets or an image does not begin as one; None if nowhere.

    Demultiplexers go on to the next without a word. A stream that does not lie on a raster from its first byte on is
    not judged.

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
    """Packets of a stream that the (first) index of an AVI file lists, without the places of dropped frames; 0 if none.

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


def _ebml_length(data: bytes, at: int) -> tuple[int, int]:
    """A length of variable width as Matroska writes it: (value, bytes)."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if width > 8 or at + width > len(data):
        return 0, 1
    value = first & (1 << (8 - width)) - 1
    for byte in data[at + 1 : at + width]:
        value = value << 8 | byte
    return value, width


def cut(timeline: Timeline, first: int, end: int | None, frames: int = SEGMENT_FRAMES) -> tuple[Segment, ...]:
    """Cut a stretch of a video into segments, at keyframes where these are near.

    Args:
        timeline: of the video.
        first: timestamp of the first frame wanted.
        end: timestamp of the first frame no longer wanted; None: to the end.
        frames: fewest frames of a segment; without a keyframe it is cut at twice as many.
    """
    times = timeline.pts[bisect_left(timeline.pts, first) :]
    if end is not None:
        times = times[: bisect_left(times, end)]
    if not times:
        return ()
    keys = set(timeline.keys)
    starts: list[int] = []
    count = 0
    for place, pts in enumerate(times):
        if place == 0 or (count >= frames and pts in keys) or count >= 2 * frames:
            # A tail of a few frames is not worth an encoder of its own.
            if place and len(times) - place < frames // 4:
                break
            starts.append(place)
            count = 0
        count += 1
    ends = [*starts[1:], len(times)]
    return tuple(
        Segment(index, times[a], times[b] if b < len(times) else end, b - a)
        for index, (a, b) in enumerate(zip(starts, ends, strict=True))
    )
