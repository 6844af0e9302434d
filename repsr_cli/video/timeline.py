"""Read from a video's packets when its frames are shown, without decoding them.

This tells how many frames there should be, where segments can be cut, and whether decoding lost a frame.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from repsr_cli.errors import MediaError
from repsr_cli.video.clock import (
    RAW,
    Clock,
    Jump,
    Order,
    PacketTimes,
    Reading,
    StreamJump,
    jumps_back,
    numbered,
    ordered_clock,
    read_clock,
    shifts_of,
)
from repsr_cli.video.copy_times import descends
from repsr_cli.video.integrity import TORN, is_loss, only_joined, out_of_step, promised, shortened
from repsr_cli.video.open import Probing, logged, main_stream, open_video, translated
from repsr_cli.video.probe import VideoSource, describe_streams, probe

# A segment is cut at the first keyframe after this many frames, or without a keyframe at twice as many: enough to keep
# the cost for the encoder negligible, few enough to lose little in a power cut.
SEGMENT_FRAMES = 120

# Frames to look at for B-frames: more than decoders hold back.
_ORDER_FRAMES = 40
# How far to look for streams that begin late, step by step; the packets up to there are held in memory.
_PROBINGS = (Probing(32 << 20, 60), Probing(128 << 20, 600), Probing(1 << 30, 36000))
# Frames per second beyond which FFmpeg may have taken a unit of time for a frame, where few frames were found in time.
_FASTEST = 1000
# A frame of MPEG-4 that only says "as before" has no more bytes than this.
_EMPTY_FRAME = 19
_UNORDERED = "the file has no presentation times: its frames take the times of its packets in turn"


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
        digest: of all packets, with their streams and times, and of the decoder's settings beside them.
        unordered: streams whose packets' times do not ascend, or are missing.
        clock: the times of its frames, where those that are stored are not right; ``pts`` and ``keys`` are by it.
        shifts: by stream, how copied streams are moved as the video's clock is: (number of the first packet, seconds).
        notes: what was done about the times, a sentence each.
        moved: the times by the clock of packets, by those that are stored.
        ends: times of frames before which, or before whose next, another recording begins.
        late: streams that begin so late that they were not found when the file was opened, or not what they contain:
            (how many there are in all, indices of those without contents); None if there are none.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    packets: dict[int, int]
    nbytes: dict[int, int]
    begin: Fraction
    damage: str | None
    digest: str = ""
    unordered: frozenset[int] = frozenset()
    clock: Clock | None = None
    shifts: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    late: tuple[int, frozenset[int]] | None = None
    moved: Mapping[int, int] = field(default_factory=dict, repr=False)
    ends: frozenset[int] = frozenset()

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
    """

    index: int
    first: int
    end: int | None
    frames: int


def read_video(
    path: Path, matrix: str | None = None, full_range: bool | None = None, rate: Fraction | None = None
) -> tuple[VideoSource, Timeline]:
    """Describe a video and read its packets, as far into the file as it takes to find all its streams.

    Raises:
        MediaError: the file is missing, not a video or cannot be read.
    """
    source = probe(path, matrix, full_range, rate)
    timeline = scan(source)
    if timeline.late is not None:
        source = probe(path, matrix, full_range, rate, _probing(path, *timeline.late))
        timeline = scan(source)
    return timed(source, timeline), timeline


def _probing(path: Path, count: int, unready: frozenset[int]) -> Probing:
    """How far to read a file to find all its streams.

    Args:
        unready: indices of those of which only packets tell what they contain. Scrambled ones never do.
    """
    for probing in _PROBINGS:
        with open_video(path, probing) as container:
            streams = container.streams
            ready = all(is_ready(streams[index]) for index in unready)
            if len(streams) >= count and (ready or container.size <= probing.nbytes or probing == _PROBINGS[-1]):
                return probing
    happened = f"a stream of it begins after more than {_PROBINGS[-1].nbytes / 1e9:.0f} GB"
    raise MediaError(path, happened, "Remux it first: ffmpeg -i IN -map 0 -c copy OUT.mkv")


