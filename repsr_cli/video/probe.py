"""Videos as they are found: opening, probing, and what went wrong said in the house's words.

No file is opened by a name that FFmpeg could read as an address, and no playlist may lead to another file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.codec import CodecContext
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from repsr_cli.errors import MediaError
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata, override_tags, parse_hdr, resolve_tags
from repsr_cli.video.frames import layout_has_alpha, planar_name, side_data
from repsr_cli.video.image_sequence import is_pattern, numbered
from repsr_cli.yuv.formats import Siting

# Demuxers that take nearly anything, text and single images included, for moving images.
_NOT_VIDEO = frozenset({"tty", "lrc", "srt", "ass", "webvtt", "concat", "hls", "dash", "bin", "ico", "image2"})

# A frame of more is not decoded: a few kilobytes can claim to be 16384x16384. That of 16K video has 133 million.
MAX_PIXELS = 1 << 27

# Threads of a decoder hold a frame each; more than these gain nothing beside a network.
DECODER_THREADS = 8

# What a container tells a decoder; the rest stands in the packets.
_SETTINGS = (
    "codec_tag",
    "extradata",
    "bits_per_coded_sample",
    "width",
    "height",
    "pix_fmt",
    "profile",
    "level",
    "framerate",
    "sample_aspect_ratio",
    "color_range",
    "color_primaries",
    "color_trc",
    "colorspace",
    "field_order",
    "reorder_depth",
)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a container, as found.

    Attributes:
        index: position in the container.
        kind: ``video``, ``audio``, ``subtitle``, ``attachment``, ``data`` or ``unknown``.
        codec: name of the codec, or of the attached file's type; ``unknown`` if none.
        language: as tagged, or an empty string.
        cover: whether it is an image attached to the file.
    """

    index: int
    kind: str
    codec: str
    language: str = ""
    cover: bool = False

    def __str__(self) -> str:
        return f"#{self.index} {self.kind} {self.codec}" + (f" ({self.language})" if self.language else "")


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A video, as far as opening it and decoding its first frame tell.

    Attributes:
        path: the file; ``-`` is y4m on standard input.
        container: FFmpeg's name of the demuxer.
        index: the stream that is upscaled, the first moving one.
        codec: its codec.
        height: of a frame as stored, that is, before any rotation.
        width: likewise.
        pix_fmt: pixel format as decoded.
        planar: the planar format its planes are read as.
        time_base: seconds per unit of its timestamps.
        start: timestamp of the first frame decoded.
        rate: mean frames a second; None if unknown.
        frames: number of frames by the container; None if it does not say.
        duration: seconds; None if unknown.
        sar: sample aspect ratio; None if unknown.
        matrix: display matrix in nine integers (16.16 and 2.30 fixed point); None without one.
        rotation: degrees counter-clockwise of that matrix.
        found: colour tags as found.
        tags: the same without gaps.
        hdr: mastering display and content light level.
        flagged_interlaced: whether the first frame claims to be made of two fields.
        alpha: whether the image has transparency, in the pixel format or beside it.
        side_data: kinds of data that ride on the first frame, by FFmpeg's names.
        streams: all streams.
        notes: assumptions made, a sentence each.
    """

    path: Path
    container: str
    index: int
    codec: str
    height: int
    width: int
    pix_fmt: str
    planar: str
    time_base: Fraction
    start: int
    rate: Fraction | None
    frames: int | None
    duration: float | None
    sar: Fraction | None
    matrix: tuple[int, ...] | None
    rotation: int
    found: ColourTags
    tags: ColourTags
    hdr: HdrMetadata | None
    flagged_interlaced: bool
    alpha: bool
    side_data: tuple[str, ...]
    streams: tuple[StreamInfo, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def display_size(self) -> tuple[int, int]:
        """(height, width) as shown, that is, after rotation by a quarter turn."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)

    @property
    def frame_seconds(self) -> Fraction:
        """Nominal seconds per frame."""
        return 1 / self.rate if self.rate else Fraction(1, 25)


