"""Muxing: the packets of an upscaled stream and, byte for byte, everything else the source has.

What becomes of every stream is decided, and tried on the muxer itself, before the first frame is decoded.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.encode import EncodedPacket, Encoding, configure
from repsr_cli.video.open import open_video, translated
from repsr_cli.video.probe import StreamInfo, VideoSource, stream_info
from repsr_cli.video.timeline import Timeline

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
IMAGES = "images"
Y4M = "y4m"

# Tags that MP4 has a place of its own for; others need the QuickTime metadata keys.
_MP4_TAGS = frozenset(
    {
        "title", "artist", "album_artist", "album", "composer", "date", "comment", "genre", "copyright", "description",
        "synopsis", "lyrics", "show", "episode_id", "network", "grouping", "keywords", "creation_time", "track", "disc",
    }
)  # fmt: skip
_STALE_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
_STALE_STREAM_TAGS = ("ENCODER", "encoder", "DURATION", "BPS", "NUMBER_OF_", "_STATISTICS")
# Subtitles that are text, and the one kind of it that a container takes.
_TEXT = frozenset({"subrip", "ass", "ssa", "mov_text", "webvtt", "text"})
_TEXT_IN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_MIME_SUFFIXES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True, slots=True)
class StreamAction:
    """What becomes of one stream.

    Attributes:
        stream: as found.
        action: what is done with it.
        why: the reason, where it is not obvious.
        loses: whether something is lost that the user must agree to.
    """

    stream: StreamInfo
    action: Literal["upscale", "copy", "convert", "attach", "drop"]
    why: str = ""
    loses: bool = False

    def __str__(self) -> str:
        return f"{self.stream}: {self.action}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of a source that is kept, and where it goes.

    Attributes:
        start: seconds on the source's clock at which it begins.
        end: seconds at which it ends; None: to the end.
        shift: seconds added to every timestamp.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)


def format_of(target: Path) -> str:
    """FFmpeg's name of the container that a target's name asks for.

    ``-`` and ``.y4m`` are raw frames; ``frames/%06d.png`` is a numbered image for every frame.

    Raises:
        UsageError: it is none that can hold what a video has.
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
        why = f"{format} {'have' if format == IMAGES else 'has'} no room for it"
        return tuple(
            StreamAction(info, "upscale") if info.index == source.index else StreamAction(info, "drop", why)
            for info in source.streams
        )
    if timeline is None:
        rehearse(source, None, [StreamAction(source.streams[0], "upscale")], format, encoding)
        return (StreamAction(source.streams[0], "upscale"),)
    actions = []
    with open_video(source.path) as container:
        for stream in container.streams:
            actions.append(_action(source, stream, stream_info(stream), timeline, format))
        rehearse(source, container, actions, format, encoding)
    return tuple(actions)


def _action(source: VideoSource, stream: Any, info: StreamInfo, timeline: Timeline, format: str) -> StreamAction:
    if info.index == source.index:
        return StreamAction(info, "upscale")
    if info.kind != "attachment" and not timeline.packets.get(info.index):
        return StreamAction(info, "drop", "it is empty")
    if info.cover and format == "matroska" and info.codec in _MIME_SUFFIXES:
        return StreamAction(info, "attach", "cover")
    if info.cover and format == "mov":
        return StreamAction(info, "drop", "mov has no cover art", loses=True)
    if info.cover and format == "mp4" and _has_own_tags(stream.container):
        return StreamAction(info, "drop", "mp4 holds a cover or tags of other names than its own, not both", loses=True)
    if _holds(format, stream):
        more = "only the first moving stream is upscaled" if info.kind == "video" and not info.cover else ""
        return StreamAction(info, "copy", more)
    if info.kind == "subtitle" and info.codec in _TEXT:
        styled = info.codec in ("ass", "ssa")
        more = ", without its styling" if styled else ""
        return StreamAction(info, "convert", f"to {_TEXT_IN[format]}{more}", loses=styled)
    # QuickTime's chapters are a text stream as well as a list; the list is kept.
    if info.kind == "data" and info.codec == "bin_data" and source.container.startswith("mov"):
        return StreamAction(info, "drop", "chapters are written from their list")
    return StreamAction(info, "drop", f"{format} cannot hold it", loses=True)


def _holds(format: str, stream: Any) -> bool:
    """Whether a container takes a stream as it is."""
    if stream.type == "unknown" or (stream.type == "attachment" and format != "matroska"):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=format, metadata_errors="surrogateescape") as scratch:
            _copy_stream(scratch, stream)
            scratch.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def rehearse(
    source: VideoSource,
    container: InputContainer | None,
    actions: Iterable[StreamAction],
    format: str,
    encoding: Encoding,
) -> None:
    """Write the header of the output to memory, to learn now what would otherwise fail after the last frame.

    Raises:
        MediaError: the muxer refuses.
    """
    try:
        with av.open(io.BytesIO(), "w", format=format, metadata_errors="surrogateescape") as scratch:
            _add_streams(scratch, source, container, actions, encoding)
            scratch.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        happened = f"{format} cannot hold {encoding.codec} in {encoding.pix_fmt} beside the other streams ({error})"
        raise MediaError(source.path, happened, "Choose .mkv as the target, or another encoder with -c.") from error


