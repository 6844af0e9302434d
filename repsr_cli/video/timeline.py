"""Read from a video's packets when its frames are shown, without decoding them.

This tells how many frames there should be, where segments can be cut, and whether decoding lost a frame.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av.logging
from av.packet import Packet
from av.stream import Stream

from repsr_cli.video.copy_times import descends
from repsr_cli.video.integrity import is_loss, out_of_step, promised, shortened
from repsr_cli.video.open import main_stream, open_video, translated
from repsr_cli.video.probe import VideoSource

# A segment is cut at the first keyframe after this many frames, or without a keyframe at twice as many: enough to keep
# the cost for the encoder negligible, few enough to lose little in a power cut.
SEGMENT_FRAMES = 120


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times and sizes of a video's packets.

    Attributes:
        pts: presentation times of its frames in units of the stream's time base, ascending, without repeats.
        keys: presentation times of its keyframes.
        packets: number of packets of every stream, by index.
        nbytes: bytes in the packets of every stream, by index.
        begin: presentation time in seconds of the first packet of any stream.
        damage: the first sign of damage; None if there is none.
        digest: of all packets, with their streams and times.
        unordered: streams whose packets' times do not ascend, or are missing.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    packets: dict[int, int]
    nbytes: dict[int, int]
    begin: Fraction
    damage: str | None
    digest: str = ""
    unordered: frozenset[int] = frozenset()

    def between(self, first: int, last: int) -> tuple[int, ...]:
        """Times strictly between two others."""
        return self.pts[bisect_right(self.pts, first) : bisect_left(self.pts, last)]

    def after(self, pts: int) -> int | None:
        """The next time."""
        place = bisect_right(self.pts, pts)
        return self.pts[place] if place < len(self.pts) else None

    def roll(self, pts: int) -> int:
        """The keyframe from which to decode so that the frame at ``pts`` is the same as when decoding everything.

        That is the second to last keyframe before it: in an open group, frames around a keyframe may depend on the
        group before.
        """
        place = bisect_right(self.keys, pts) - 2
        return self.keys[place] if place >= 0 else self.pts[0]

    def targets(self, pts: int) -> tuple[int, ...]:
        """Keyframes to seek to for the frame at ``pts``, the most promising first."""
        place = bisect_right(self.keys, self.roll(pts))
        return self.keys[max(0, place - 3) : place][::-1]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of frames: the unit of work.

    Attributes:
        index: its number, from 0.
        first: timestamp of its first frame.
        end: timestamp of the first frame after it; None for the last segment.
        frames: number of frames.
    """

    index: int
    first: int
    end: int | None
    frames: int


@dataclass(slots=True)
class _Tally:
    """What is counted of all packets of a file; the names are those of ``Timeline``."""

    packets: dict[int, int] = field(default_factory=dict)
    nbytes: dict[int, int] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)
    unordered: set[int] = field(default_factory=set)
    latest: dict[int, int] = field(default_factory=dict)

    def add(self, packet: Packet[Stream]) -> None:
        """Count a packet."""
        index = packet.stream_index
        self.packets[index] = self.packets.get(index, 0) + 1
        self.nbytes[index] = self.nbytes.get(index, 0) + packet.size
        self.digest.update(f"{index} {packet.pts} {packet.dts} {packet.size} ".encode())
        self.digest.update(memoryview(packet))
        if descends(self.latest, packet):
            self.unordered.add(index)


def scan(source: VideoSource) -> Timeline:
    """Read all packets of a video.

    Raises:
        MediaError: the file cannot be read.
    """
    shown: set[int] = set()
    keys: set[int] = set()
    tally = _Tally()
    begins: dict[int, Fraction] = {}
    torn: list[int | None] = []
    last_dts: int | None = None
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with translated(source.path), av.logging.Capture() as log, open_video(source.path) as container:
            stream = main_stream(container, source.path)
            names = set(container.format.name.split(",")) | {container.format.name}
            expected = promised(source, names)
            for packet in container.demux():
                if not packet.size:
                    continue
                index = packet.stream_index
                tally.add(packet)
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
    logged = [(severity, message.strip()) for severity, name, message in log if name in names]
    complaints = [message for severity, message in logged if is_loss(severity, message, source.index, last_dts)]
    damage = complaints[0] if complaints else shortened(source.path)
    if torn and damage is None:
        damage = f"{len(torn)} packets of its video are corrupt"
    if tally.packets.get(source.index, 0) < expected and damage is None:
        damage = f"{tally.packets.get(source.index, 0)} of {expected} frames are there"
    if "mpegts" in names and damage is None:
        damage = out_of_step(source.path)
    begin = min(begins.values(), default=Fraction(0))
    return Timeline(
        pts=tuple(sorted(shown)),
        keys=tuple(sorted(keys & shown)),
        packets=tally.packets,
        nbytes=tally.nbytes,
        begin=begin,
        damage=damage,
        digest=tally.digest.hexdigest()[:32],
        unordered=frozenset(tally.unordered),
    )


def is_shown(packet: Packet[Stream], codec: str) -> bool:
    """Whether a packet contains a frame to show: VP8 and VP9 have frames that serve for prediction only.

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


def cut(timeline: Timeline, first: int, end: int | None, frames: int = SEGMENT_FRAMES) -> tuple[Segment, ...]:
    """Cut part of a video into segments, at keyframes where these are near.

    Args:
        timeline: of the video.
        first: timestamp of the first frame.
        end: timestamp of the frame after the last; None: to the end.
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
            # A few frames at the end do not justify an encoder of their own.
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