@contextmanager
def translated(subject: object) -> Iterator[None]:
    """Turn PyAV's errors into a ``MediaError`` about a file."""
    try:
        yield
    except (av.FileNotFoundError, FileNotFoundError) as error:
        raise MediaError(subject, "no such file", "Check the path, and quote names with spaces.") from error
    except (av.IsADirectoryError, IsADirectoryError) as error:
        raise MediaError(subject, "a folder, not a file") from error
    except (av.PermissionError, PermissionError) as error:
        raise MediaError(subject, "may not be read or written", "Check the permissions.") from error
    except (av.InvalidDataError, av.EOFError, av.PatchWelcomeError) as error:
        remedy = "If it is cut off or damaged, get it again."
        raise MediaError(subject, f"not a video that can be read ({_reason(error)})", remedy) from error
    except av.FFmpegError as error:
        raise MediaError(subject, _reason(error)) from error
    except OSError as error:
        raise MediaError(subject, error.strerror or str(error)) from error


def _reason(error: av.FFmpegError) -> str:
    """FFmpeg's own words about an error, without the file name that stands in front of the message anyway."""
    # (level, name, message), or None where FFmpeg logged nothing.
    log: Any = error.log
    words = log[2].strip() if log else ""
    return (words or error.strerror or "no reason given").rstrip(".").replace("\n", " ")


def open_video(path: Path) -> InputContainer:
    """Open a video for reading; numbered images are one of 25 frames a second.

    Tags that are not UTF-8 are kept as they are, byte for byte. Frames of more than ``MAX_PIXELS`` do not decode.

    Raises:
        MediaError: the file is missing or no media.
    """
    options = {"max_pixels": str(MAX_PIXELS)}
    if is_pattern(path):
        options |= {"pattern_type": "sequence", "start_number": str(next(iter(numbered(path))))}
    with translated(path):
        # "file:" keeps FFmpeg from taking a colon in a name for a protocol.
        return av.open(
            f"file:{path}",
            "r",
            metadata_errors="surrogateescape",
            format="image2" if is_pattern(path) else None,
            container_options={"protocol_whitelist": "file"},
            options=options,
        )


def is_video(path: Path) -> bool:
    """Whether a file holds moving images, by its content.

    Raises:
        MediaError: the file cannot be opened at all.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(path, error.strerror or str(error)) from error
    try:
        with open_video(path) as container:
            return _main_stream(container) is not None
    except MediaError:
        return False


def _main_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that moves: cover art is a video stream of one image."""
    names = set(container.format.name.split(","))
    if names == {"image2"} and is_pattern(Path(container.name.removeprefix("file:"))):
        return container.streams.video[0]
    if names & _NOT_VIDEO or any(name.endswith("_pipe") and name != "yuv4mpegpipe" for name in names):
        return None
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def main_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that is upscaled.

    Raises:
        MediaError: there is none, or FFmpeg has no decoder for it.
    """
    stream = _main_stream(container)
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams})
        found = f"no video stream, only {', '.join(kinds)}" if kinds else "no video stream"
        raise MediaError(path, found, "upscale takes images and videos.")
    if stream.codec_context is None:
        raise MediaError(path, "no decoder for its video stream")
    if not stream.codec_context.is_open:
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = min(DECODER_THREADS, os.cpu_count() or 1)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def decoder_settings(context: VideoCodecContext) -> dict[str, Any]:
    """What a container told a stream's decoder: what another one needs beside the packets."""
    found = {name: getattr(context, name) for name in _SETTINGS}
    return {name: value for name, value in found.items() if value is not None}


def new_decoder(codec: str, settings: dict[str, Any], hwaccel: HWAccel | None = None) -> VideoCodecContext:
    """A decoder that belongs to no container.

    Args:
        codec: FFmpeg's name of it.
        settings: from ``decoder_settings``.
        hwaccel: the device to decode on.
    """
    context = CodecContext.create(codec, "r", hwaccel)
    assert isinstance(context, VideoCodecContext)
    for name, value in settings.items():
        setattr(context, name, value)
    context.thread_type = "AUTO"
    context.thread_count = min(DECODER_THREADS, os.cpu_count() or 1)
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return context


def stream_info(stream: Any) -> StreamInfo:
    """What a stream is."""
    context = stream.codec_context
    if stream.type == "attachment":
        codec = stream.mimetype or stream.name or "unknown"
    else:
        codec = (context.codec.canonical_name if context is not None else getattr(stream, "name", None)) or "unknown"
    cover = stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)
    return StreamInfo(stream.index, stream.type, codec, stream.metadata.get("language", ""), cover)