def _has_own_tags(container: InputContainer) -> bool:
    """Whether a file has tags that MP4 has no place of its own for."""
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


def _converted_stream(out: OutputContainer, stream: Any) -> Any:
    """Add a stream of text in the words of another container."""
    stream.codec_context.open(strict=False)
    added: Any = out.add_stream(_TEXT_IN[out.format.name])
    added.codec_context.subtitle_header = stream.codec_context.subtitle_header
    added.time_base = Fraction(1, 1000)
    added.metadata.update(stream.metadata)
    added.disposition = stream.disposition
    return added


def _converted(packet: Any, context: Any) -> Any:
    """A subtitle's packet in another codec, at the same time; None for an empty one."""
    subtitle = packet.stream.codec_context.decode2(packet)
    if subtitle is None or not len(subtitle):
        return None
    converted = context.encode_subtitle(subtitle)
    converted.time_base = packet.time_base
    converted.pts = converted.dts = packet.pts
    converted.duration = packet.duration
    return converted


def _add_streams(
    out: OutputContainer,
    source: VideoSource,
    container: InputContainer | None,
    actions: Iterable[StreamAction],
    encoding: Encoding,
    covers: Mapping[int, bytes] | None = None,
) -> tuple[Any, dict[int, Any]]:
    """Add all streams of the output, in the order of the source.

    Returns:
        (the upscaled stream, the copied ones by index in the source).
    """
    copies: dict[int, Any] = {}
    video: Any = None
    for action in actions:
        index = action.stream.index
        if action.action == "upscale":
            # This stream's encoder never sees a frame: it only writes the header that the segments' encoders share.
            video = out.add_stream(encoding.codec, rate=encoding.rate)
            configure(video.codec_context, encoding, global_header=bool(out.format.flags & _GLOBAL_HEADER))
            video.time_base = encoding.time_base
            if source.matrix is not None:
                video.set_display_matrix(source.matrix)
            if container is not None:
                original = container.streams[index]
                video.disposition = original.disposition
                for name, value in original.metadata.items():
                    if not name.startswith(_STALE_STREAM_TAGS):
                        video.metadata[name] = value
        elif action.action == "copy" and container is not None:
            copies[index] = _copy_stream(out, container.streams[index])
        elif action.action == "convert" and container is not None:
            copies[index] = _converted_stream(out, container.streams[index])
        elif action.action == "attach" and covers is not None:
            name, mime = _MIME_SUFFIXES[action.stream.codec]
            out.add_attachment(name, mime, covers[index])
    return video, copies


_GLOBAL_HEADER = 0x0040  # AVFMT_GLOBALHEADER


def join(
    source: VideoSource,
    actions: tuple[StreamAction, ...],
    format: str,
    encoding: Encoding,
    packets: Iterator[EncodedPacket],
    partial: Path,
    window: Window,
) -> int:
    """Write the output file.

    Args:
        source: the video.
        actions: what becomes of its streams.
        format: FFmpeg's name of the container.
        encoding: the settings that the packets were made with.
        packets: of all segments, in order.
        partial: where to write; the caller puts it in its place.
        window: what is kept of the source.

    Returns:
        The number of video packets written.

    Raises:
        MediaError: reading or writing failed, or what was written does not read as what was given.
    """
    readable = str(source.path) != "-"
    container = open_video(source.path) if readable else None
    try:
        with translated(partial):
            options = _container_options(format, source, encoding, container)
            with av.open(
                f"file:{partial}", "w", format=format, container_options=options, metadata_errors="surrogateescape"
            ) as out:
                covers = _covers(source.path, actions)
                video, copies = _add_streams(out, source, container, actions, encoding, covers)
                if container is not None:
                    out.metadata.update({k: v for k, v in container.metadata.items() if k.lower() not in _STALE_TAGS})
                    out.set_chapters(list(_chapters(container, window)))
                converting = frozenset(each.stream.index for each in actions if each.action == "convert")
                written = _mux(out, video, copies, container, packets, encoding, window, converting)
                kinds = [stream.type for stream in out.streams]
                upscaled = int(video.index)
        _read_back(partial, written, kinds)
        return written[upscaled]
    finally:
        if container is not None:
            container.close()


