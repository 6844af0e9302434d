"""Write the upscaled stream into a file, with a byte-for-byte copy of everything else that the source has.

What becomes of every stream is decided, and tried out on the muxer itself, before the first frame is decoded.
"""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import write_bytes
from repsr_cli.video.clock import shifted
from repsr_cli.video.copy_times import Retimer, collect
from repsr_cli.video.encode import EncodedPacket, configure
from repsr_cli.video.encoders import Encoding
from repsr_cli.video.matroska import PLACEHOLDER, write_display_size
from repsr_cli.video.open import open_video, translated
from repsr_cli.video.probe import StreamInfo, VideoSource, stream_info
from repsr_cli.video.scheduling import usual_scheduling
from repsr_cli.video.timecode import later
from repsr_cli.video.timeline import Timeline

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
IMAGES = "images"
Y4M = "y4m"

# Tags that MP4 has fields for; others need QuickTime metadata keys.
_MP4_TAGS = frozenset(
    {
        "title", "artist", "album_artist", "album", "composer", "date", "comment", "genre", "copyright", "description",
        "synopsis", "lyrics", "show", "episode_id", "network", "grouping", "keywords", "creation_time", "track", "disc",
    }
)  # fmt: skip
_STALE_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
_STALE_STREAM_TAGS = ("ENCODER", "encoder", "DURATION", "BPS", "NUMBER_OF_", "_STATISTICS")
# Text subtitles, and the one codec for them that each container takes.
_TEXT = frozenset({"subrip", "ass", "ssa", "mov_text", "webvtt", "text"})
_TEXT_IN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
# Streams that describe their own container.
_OF_CONTAINERS = {
    "dvd_nav_packet": "DVD navigation",
    "epg": "a programme guide",
    "scte_35": "cues for inserting advertisements",
}
# How many packets of a stream are tried on the muxer, and how much of the file is read for them.
_TRIED = 3
_TRIED_BYTES = 1 << 28
# FFmpeg's mark of streams that it reads for its own use, such as QuickTime's chapters (AVDISCARD_ALL).
_DISCARDED = 48
_MIME_SUFFIXES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True, slots=True)
class StreamAction:
    """What becomes of one stream.

    Attributes:
        stream: the stream of the source.
        action: what happens to it.
        why: the reason, where it is not obvious.
        loses: whether something is lost that the user must agree to.
        riff: whether it is copied into Matroska as what it is called in RIFF files (``A_MS/ACM``).
        times: (position, pts, dts) of packets that are out of order in the source, in its time base.
    """

    stream: StreamInfo
    action: Literal["upscale", "copy", "convert", "attach", "drop"]
    why: str = ""
    loses: bool = False
    riff: bool = False
    times: tuple[tuple[int, int, int], ...] = ()

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


def format_of(target: Path) -> str:
    """FFmpeg's name of the container that a target's name stands for.

    ``-`` and ``.y4m`` mean raw frames; ``frames/%06d.png`` means a numbered image for every frame.

    Raises:
        UsageError: it stands for no container that can hold a video and its streams.
    """
    if str(target) == "-" or target.suffix.lower() == ".y4m":
        return Y4M
    found = FORMATS.get(target.suffix.lower())
    if found is None and "%" in target.name:
        numbered = target.suffix.lower() == ".png" and re.fullmatch(r"[^%]*%(0?[0-9]{1,2})?d[^%]*", target.name)
        if not numbered:
            raise UsageError(target, "not a pattern for numbered images", "Try frames/%06d.png.")
        return IMAGES
    if found is None:
        raise UsageError(target, "not a container for video", f"Choose from: {', '.join(FORMATS)}.")
    return found


def plan_streams(
    source: VideoSource, timeline: Timeline | None, format: str, encoding: Encoding
) -> tuple[StreamAction, ...]:
    """Decide what becomes of every stream, by asking the muxer.

    Raises:
        MediaError: the container cannot hold the upscaled stream itself.
    """
    if format in (IMAGES, Y4M):
        why = f"{format} cannot hold it"
        return tuple(
            StreamAction(info, "upscale") if info.index == source.index else StreamAction(info, "drop", why)
            for info in source.streams
        )
    if timeline is None:
        actions: tuple[StreamAction, ...] = (StreamAction(source.streams[0], "upscale"),)
        rehearse(Output(source, actions, format, encoding, Window()), None)
        return actions
    with source.open() as container:
        first = _first_packets(container, source, timeline)
        asked = [_Asked(source, stream, stream_info(stream), timeline, format, first) for stream in container.streams]
        actions = tuple(_action(each) for each in asked)
        actions = _with_times(source, actions, timeline)
        rehearse(Output(source, actions, format, encoding, Window()), container, first)
    return actions


@dataclass(frozen=True, slots=True)
class _Asked:
    """A stream whose fate is to be decided, and what that depends on."""

    source: VideoSource
    stream: Any
    info: StreamInfo
    timeline: Timeline
    format: str
    first: Mapping[int, Sequence[Packet[Any]]]