def probe(
    path: Path, matrix: str | None = None, full_range: bool | None = None, rate: Fraction | None = None
) -> VideoSource:
    """Look at a video: its streams, and its first frame that decodes.

    Args:
        path: the file.
        matrix: overrides the colour matrix tag: ``bt709``, ``bt601``, ``fcc``, ``smpte240m`` or ``bt2020``.
        full_range: overrides the range tag.
        rate: frames a second of numbered images.

    Raises:
        MediaError: missing, no media, no video stream, or no frame of it decodes.
        UsageError: no such matrix.
    """
    with open_video(path) as container:
        source = describe(container, path, matrix, full_range)
    # Their timestamps are their places, whatever the rate.
    return source if rate is None else replace(source, rate=rate, time_base=1 / rate)


def describe(
    container: InputContainer, path: Path, matrix: str | None = None, full_range: bool | None = None
) -> VideoSource:
    """``probe`` for a container that is open; reads on from where it stands."""
    stream = main_stream(container, path)
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise _too_large(path, f"{stream.codec_context.width}x{stream.codec_context.height}")
    siting = _siting(container, stream)
    frame, beside = _first_frame(container, stream, path)
    rate = stream.average_rate or stream.base_rate or None
    found = ColourTags(
        int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc), siting
    )
    told = override_tags(found, matrix, full_range)
    tags, notes = resolve_tags(told, frame.format.name, frame.height, frame.width, rate)
    sides = side_data(frame)
    display = struct.unpack("=9i", sides["DISPLAYMATRIX"][:36]) if "DISPLAYMATRIX" in sides else None
    time_base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 1000)
    duration = None
    if stream.duration:
        duration = float(stream.duration * time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    return VideoSource(
        path=path,
        container=container.format.name,
        index=stream.index,
        codec=stream.codec_context.codec.canonical_name,
        height=frame.height,
        width=frame.width,
        pix_fmt=frame.format.name,
        planar=planar_name(frame.format.name),
        time_base=time_base,
        start=frame.pts if frame.pts is not None else 0,
        rate=Fraction(rate) if rate else None,
        frames=stream.frames or None,
        duration=duration,
        sar=Fraction(stream.sample_aspect_ratio) if stream.sample_aspect_ratio else None,
        matrix=display,
        rotation=int(frame.rotation) if display else 0,
        found=found,
        tags=tags,
        hdr=parse_hdr(sides.get("MASTERING_DISPLAY_METADATA"), sides.get("CONTENT_LIGHT_LEVEL")),
        flagged_interlaced=bool(frame.interlaced_frame),
        alpha=beside or layout_has_alpha(frame.format),
        side_data=tuple(sorted(sides)),
        streams=tuple(stream_info(each) for each in container.streams),
        notes=notes,
    )


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> tuple[VideoFrame, bool]:
    """The first frame that decodes, and whether packets carry alpha beside the image, as WebM does.

    Raises:
        MediaError: no frame decodes.
    """
    last: av.FFmpegError | None = None
    beside = False
    with translated(path):
        for packet in container.demux(stream):
            beside = beside or (packet.size > 0 and packet.has_sidedata("matroska_block_additional"))
            try:
                frames = packet.decode()
            except (av.InvalidDataError, av.PatchWelcomeError, av.ExternalError, av.UnknownError) as error:
                last = error
                continue
            except av.ArgumentError as error:
                raise _too_large(path, "frames") from error
            if frames:
                return frames[0], beside
    reason = f" ({_reason(last)})" if last is not None else ""
    raise MediaError(path, f"no frame of its video can be decoded{reason}", "Check that it plays.") from last


def _too_large(path: Path, what: str) -> MediaError:
    """The words for frames that FFmpeg was told not to take."""
    limit = f"{MAX_PIXELS / 1e6:.0f} million pixels"
    return MediaError(path, f"{what} of more than {limit}, or damaged", "Scale it down with another tool first.")


def _siting(container: InputContainer, stream: VideoStream) -> Siting | None:
    """Where chroma sits, from FFmpeg's description of the stream: PyAV has no field for it.

    The words are printed only where the log level is verbose, and nothing is printed on a terminal meanwhile.
    """
    quiet = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.VERBOSE)
        av.logging.set_libav_level(av.logging.VERBOSE)
        text: str = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(quiet)
        av.logging.set_libav_level(av.logging.INFO)
    words: dict[str, Siting] = {"left": "left", "center": "center", "topleft": "topleft"}
    for line in text.splitlines():
        if line.strip().startswith(f"Stream #0:{stream.index}") and "(" in line:
            inside = line.split("Video:", 1)[-1]
            for part in inside.replace("(", ",").replace(")", ",").split(","):
                if part.strip() in words:
                    return words[part.strip()]
    return None