def _mux(
    out: OutputContainer,
    video: Any,
    copies: dict[int, Any],
    container: InputContainer | None,
    packets: Iterator[EncodedPacket],
    encoding: Encoding,
    window: Window,
    converting: frozenset[int],
) -> Counter[int]:
    """Write all packets, in about the order of their times so that the muxer need not hold many.

    Returns:
        How many, by the index of the stream in the output.
    """
    written: Counter[int] = Counter()
    moved = round(window.shift / encoding.time_base)
    last: int | None = None
    waiting: EncodedPacket | None = next(packets, None)

    def write_video(until: float | None) -> None:
        nonlocal waiting, last
        while waiting is not None and (until is None or waiting.dts * encoding.time_base + window.shift <= until):
            # Where segments meet, an encoder may have begun its decoding times before the other's ended. The least
            # later time is still no later than the packet's own presentation.
            dts = waiting.dts if last is None else max(waiting.dts, last + 1)
            last = dts
            packet = Packet(waiting.data)
            packet.stream = video
            packet.time_base = encoding.time_base
            packet.pts, packet.dts = waiting.pts + moved, dts + moved
            packet.duration = waiting.duration
            packet.is_keyframe = waiting.key
            out.mux_one(packet)
            written[video.index] += 1
            waiting = next(packets, None)

    if container is not None and copies:
        other: Any
        for other in container.demux([container.streams[index] for index in copies]):
            if not other.size:
                continue
            base = Fraction(other.time_base)
            stamp = other.dts if other.dts is not None else other.pts
            if stamp is not None:
                shown = (other.pts if other.pts is not None else stamp) * base
                if (window.start is not None and shown < window.start) or (
                    window.end is not None and shown >= window.end
                ):
                    continue
                write_video(float(stamp * base + window.shift))
                shift = round(window.shift / base)
                if other.pts is not None:
                    other.pts += shift
                if other.dts is not None:
                    other.dts += shift
            elif other.stream.disposition & Disposition.attached_pic:
                other.pts = other.dts = 0
            index = other.stream_index
            target = copies[index]
            if index in converting:
                other = _converted(other, target.codec_context)
                if other is None:
                    continue
            other.stream = target
            out.mux_one(other)
            written[target.index] += 1
    write_video(None)
    return written


def _read_back(path: Path, wanted: Mapping[int, int], kinds: Sequence[str]) -> None:
    """See that a file has the packets that were given to its muxer: some leave out what they cannot place.

    Raises:
        MediaError: it has not.
    """
    found: Counter[int] = Counter()
    with open_video(path) as container:
        for packet in container.demux():
            found[packet.stream_index] += packet.size > 0
    for index, count in wanted.items():
        # MP4 fills the gaps between subtitles with empty ones.
        if found[index] < count or (found[index] > count and kinds[index] != "subtitle"):
            happened = f"stream #{index} has {found[index]} packets where {count} were written"
            raise MediaError(path, happened, "Try another container: .mkv holds most.")


def _chapters(container: InputContainer, window: Window) -> Iterator[Any]:
    """The chapters that lie in the window, moved with it."""
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
    """The images that are attached to a file, by stream."""
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


def _container_options(
    format: str, source: VideoSource, encoding: Encoding, container: InputContainer | None
) -> dict[str, str]:
    """What the muxer is told: the index in front, the source's own clock, all tags kept."""
    if format not in ("mp4", "mov"):
        # Otherwise everything is moved by the few milliseconds that a codec's priming lies before zero.
        return {"avoid_negative_ts": "disabled"}
    flags = ["faststart"]
    if container is not None and _has_own_tags(container):
        flags.append("use_metadata_tags")
    scales, others = [encoding.time_base.denominator], [1]
    if container is not None:
        scales += [Fraction(s.time_base).denominator for s in container.streams.video if s.time_base]
        others = [Fraction(s.time_base).denominator for s in container.streams if s.time_base]
    scale = lcm(*scales)
    movie = lcm(1000, scale, *others)
    return {
        "movflags": "+".join(flags),
        # MP4 counts time in units of its own choice; these hold every timestamp exactly.
        "video_track_timescale": str(scale if scale < 2**31 else scales[0]),
        # The same for the moments at which tracks begin: by default these are rounded to milliseconds.
        "movie_timescale": str(movie if movie < 2**31 else 1_000_000),
    }


def write_images(packets: Iterable[EncodedPacket], target: Path) -> int:
    """Write every packet as an image of its own, numbered from 1.

    Args:
        packets: encoded images, in order.
        target: a pattern: ``frames/%06d.png``.

    Returns:
        The number of images written.

    Raises:
        MediaError: writing failed.
    """
    count = 0
    with translated(target):
        for count, packet in enumerate(packets, 1):
            final = target.with_name(target.name % count)
            partial = final.with_name(f".{final.name}.partial")
            try:
                partial.write_bytes(packet.data)
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
    return count