def timed(source: VideoSource, timeline: Timeline) -> VideoSource:
    """A video as described, with its first time and its rate by the clock of its timeline."""
    clock = timeline.clock
    steps = [b - a for a, b in pairwise(timeline.pts)]
    found = 1 / (median_low(steps) * source.time_base) if steps else source.rate
    if source.rate and found and source.rate > _FASTEST and source.rate > 10 * found:
        source = replace(source, rate=found)
    if clock is None or not timeline.pts:
        return source
    if not clock.by_order:
        # The first frame that decodes is that of the first packet with its time.
        return replace(source, start=timeline.moved.get(source.start, source.start))
    return replace(source, start=timeline.pts[0], rate=found)


class _Packets:
    """What is read of a video's packets.

    Args:
        stream: the stream that is upscaled.
    """

    def __init__(self, source: VideoSource, container: InputContainer, stream: VideoStream) -> None:
        self.counts: dict[int, int] = {}
        self.nbytes: dict[int, int] = {}
        self.video: list[PacketTimes] = []
        self.torn: set[int] = set()
        self.digest = hashlib.sha256(stream.codec_context.extradata or b"")
        self.unordered: set[int] = set()
        self._latest: dict[int, int] = {}
        self._source, self._stream = source, stream
        self._unready = {each.index for each in container.streams if not is_ready(each)}
        self._is_shown = shown_by(source.codec)
        self._stamps: dict[int, Fraction] = {}
        self._begins: dict[int, Fraction] = {}
        # Packets that every stream had, by the number of a packet of the video.
        self._marks: dict[int, dict[int, int]] = {}
        self._jumps: dict[int, list[StreamJump]] = {}

    def add(self, packet: Packet[Any]) -> None:
        """Take in the next packet of the file."""
        index = packet.stream_index
        self.digest.update(f"{index} {packet.pts} {packet.dts} {packet.size} ".encode())
        self.digest.update(memoryview(packet))
        if descends(self._latest, packet):
            self.unordered.add(index)
        if index == self._stream.index:
            self._mark(packet)
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None:
            self._follow(index, stamp * Fraction(packet.time_base))
        if index == self._stream.index:
            shown = self._is_shown(packet) and not packet.is_discard
            self.video.append(PacketTimes(packet.pts, packet.dts, packet.is_keyframe, shown))
            if packet.is_corrupt:
                self.torn.add(len(self.video) - 1)
        self.counts[index] = self.counts.get(index, 0) + 1
        self.nbytes[index] = self.nbytes.get(index, 0) + packet.size
        if packet.pts is not None:
            shown_at = packet.pts * Fraction(packet.time_base)
            self._begins[index] = min(self._begins.get(index, shown_at), shown_at)

    def _follow(self, index: int, stamp: Fraction) -> None:
        """Notice where the clock of a stream jumps."""
        last = self._stamps.get(index)
        self._stamps[index] = stamp
        if index != self._stream.index and last is not None and jumps_back(last, stamp, self._source.container):
            jump = StreamJump(self.counts.get(index, 0), len(self.video), stamp - last)
            self._jumps.setdefault(index, []).append(jump)

    def _mark(self, packet: Packet[Any]) -> None:
        """Remember where every stream was at a packet of the video at which its clock may begin again."""
        last = self._stamps.get(self._stream.index)
        if last is None or packet.dts is None:
            return
        stamp = packet.dts * Fraction(packet.time_base)
        if stamp == last or jumps_back(last, stamp, self._source.container):
            self._marks[len(self.video)] = dict(self.counts)

    def late(self, container: InputContainer) -> tuple[int, frozenset[int]] | None:
        """As ``Timeline`` has it, once all packets are read. Only FFmpeg's description has the streams found since."""
        count = sum(line.strip().startswith("Stream #0:") for line in describe_streams(container).splitlines())
        unready = frozenset(index for index in self._unready if self.counts.get(index))
        return (count, unready) if count > len(container.streams) or unready else None

    def reading(self) -> Reading:
        """The times of the video, as they are or corrected."""
        source, packets = self._source, self.video
        if source.container in RAW:
            shown = sum(packet.shown for packet in packets)
            return Reading(ordered_clock(packets, source.codec, range(shown)))
        if self._is_unordered():
            timeless = all(packet.pts is None and packet.dts is None for packet in packets)
            step = source.frame_seconds / source.time_base
            times = [round(n * step) for n in range(sum(packet.shown for packet in packets))] if timeless else None
            return Reading(ordered_clock(packets, source.codec, times), notes=(_UNORDERED,))
        order = Order(self._stream.codec_context.reorder_depth, lambda: list(order_of_showing(source)))
        return read_clock(packets, source.codec, source.container, source.time_base, order)

    def _is_unordered(self) -> bool:
        """Whether the presentation times are missing, or made up in the order of decoding."""
        if getattr(self._is_shown, "packed", False):
            return True
        shown = [packet.pts for packet in self.video if packet.shown]
        times = [pts for pts in shown if pts is not None]
        if not times:
            return bool(shown)
        if len(times) < len(shown) or any(b <= a for a, b in pairwise(times)):
            return False
        if not self._stream.codec_context.reorder_depth:
            return False
        return self._source.container == "avi" or is_reordered(self._source)

    def shifts(self, jumps: tuple[Jump, ...]) -> dict[int, tuple[tuple[int, Fraction], ...]]:
        """By how much the other streams are moved."""
        if not self._marks:
            return {}
        boundaries = [self._marks[min(self._marks, key=lambda number: abs(number - at.packet))] for at in jumps]
        moved = shifts_of(jumps, boundaries, self._jumps)
        return {index: shift for index, shift in moved.items() if index != self._stream.index}

    def begin(self, first: Fraction | None) -> Fraction:
        """The presentation time of the first packet of any stream.

        Args:
            first: that of the video, where its times were corrected.
        """
        begins = self._begins if first is None else {**self._begins, self._stream.index: first}
        return min(begins.values(), default=Fraction(0))