def _action(asked: _Asked) -> StreamAction:
    source, stream, info, format = asked.source, asked.stream, asked.info, asked.format
    if info.index == source.index:
        return StreamAction(info, "upscale")
    if info.codec == "bin_data" and stream.discard >= _DISCARDED and source.container.startswith("mov"):
        return StreamAction(info, "drop", "chapters are written from their list")
    if info.kind != "attachment" and not asked.timeline.packets.get(info.index):
        return StreamAction(info, "drop", "it is empty")
    if info.kind == "data" and "timecode" in stream.metadata:
        return _timecode(asked)
    if meaning := _meaningless(stream, info):
        return StreamAction(info, "drop", f"{meaning}, which means nothing in another file")
    if info.cover:
        return _cover(asked)
    way = _way_into(format, stream, asked.first.get(info.index, ()))
    if way is not None:
        return _copied(asked, way)
    if info.kind == "subtitle" and info.codec in _TEXT:
        styled = info.codec in ("ass", "ssa")
        more = ", without its styling" if styled else ""
        return StreamAction(info, "convert", f"to {_TEXT_IN[format]}{more}", loses=styled)
    return StreamAction(info, "drop", f"{format} cannot hold it", loses=True)


def _copied(asked: _Asked, way: str) -> StreamAction:
    """A stream that is copied, and what is lost for it."""
    info = asked.info
    if way == "riff" and _has_chapters(asked.stream.container):
        # FFmpeg's tee, through which such streams go, passes on no chapters.
        return StreamAction(info, "copy", "chapters cannot be written beside it", loses=True, riff=True)
    why = "only the first moving stream is upscaled" if info.kind == "video" else ""
    return StreamAction(info, "copy", why, riff=way == "riff")


def _cover(asked: _Asked) -> StreamAction:
    info, format = asked.info, asked.format
    if format == "matroska" and info.codec in _MIME_SUFFIXES:
        return StreamAction(info, "attach", "cover")
    if format == "mov":
        return StreamAction(info, "drop", "mov has no cover art", loses=True)
    if format == "mp4" and _has_own_tags(asked.stream.container):
        return StreamAction(info, "drop", "mp4 holds a cover or tags of other names than its own, not both", loses=True)
    if _way_into(format, asked.stream, asked.first.get(info.index, ())) == "direct":
        return StreamAction(info, "copy")
    return StreamAction(info, "drop", f"{format} cannot hold it", loses=True)


def _timecode(asked: _Asked) -> StreamAction:
    """A timecode track: QuickTime's and MP4's muxers write it anew, others keep its beginning as a tag of the video."""
    start = asked.stream.metadata["timecode"]
    if asked.format == "webm":
        return StreamAction(asked.info, "drop", "webm cannot hold it", loses=True)
    more = asked.timeline.packets[asked.info.index] - 1
    if more:
        why = f"only its beginning, {start}, is written, not its {more} later values"
        return StreamAction(asked.info, "drop", why, loses=True)
    where = "as a track" if asked.format in ("mp4", "mov") else "as a tag of the video"
    return StreamAction(asked.info, "drop", f"its timecode, {start}, is written anew {where}")


def _meaningless(stream: Any, info: StreamInfo) -> str:
    """What a stream holds that describes its own container only; an empty string otherwise."""
    if info.kind == "data" and "hint" in stream.metadata.get("handler_name", "").lower():
        return "hints for streaming"
    return _OF_CONTAINERS.get(info.codec, "")


def _way_into(format: str, stream: Any, packets: Sequence[Packet[Any]]) -> Literal["direct", "riff"] | None:
    """How a container takes a stream as it is, tried with its first packets; None if it does not."""
    if stream.type == "unknown" or (stream.type == "attachment" and format != "matroska"):
        return None
    ways: tuple[Literal["direct", "riff"], ...] = ("direct", "riff") if format == "matroska" else ("direct",)
    for way in ways:
        try:
            with _scratch(format, way == "riff") as scratch:
                copied = _copy_stream(scratch, stream)
                scratch.start_encoding()
                _rehearse_packets(scratch, {stream.index: copied}, {stream.index: packets})
        except (av.FFmpegError, ValueError):
            continue
        return way
    return None


def _scratch(format: str, riff: bool) -> OutputContainer:
    """An output that is kept nowhere."""
    if riff:
        return _open_output(Path(os.devnull), format, riff, {})
    return av.open(io.BytesIO(), "w", format=format, metadata_errors="surrogateescape")


def _open_output(path: Path, format: str, riff: bool, options: dict[str, str]) -> OutputContainer:
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


def _first_packets(container: InputContainer, source: VideoSource, timeline: Timeline) -> dict[int, list[Packet[Any]]]:
    """The first packets of every stream but the upscaled one, as far as they come early in the file."""
    wanted = {index: min(_TRIED, count) for index, count in timeline.packets.items() if index != source.index}
    found: dict[int, list[Packet[Any]]] = {index: [] for index in wanted}
    read = 0
    packet: Any
    for packet in container.demux():
        index, read = packet.stream_index, read + packet.size
        if packet.size and index in wanted and len(found[index]) < wanted[index]:
            found[index].append(packet)
        if read > _TRIED_BYTES or all(len(found[index]) >= count for index, count in wanted.items()):
            break
    return found


