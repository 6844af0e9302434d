"""Cut a video into chunks of compressed packets that can be decoded without the file.

A chunk begins at the keyframe from which its first frame is decoded as it is from the beginning (``Timeline.roll``),
and ends where its last frame is complete. Together with the settings of the decoder nothing else is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from repsr_cli.errors import MediaError
from repsr_cli.video.clock import numbered
from repsr_cli.video.decode import decoded
from repsr_cli.video.open import decoder_settings, main_stream, new_decoder, translated
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Segment, Timeline

# Side data that decoders need and PyAV cannot attach to a packet.
_NEEDED = ("new_extradata", "palette", "param_change")


@dataclass(frozen=True, slots=True)
class SourcePacket:
    """A packet as read: bytes, times in the stream's time base, flags."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int | None
    key: bool
    corrupt: bool
    discard: bool


@dataclass(frozen=True, slots=True)
class PacketChunk:
    """Everything that is needed to decode some consecutive segments.

    Attributes:
        codec: FFmpeg's name of the decoder.
        settings: its settings, from the container.
        time_base: seconds per unit of the packets' times.
        head: the stream's first packet, which some decoders need; None if ``packets`` begin there.
        packets: in the order of decoding.
    """

    segments: tuple[Segment, ...]
    codec: str
    settings: dict[str, Any]
    time_base: Fraction
    head: SourcePacket | None
    packets: tuple[SourcePacket, ...]

    @property
    def whole(self) -> bool:
        """Whether the packets begin at the start of the video."""
        return self.head is None

    @property
    def nbytes(self) -> int:
        """Bytes in the packets."""
        return sum(len(packet.data) for packet in self.packets)


def chunks(
    source: VideoSource, timeline: Timeline, groups: Sequence[tuple[Segment, ...]], whole: bool = False
) -> Iterator[PacketChunk]:
    """Read a video once, from the beginning, and yield a chunk for each group of segments.

    Args:
        groups: consecutive segments each, in order.
        whole: begin every chunk at the start of the video, for videos that cannot be decoded from keyframes.

    Raises:
        MediaError: the file cannot be read, or its packets cannot be sent.
    """
    starts: dict[tuple[Segment, ...], int | None] = {}
    for group in groups:
        start = timeline.roll(group[0].first)
        starts[group] = None if whole or start <= timeline.pts[0] else start
    waiting = deque(groups)
    held: list[SourcePacket] = []
    head: SourcePacket | None = None
    with translated(source.path), source.open() as container:
        stream = main_stream(container, source.path)
        codec, settings = stream.codec_context.codec.name, decoder_settings(stream.codec_context)
        time_base = Fraction(stream.time_base or source.time_base)

        def wrapped() -> PacketChunk:
            group = waiting.popleft()
            at = _place(held, starts[group])
            first = None if held[at] is head else head
            return PacketChunk(group, codec, settings, time_base, first, tuple(held[at:]))

        missing = _wanted(timeline, waiting)
        for packet in numbered(container.demux(stream), timeline.clock):
            if not waiting:
                return
            if not packet.size and packet.dts is None:
                break  # the end
            kept = _packet(packet, source)
            end = waiting[0][-1].end
            while end is not None and not missing and kept.pts is not None and kept.pts >= end:
                yield wrapped()
                if not waiting:
                    return
                del held[: _place(held, starts[waiting[0]])]
                missing = _wanted(timeline, waiting) - {each.pts for each in held}
                end = waiting[0][-1].end
            head = head or kept
            held.append(kept)
            missing.discard(kept.pts)
            if len(held) > 1 and kept.key:
                del held[: _place(held, starts[waiting[0]])]
    while waiting:
        yield wrapped()


def images(chunk: PacketChunk) -> Iterator[VideoFrame | None]:
    """Decode a chunk; None stands for an error of the decoder."""
    context = new_decoder(chunk.codec, chunk.settings)
    if chunk.head is not None:
        with translated("the first packet"):
            for packet in (_restored(chunk.head, chunk.time_base), None):
                context.decode(packet)
            context.flush_buffers()
    # Frames that an edit list cuts off: PyAV can read the flag of their packets, but not set it.
    unseen = {packet.pts for packet in chunk.packets if packet.discard}
    packets = chain((_restored(each, chunk.time_base) for each in chunk.packets), (None,))
    yield from (image for image in decoded(context, packets) if image is None or image.pts not in unseen)


def _packet(packet: Packet[Any], source: VideoSource) -> SourcePacket:
    if any(packet.has_sidedata(kind) for kind in _NEEDED):  # type: ignore[arg-type]
        at = float((packet.pts or 0) * source.time_base)
        happened = f"the settings of its decoder change at {at:.3f} s, which cannot be sent to workers"
        raise MediaError(source.path, happened, "Run it without --ray.")
    return SourcePacket(
        bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe, packet.is_corrupt, packet.is_discard
    )


def _restored(each: SourcePacket, time_base: Fraction) -> Packet[Stream]:
    # Created by size and then filled, because only then PyAV adds the zero padding that decoders may read.
    packet: Packet[Stream] = Packet(len(each.data)) if each.data else Packet()
    if each.data:
        packet.update(each.data)
    packet.time_base = time_base
    packet.pts, packet.dts, packet.duration = each.pts, each.dts, each.duration
    packet.is_keyframe, packet.is_corrupt = each.key, each.corrupt
    return packet


def _wanted(timeline: Timeline, waiting: deque[tuple[Segment, ...]]) -> set[int | None]:
    """Times of the frames of the next group."""
    if not waiting:
        return set()
    first, end = waiting[0][0].first, waiting[0][-1].end
    return set(timeline.between(first - 1, end if end is not None else timeline.pts[-1] + 1))


def _place(held: Sequence[SourcePacket], pts: int | None) -> int:
    """The position of the packet with a time; 0 if it has not been read yet, and for None (the beginning)."""
    if pts is None:
        return 0
    return next((place for place, packet in enumerate(held) if packet.pts == pts), 0)