def scan(source: VideoSource) -> Timeline:
    """Read all packets of a video."""
    with translated(source.path), logged(av.logging.WARNING) as log, source.open() as container:
        stream = main_stream(container, source.path)
        names = set(container.format.name.split(",")) | {container.format.name}
        packets = _Packets(source, container, stream)
        for packet in _all(container):
            if packet.size:
                packets.add(packet)
        late = packets.late(container)
    reading = packets.reading()
    messages = [(severity, message.strip()) for severity, name, message in log if name in names]
    # A parser may hand on the packet before the last with the flags of the last.
    ends = [jump.packet - back for jump in reading.jumps for back in (1, 2) if jump.packet >= back]
    known = [packet.dts for packet in packets.video if packet.dts is not None][-1:]
    known += [dts for dts in (packets.video[end].dts for end in ends) if dts is not None]
    complaints = [message for severity, message in messages if is_loss(severity, message, source.index, known)]
    packets.torn -= set(ends)
    if (packets.torn or complaints) and source.container == "mpegts" and only_joined(source.path):
        complaints = [message for message in complaints if not TORN.match(message)]
        ends += packets.torn
        packets.torn = set()
    return _timeline(source, packets, reading, _damage(source, names, packets, complaints), late, ends)


def _damage(source: VideoSource, names: set[str], packets: _Packets, complaints: list[str]) -> str | None:
    """The first sign of damage."""
    if complaints:
        return complaints[0]
    if (damage := shortened(source.path)) is not None:
        return damage
    if packets.torn:
        return f"{len(packets.torn)} packets of its video are corrupt"
    found, expected = packets.counts.get(source.index, 0), promised(source, names)
    if found < expected:
        return f"{found} of {expected} frames are there"
    return out_of_step(source.path) if "mpegts" in names else None