def _with_times(source: VideoSource, actions: tuple[StreamAction, ...], timeline: Timeline) -> tuple[StreamAction, ...]:
    """The same, with the times of packets that are out of order."""
    taken = {each.stream.index for each in actions if each.action in ("copy", "convert") and not each.stream.cover}
    odd = timeline.unordered & taken
    if not odd:
        return actions
    with translated(source.path), source.open() as container:
        changes = collect(shifted(container.demux(), timeline.shifts), odd)
    return tuple(_with_its_times(each, changes.get(each.stream.index, {}), timeline) for each in actions)


def _with_its_times(action: StreamAction, changes: Mapping[int, tuple[int, int]], timeline: Timeline) -> StreamAction:
    if not changes:
        return action
    count = timeline.packets[action.stream.index]
    happened = f"{len(changes)} of {count} packets are out of order: their times are made to ascend"
    times = tuple((position, *new) for position, new in sorted(changes.items()))
    return replace(action, why="; ".join(filter(None, (action.why, happened))), times=times)


def _rehearse_packets(
    scratch: OutputContainer, copies: Mapping[int, Any], first: Mapping[int, Sequence[Packet[Any]]]
) -> None:
    """Write copies of packets."""
    retimer = Retimer({})
    for index, stream in copies.items():
        for packet in first.get(index, ()):
            copy: Any = Packet(bytes(packet))
            copy.time_base, copy.duration, copy.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
            copy.dts = packet.dts if packet.dts is not None else packet.pts if packet.pts is not None else 0
            copy.pts = packet.pts if packet.pts is not None else copy.dts
            copy.stream = stream
            retimer.write(copy, stream, int(scratch.format.flags))
            scratch.mux_one(copy)


def rehearse(
    output: Output, container: InputContainer | None, first: Mapping[int, Sequence[Packet[Any]]] | None = None
) -> None:
    """Write the header and some packets of the output to memory, so that refusals are known before the first frame.

    Args:
        container: the source, open; None where it can be read only once.
        first: packets of the copied streams to try.
    """
    try:
        with _scratch(output.format, output.riff) as scratch:
            _, copies = _add_streams(scratch, output, container)
            with usual_scheduling():
                scratch.start_encoding()
            converted = {each.stream.index for each in output.streams if each.action == "convert"}
            tried = {index: stream for index, stream in copies.items() if index not in converted}
            _rehearse_packets(scratch, tried, first or {})
    except (av.FFmpegError, ValueError) as error:
        codec, pix_fmt = output.encoding.codec, output.encoding.pix_fmt
        happened = f"{output.format} cannot hold {codec} in {pix_fmt} beside the other streams ({error})"
        remedy = "Choose .mkv as the target, or another encoder with -c."
        raise MediaError(output.source.path, happened, remedy) from error


def _has_chapters(container: InputContainer) -> bool:
    return bool(container.chapters())


def _has_own_tags(container: InputContainer) -> bool:
    """Whether a file has tags that MP4 has no fields for."""
    return any(name.lower() not in _MP4_TAGS | _STALE_TAGS for name in container.metadata)


def _copy_stream(out: OutputContainer, stream: Any) -> Any:
    """Add a stream that is a copy of another."""
    copied = (
        out.add_stream_from_template(stream, opaque=True)
        if stream.codec_context is not None
        else (out.add_stream_from_template(stream))
    )
    copied.metadata.update(stream.metadata)
    copied.disposition = stream.disposition
    return copied


def _converted_stream(out: OutputContainer, stream: Any, format: str) -> Any:
    """Add a text stream in the codec that the output container takes."""
    stream.codec_context.open(strict=False)
    added: Any = out.add_stream(_TEXT_IN[format])
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


def _add_streams(
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
            copies[index] = _copy_stream(out, container.streams[index])
        elif action.action == "convert" and container is not None:
            copies[index] = _converted_stream(out, container.streams[index], output.format)
        elif action.action == "attach" and covers is not None:
            name, mime = _MIME_SUFFIXES[action.stream.codec]
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


_GLOBAL_HEADER = 0x0040  # AVFMT_GLOBALHEADER


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
            with _open_output(partial, output.format, output.riff, options) as out:
                covers = _covers(source.path, output.streams)
                video, copies = _add_streams(out, output, container, covers)
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
    """Writes the packets of the upscaled stream as far as the other streams have come.

    Args:
        stream: the upscaled stream in it.
        packets: of all segments, in order.
    """

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
    retimer = Retimer({each.stream.index: {at: (pts, dts) for at, pts, dts in each.times} for each in output.streams})
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
            _move(packet, output.window.shift)
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


def _move(packet: Any, seconds: Fraction) -> None:
    """Shift the times of a packet."""
    shift = round(seconds / Fraction(packet.time_base))
    if packet.pts is not None:
        packet.pts += shift
    if packet.dts is not None:
        packet.dts += shift


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
    if container is not None and _has_own_tags(container):
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
        packets: encoded images, in order.
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
