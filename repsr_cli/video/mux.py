"""Write the upscaled stream into a file, with a byte-for-byte copy of everything else that the source has.

What becomes of every stream was decided before (``plan_streams``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from repsr_cli.errors import MediaError
from repsr_cli.files import write_bytes
from repsr_cli.video.clock import shift, shifted
from repsr_cli.video.copy_times import Retimer
from repsr_cli.video.encode import EncodedPacket, configure
from repsr_cli.video.encoders import Encoding
from repsr_cli.video.matroska import PLACEHOLDER, write_display_size
from repsr_cli.video.open import open_video, translated
from repsr_cli.video.probe import StreamInfo, VideoSource
from repsr_cli.video.scheduling import usual_scheduling
from repsr_cli.video.timecode import later

# Tags that MP4 has fields for; others need QuickTime metadata keys.
_MP4_TAGS = frozenset(
    {
        "title", "artist", "album_artist", "album", "composer", "date", "comment", "genre", "copyright", "description",
        "synopsis", "lyrics", "show", "episode_id", "network", "grouping", "keywords", "creation_time", "track", "disc",
    }
)  # fmt: skip
_STALE_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
_STALE_STREAM_TAGS = ("ENCODER", "encoder", "DURATION", "BPS", "NUMBER_OF_", "_STATISTICS")
# Text subtitles: the one codec that each container takes.
TEXT_IN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_GLOBAL_HEADER = 0x0040  # AVFMT_GLOBALHEADER
MIME_SUFFIXES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True, slots=True)
class StreamAction:
    """What becomes of one stream.

    Attributes:
        stream: the stream of the source.
        action: what happens to it.
        why: the reason, where it is not obvious.
        loses: whether something is lost that the user must agree to.
        riff: whether it is copied into Matroska as what it is called in RIFF files (``A_MS/ACM``).
        times: (pts, dts) by position, in the source's time base, of packets that are out of order in it.
    """

    stream: StreamInfo
    action: Literal["upscale", "copy", "convert", "attach", "drop"]
    why: str = ""
    loses: bool = False
    riff: bool = False
    times: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.stream}: {self.action}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a source that is kept, and how far it is moved.

    Attributes:
        start: seconds on the source's clock at which it begins.
        end: seconds at which it ends; None: to the end.
        shift: seconds added to every timestamp.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Output:
    """What goes into the file that is written.

    Attributes:
        format: FFmpeg's name of the container.
        window: what is kept of the source.
        shifts: as in ``Timeline``.
    """

    source: VideoSource
    streams: tuple[StreamAction, ...]
    format: str
    encoding: Encoding
    window: Window
    shifts: Mapping[int, tuple[tuple[int, Fraction], ...]] = field(default_factory=dict)

    @property
    def riff(self) -> bool:
        """Whether a stream is copied as what it is called in RIFF files."""
        return any(action.riff for action in self.streams)


def open_output(path: Path, format: str, riff: bool, options: dict[str, str]) -> OutputContainer:
    """Open a file for writing.

    PyAV asks muxers whether they know a codec. Matroska's denies it for those that it stores under their names in RIFF
    files, such as WMA, and then writes them. FFmpeg's tee, which hands everything on to other muxers, has no opinion.
    """
    name = f"file:{path}"
    if riff:
        settings = ":".join(f"{name}={value}" for name, value in {"f": format, **options}.items())
        escaped = re.sub(r"([\\'|])", r"\\\1", name)
        name, format, options = f"[{settings}]{escaped}", "tee", {}
    return av.open(name, "w", format=format, container_options=options, metadata_errors="surrogateescape")


def has_own_tags(container: InputContainer) -> bool:
    """Whether a file has tags that MP4 has no fields for."""
    return any(name.lower() not in _MP4_TAGS | _STALE_TAGS for name in container.metadata)


def copy_stream(out: OutputContainer, stream: Any) -> Any:
    """Add a stream that is a copy of another."""
    copied = out.add_stream_from_template(stream, opaque=True)
    copied.metadata.update(stream.metadata)
    copied.disposition = stream.disposition
    return copied


def _converted_stream(out: OutputContainer, stream: Any, format: str) -> Any:
    """Add a text stream in the codec that the output container takes."""
    stream.codec_context.open(strict=False)
    added: Any = out.add_stream(TEXT_IN[format])
    added.codec_context.subtitle_header = stream.codec_context.subtitle_header
    added.time_base = Fraction(1, 1000)
    added.metadata.update(stream.metadata)
    added.disposition = stream.disposition
    return added


def _converted(packet: Any, context: Any) -> Any:
    """A subtitle packet in another codec, at the same time; None for an empty one."""
    subtitle = packet.stream.codec_context.decode2(packet)
    if subtitle is None or not len(subtitle):
        return None
    converted = context.encode_subtitle(subtitle)
    converted.time_base = packet.time_base
    converted.pts = converted.dts = packet.pts
    converted.duration = packet.duration
    return converted


def add_streams(
    out: OutputContainer, output: Output, container: InputContainer | None, covers: Mapping[int, bytes] | None = None
) -> tuple[Any, dict[int, Any]]:
    """Add all streams of the output, in the order of the source.

    Returns:
        (the upscaled stream, the copied ones by index in the source).
    """
    copies: dict[int, Any] = {}
    video: Any = None
    for action in output.streams:
        index = action.stream.index
        if action.action == "upscale":
            video = _upscaled_stream(out, output, None if container is None else container.streams[index])
        elif action.action == "copy" and container is not None:
            copies[index] = copy_stream(out, container.streams[index])
        elif action.action == "convert" and container is not None:
            copies[index] = _converted_stream(out, container.streams[index], output.format)
        elif action.action == "attach" and covers is not None:
            name, mime = MIME_SUFFIXES[action.stream.codec]
            out.add_attachment(name, mime, covers[index])
    return video, copies


def _upscaled_stream(out: OutputContainer, output: Output, original: Any) -> Any:
    """Add the upscaled stream, with the disposition and the tags of the original where there is one."""
    encoding = output.encoding
    # This stream's encoder never gets a frame: it only writes the header that the segments' encoders share.
    video: Any = out.add_stream(encoding.codec, rate=encoding.rate)
    global_header = output.riff or bool(out.format.flags & _GLOBAL_HEADER)
    configure(video.codec_context, encoding, global_header=global_header)
    video.time_base = encoding.time_base
    if output.source.matrix is not None:
        video.set_display_matrix(output.source.matrix)
    if original is not None:
        video.disposition = original.disposition
        for name, value in original.metadata.items():
            if not name.startswith(_STALE_STREAM_TAGS):
                video.metadata[name] = value
        _set_timecode(video, output, original.container)
    if _marks_display(output):
        video.metadata["title"] = video.metadata.get("title", "") + PLACEHOLDER
    return video


def _marks_display(output: Output) -> bool:
    """Whether the display size is to be written after the muxer is done."""
    return output.format in ("matroska", "webm") and output.encoding.sar not in (None, 1)


def _set_timecode(video: Any, output: Output, container: InputContainer) -> None:
    """Note the timecode of the first frame that is kept, where the source has one."""
    name = next((name for name in video.metadata if name.lower() == "timecode"), "timecode")
    for stream in container.streams:
        if stream.type == "data" and "timecode" in stream.metadata:
            video.metadata.setdefault(name, stream.metadata["timecode"])
    if name in video.metadata and output.window.start is not None:
        cut = output.window.start - output.source.start * output.source.time_base
        video.metadata[name] = later(video.metadata[name], round(cut * output.encoding.rate), output.encoding.rate)


def join(output: Output, packets: Iterator[EncodedPacket], partial: Path) -> int:
    """Write the output file.

    Args:
        packets: of all segments, in order.
        partial: where to write; the caller gives it its final name.

    Returns:
        The number of video packets written.

    Raises:
        MediaError: reading or writing failed, or the file does not contain what was written to it.
    """
    source = output.source
    with ExitStack() as stack:
        container = stack.enter_context(source.open()) if str(source.path) != "-" else None
        with translated(partial):
            options = _container_options(output, container)
            with open_output(partial, output.format, output.riff, options) as out:
                covers = _covers(source.path, output.streams)
                video, copies = add_streams(out, output, container, covers)
                if container is not None:
                    out.metadata.update({k: v for k, v in container.metadata.items() if k.lower() not in _STALE_TAGS})
                    out.set_chapters(list(_chapters(container, output.window)))
                with usual_scheduling():
                    out.start_encoding()
                upscaled = _UpscaledPackets(out, video, output, packets)
                written, nbytes = _copy_packets(out, output, container, copies, upscaled)
                upscaled.write()
                written[video.index] = upscaled.written
                kinds = [stream.type for stream in out.streams]
        if _marks_display(output):
            encoding = output.encoding
            write_display_size(partial, encoding.width, encoding.height, encoding.sar or Fraction(1))
        _read_back(partial, written, nbytes, kinds)
    return upscaled.written


class _UpscaledPackets:
    """Writes the packets of the upscaled stream, of all segments, as far as the other streams have come."""

    def __init__(self, out: OutputContainer, stream: Any, output: Output, packets: Iterator[EncodedPacket]) -> None:
        self.written = 0
        self._out, self._stream = out, stream
        self._time_base, self._shift = output.encoding.time_base, output.window.shift
        self._packets = packets
        self._next = next(packets, None)
        self._last_dts: int | None = None

    def write(self, until: float | None = None) -> None:
        """Write the packets up to a decoding time in seconds; None: all that remain."""
        moved = round(self._shift / self._time_base)
        while self._next is not None:
            each = self._next
            if until is not None and each.dts * self._time_base + self._shift > until:
                return
            # Where two segments meet, the decoding times of the second may begin before those of the first end. The
            # next free time is still not after the packet's presentation.
            dts = each.dts if self._last_dts is None else max(each.dts, self._last_dts + 1)
            self._last_dts = dts
            packet = Packet(each.data)
            packet.stream = self._stream
            packet.time_base = self._time_base
            packet.pts, packet.dts = each.pts + moved, dts + moved
            packet.duration = each.duration
            packet.is_keyframe = each.key
            self._out.mux_one(packet)
            self.written += 1
            self._next = next(self._packets, None)


def _copy_packets(
    out: OutputContainer,
    output: Output,
    container: InputContainer | None,
    copies: dict[int, Any],
    upscaled: _UpscaledPackets,
) -> tuple[Counter[int], Counter[int]]:
    """Write the packets of the copied streams, with those of the upscaled one between them in about the order of time.

    Returns:
        How many packets were copied, and how many bytes, by the index of the stream in the output.
    """
    written: Counter[int] = Counter()
    nbytes: Counter[int] = Counter()
    if container is None or not copies:
        return written, nbytes
    converting = {each.stream.index for each in output.streams if each.action == "convert"}
    retimer = Retimer({each.stream.index: each.times for each in output.streams})
    flags = int(out.format.flags)
    packet: Any
    for packet in shifted(container.demux([container.streams[index] for index in copies]), output.shifts):
        if not packet.size:
            continue
        index = packet.stream_index
        retimer.read(packet)
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            if packet.stream.disposition & Disposition.attached_pic:
                packet.pts = packet.dts = 0
        elif not _is_inside(output.window, packet):
            continue
        else:
            # The muxer buffers less where streams arrive together.
            upscaled.write(float(stamp * Fraction(packet.time_base) + output.window.shift))
            shift(packet, output.window.shift)
        target = copies[index]
        if index in converting:
            packet = _converted(packet, target.codec_context)
            if packet is None:
                continue
        packet.stream = target
        retimer.write(packet, target, flags)
        nbytes[target.index] += packet.size
        out.mux_one(packet)
        written[target.index] += 1
    return written, nbytes


def _is_inside(window: Window, packet: Any) -> bool:
    """Whether a packet with a time begins inside a window."""
    shown = (packet.pts if packet.pts is not None else packet.dts) * Fraction(packet.time_base)
    return (window.start is None or shown >= window.start) and (window.end is None or shown < window.end)


def _read_back(path: Path, wanted: Mapping[int, int], nbytes: Mapping[int, int], kinds: Sequence[str]) -> None:
    """Check that a file has the packets that were given to its muxer, because some muxers leave packets out."""
    found: Counter[int] = Counter()
    there: Counter[int] = Counter()
    with open_video(path) as container:
        for packet in container.demux():
            found[packet.stream_index] += packet.size > 0
            there[packet.stream_index] += packet.size
    for index, count in wanted.items():
        if there[index] == nbytes.get(index):  # MOV and AVI store PCM without packets: it is cut anew
            continue
        # MP4 fills the gaps between subtitles with empty packets.
        if found[index] < count or (found[index] > count and kinds[index] != "subtitle"):
            happened = f"stream #{index} has {found[index]} packets where {count} were written"
            raise MediaError(path, happened, "Try another container: .mkv holds most.")


def _chapters(container: InputContainer, window: Window) -> Iterator[Any]:
    """The chapters inside the window, moved with it."""
    for chapter in container.chapters():
        base = Fraction(chapter["time_base"] or Fraction(1, 1000))
        start, end = chapter["start"] * base, chapter["end"] * base
        if window.end is not None:
            end = min(end, window.end)
        if window.start is not None:
            start = max(start, window.start)
        if end > start:
            shifted = (round((point + window.shift) / base) for point in (start, end))
            yield {**chapter, **dict(zip(("start", "end"), shifted, strict=True))}


def _covers(path: Path, actions: tuple[StreamAction, ...]) -> dict[int, bytes]:
    """The attached images of a file, by stream."""
    wanted = {action.stream.index for action in actions if action.action == "attach"}
    covers: dict[int, bytes] = {}
    if wanted:
        with open_video(path) as container:
            for packet in container.demux([container.streams[index] for index in wanted]):
                if packet.size:
                    covers.setdefault(packet.stream_index, bytes(packet))
                if covers.keys() == wanted:
                    break
    return covers


def _container_options(output: Output, container: InputContainer | None) -> dict[str, str]:
    """Options of the muxer: the index in front, the source's own clock, all tags kept."""
    if output.format not in ("mp4", "mov"):
        # By default all times are moved by the few milliseconds of priming that a codec has before zero.
        return {"avoid_negative_ts": "disabled"}
    flags = ["faststart"]
    if container is not None and has_own_tags(container):
        flags.append("use_metadata_tags")
    scales, others = [output.encoding.time_base.denominator], [1]
    if container is not None:
        scales += [Fraction(s.time_base).denominator for s in container.streams.video if s.time_base]
        others = [Fraction(s.time_base).denominator for s in container.streams if s.time_base]
    scale = lcm(*scales)
    movie = lcm(1000, scale, *others)
    return {
        "movflags": "+".join(flags),
        # MP4 counts time in units that the muxer chooses; these hold every timestamp exactly.
        "video_track_timescale": str(scale if scale < 2**31 else scales[0]),
        # The same for the start times of tracks, which are rounded to milliseconds by default.
        "movie_timescale": str(movie if movie < 2**31 else 1_000_000),
    }


def write_images(packets: Iterable[EncodedPacket], target: Path, *, overwrite: bool) -> int:
    """Write every packet as an image file, numbered from 1.

    Args:
        target: a pattern: ``frames/%06d.png``.
        overwrite: replace existing images. Those of a stopped job, which are equal, stay in any case.

    Returns:
        The number of images written.
    """
    count = 0
    with translated(target):
        for count, packet in enumerate(packets, 1):
            image = target.with_name(target.name % count)
            if overwrite or not (image.is_file() and image.read_bytes() == packet.data):
                write_bytes(image, packet.data, overwrite=overwrite)
    return count