def _timeline(
    source: VideoSource,
    packets: _Packets,
    reading: Reading,
    damage: str | None,
    late: tuple[int, frozenset[int]] | None,
    ends: Sequence[int],
) -> Timeline:
    """A timeline of packets, by the clock that was read from them."""
    clock = reading.clock
    times: Sequence[int | None]
    times = [packet.pts if packet.shown else None for packet in packets.video] if clock is None else clock.times
    pts = tuple(sorted({time for time in times if time is not None}))
    keys: set[int] = set()
    moved: dict[int, int] = {}
    if clock is None or not clock.by_order:
        for packet, time in zip(packets.video, times, strict=True):
            if time is None:
                continue
            if packet.key:
                keys.add(time)
            if clock is not None and packet.pts is not None:
                moved.setdefault(packet.pts, time)
    begin = packets.begin(pts[0] * source.time_base if clock is not None and pts else None)
    return Timeline(
        pts=pts,
        keys=tuple(sorted(keys)),
        packets=packets.counts,
        nbytes=packets.nbytes,
        begin=begin,
        damage=damage,
        digest=packets.digest.hexdigest()[:32],
        unordered=frozenset(packets.unordered),
        clock=clock,
        shifts=packets.shifts(reading.jumps),
        notes=reading.notes,
        ends=frozenset(time for end in ends if (time := times[end]) is not None),
        moved=moved,
        late=late,
    )


def _all(container: InputContainer) -> Iterator[Packet[Any]]:
    """The packets of all streams that were there when a file was opened."""
    packets = container.demux()
    while True:
        try:
            yield next(packets)
        except (StopIteration, IndexError):  # PyAV's end of a file in which streams have appeared
            return


def is_reordered(source: VideoSource) -> bool:
    """Whether the first frames of a video are shown in another order than they are decoded."""
    return any(b < a for a, b in pairwise(order_of_showing(source, _ORDER_FRAMES)))


def order_of_showing(source: VideoSource, packets: int | None = None) -> Iterator[int]:
    """The numbers of a video's packets in the order in which their frames are shown, by decoding them.

    Args:
        packets: how many to read; None: all.
    """
    with translated(source.path), source.open() as container:
        stream = main_stream(container, source.path)
        for number, packet in enumerate(islice(numbered(container.demux(stream), None), packets)):
            packet.pts = number
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError:
                continue
            yield from (frame.pts for frame in frames if frame.pts is not None)


def is_ready(stream: Any) -> bool:
    """Whether FFmpeg has found out what a stream's sound or images are."""
    context = stream.codec_context
    if context is None or stream.type not in ("audio", "video"):
        return True
    known = (context.sample_rate, context.channels) if stream.type == "audio" else (context.width, context.height)
    return all(known)


def shown_by(codec: str) -> Callable[[Packet[Any]], bool]:
    """A function that says of each packet in turn whether a frame is shown for it."""
    return PackedFrames() if codec == "mpeg4" else lambda packet: is_shown(packet, codec)


class PackedFrames:
    """Says of each packet of MPEG-4 Part 2 whether a frame is shown for it.

    In AVI, a B-frame may be packed into the packet before; then a packet with an empty frame follows, whose time is
    that of one of the two.

    Attributes:
        packed: whether there was such a packet.
    """

    def __init__(self) -> None:
        self.packed = False
        self._extra = 0

    def __call__(self, packet: Packet[Any]) -> bool:
        """Whether a frame is shown for the next packet."""
        frames = bytes(packet).count(b"\x00\x00\x01\xb6")
        if frames > 1:
            self.packed = True
            self._extra += frames - 1
        elif frames == 1 and packet.size <= _EMPTY_FRAME and self.packed:
            if not self._extra:
                return False
            self._extra -= 1
        return True


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
