"""Describe a video: its streams, and what decoding its first frame shows."""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from repsr_cli.errors import MediaError
from repsr_cli.video.clock import RAW
from repsr_cli.video.colour_tags import ColourTags, HdrMetadata, override_tags, parse_hdr, resolve_tags
from repsr_cli.video.crop import NO_CROP, Crop, find_crop
from repsr_cli.video.frames import side_data
from repsr_cli.video.open import (
    MAX_PIXELS,
    Probing,
    logged,
    main_stream,
    moving_stream,
    open_video,
    reason,
    too_large,
    translated,
)
from repsr_cli.video.planes import layout_has_alpha, planar_name
from repsr_cli.yuv.formats import Siting


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a container.

    Attributes:
        index: position in the container.
        kind: ``video``, ``audio``, ``subtitle``, ``attachment``, ``data`` or ``unknown``.
        codec: name of the codec, or the MIME type of an attached file; ``unknown`` if none.
        language: as tagged, or an empty string.
        cover: whether it is an attached image.
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
    """A video as described by its container and its first frame.

    Attributes:
        path: the file; ``-`` is y4m on standard input.
        container: FFmpeg's name of the demuxer.
        index: the stream that is upscaled: the first that is not a still image.
        height: of a frame as stored, without what the container crops, before any rotation.
        pix_fmt: pixel format as decoded.
        planar: the planar format that its frames are read as.
        time_base: seconds per unit of its timestamps.
        start: timestamp of the first frame decoded.
        rate: mean frames per second; None if unknown.
        sar: sample aspect ratio; None if unknown.
        found: colour tags as found.
        tags: the same, with missing ones filled in.
        frames: number of frames according to the container; None if it gives none.
        duration: seconds; None if unknown.
        matrix: display matrix in nine integers (16.16 and 2.30 fixed point); None without one.
        rotation: degrees counter-clockwise of that matrix.
        hdr: mastering display and content light level.
        flagged_interlaced: whether the first frame is flagged as interlaced.
        alpha: whether there is transparency, in the pixel format or in separate packets.
        side_data: kinds of side data on the first frame, by FFmpeg's names.
        notes: assumptions made, one sentence each.
        crop: what the container crops of a frame as decoded.
        probing: how far to read the file to find all its streams; None: as far as usual.
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
    sar: Fraction | None
    found: ColourTags
    tags: ColourTags
    streams: tuple[StreamInfo, ...] = field(repr=False)
    frames: int | None = None
    duration: float | None = None
    matrix: tuple[int, ...] | None = None
    rotation: int = 0
    hdr: HdrMetadata | None = None
    flagged_interlaced: bool = False
    alpha: bool = False
    side_data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    crop: Crop = NO_CROP
    probing: Probing | None = None

    @property
    def decoded_size(self) -> tuple[int, int]:
        """(height, width) of a frame as decoded."""
        crop = self.crop
        return self.height + crop.top + crop.bottom, self.width + crop.left + crop.right

    def open(self) -> InputContainer:
        """Open it once more."""
        return open_video(self.path, self.probing)

    @property
    def display_size(self) -> tuple[int, int]:
        """(height, width) as shown, after rotation."""
        return (self.width, self.height) if self.rotation % 180 else (self.height, self.width)

    @property
    def frame_seconds(self) -> Fraction:
        """Nominal duration of a frame in seconds."""
        return 1 / self.rate if self.rate else Fraction(1, 25)


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its content."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise MediaError(path, error.strerror or str(error)) from error
    try:
        with open_video(path) as container:
            return moving_stream(container) is not None
    except MediaError:
        return False


def stream_info(stream: Any) -> StreamInfo:
    """Describe a stream."""
    context = stream.codec_context
    if stream.type == "attachment":
        codec = stream.mimetype or stream.name or "unknown"
    else:
        codec = (context.codec.canonical_name if context is not None else getattr(stream, "name", None)) or "unknown"
    cover = stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)
    return StreamInfo(stream.index, stream.type, codec, stream.metadata.get("language", ""), cover)


def probe(
    path: Path,
    matrix: str | None = None,
    full_range: bool | None = None,
    rate: Fraction | None = None,
    probing: Probing | None = None,
) -> VideoSource:
    """Describe a video by its streams and the first frame that decodes.

    Args:
        matrix: overrides the colour matrix tag: ``bt709``, ``bt601``, ``fcc``, ``smpte240m`` or ``bt2020``.
        full_range: overrides the range tag.
        rate: frames per second of numbered images, or of a stream without times.
        probing: how far to read the file to find its streams; None: as far as usual.

    Raises:
        MediaError: the file is missing or not a video, or no frame of it decodes.
    """
    with open_video(path, probing) as container:
        source = replace(describe(container, path, matrix, full_range), probing=probing)
    if source.container in RAW:
        assumed = rate or source.rate or Fraction(25)
        note = f"it has no times: taken as {float(assumed):.5g} frames per second (change that by --fps)"
        source = replace(source, rate=assumed, start=0, notes=source.notes if rate else (*source.notes, note))
        rate = assumed
    # Timestamps of numbered images are positions, whatever the rate.
    return source if rate is None else replace(source, rate=rate, time_base=1 / rate)


def describe(
    container: InputContainer, path: Path, matrix: str | None = None, full_range: bool | None = None
) -> VideoSource:
    """``probe`` for an open container; reads on from its current position."""
    stream = main_stream(container, path)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise too_large(path, f"{context.width}x{context.height}")
    description = _description(container, stream)
    siting = _siting(description)
    _check_dolby_vision(path, description)
    # Before the first frame: a decoder's threads may go on after it, and must not log while PyAV passes messages on.
    fields = context.name == "hevc" and _has_field_pictures(stream)
    frame, beside = _first_frame(container, stream, path)
    rate = _rate(container, stream)
    found = ColourTags(
        int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc), siting
    )
    chosen = override_tags(found, matrix, full_range)
    tags, notes = resolve_tags(chosen, frame.format.name, frame.height, frame.width, rate)
    if frame.interlaced_frame and fields:
        happened = f"its images are single fields of {frame.width}x{frame.height}, not frames"
        raise MediaError(path, happened, "Join them first: ffmpeg -i IN -vf weave -c:v ffv1 -c:a copy OUT.mkv")
    planar = planar_name(frame.format.name)
    crop = find_crop(path, description, planar, frame.height, frame.width)
    if crop:
        notes = (*notes, f"cropped as its container says: {crop}")
    sides = side_data(frame)
    if _is_profile_5(sides.get("DOVI_METADATA", b"")):
        raise _unconverted(path, 5)
    display = struct.unpack("=9i", sides["DISPLAYMATRIX"][:36]) if "DISPLAYMATRIX" in sides else None
    time_base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 1000)
    return VideoSource(
        path=path,
        container=container.format.name,
        index=stream.index,
        codec=context.codec.canonical_name,
        height=frame.height - crop.top - crop.bottom,
        width=frame.width - crop.left - crop.right,
        pix_fmt=frame.format.name,
        planar=planar,
        time_base=time_base,
        start=frame.pts if frame.pts is not None else 0,
        rate=Fraction(rate) if rate else None,
        frames=stream.frames or None,
        duration=_duration(container, stream, time_base),
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
        crop=crop,
    )


def _rate(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Mean frames per second, as far as a stream tells."""
    rate = stream.average_rate or stream.base_rate or None
    if container.format.name in RAW:  # the demuxer says 25 whatever the stream says
        return stream.codec_context.framerate or rate
    return rate


def _duration(container: InputContainer, stream: VideoStream, time_base: Fraction) -> float | None:
    """Seconds of a stream, else of its container; None if neither says."""
    if stream.duration:
        return float(stream.duration * time_base)
    return container.duration / av.time_base if container.duration else None


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> tuple[VideoFrame, bool]:
    """The first frame that decodes, and whether packets carry separate alpha data, as in WebM."""
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
                raise too_large(path, "frames") from error
            if frames:
                return frames[0], beside
    why = f" ({reason(last)})" if last is not None else ""
    raise MediaError(path, f"no frame of its video can be decoded{why}", "Check that it plays.") from last


def describe_streams(container: InputContainer) -> str:
    """FFmpeg's description of all streams: it has what PyAV has no attribute for.

    The description is complete only at log level "verbose"; nothing is printed to the terminal.
    """
    quiet = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.VERBOSE)
        av.logging.set_libav_level(av.logging.VERBOSE)
        text: str = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(quiet)
        av.logging.set_libav_level(av.logging.INFO)
    return text


def _description(container: InputContainer, stream: VideoStream) -> list[str]:
    """The lines of the description that are about one stream."""
    own, found = False, []
    for line in describe_streams(container).splitlines():
        if line.strip().startswith("Stream #"):
            own = re.match(rf"Stream #0:{stream.index}\b", line.strip()) is not None
        if own:
            found.append(line.strip())
    return found


def _siting(description: list[str]) -> Siting | None:
    """The chroma siting."""
    sitings: dict[str, Siting] = {"left": "left", "center": "center", "topleft": "topleft"}
    inside = description[0].split("Video:", 1)[-1] if description else ""
    if "(" not in inside:
        return None
    words = (part.strip() for part in re.split("[(),]", inside))
    return next((sitings[word] for word in words if word in sitings), None)


def _has_field_pictures(stream: VideoStream) -> bool:
    """Whether the images of an HEVC stream are fields (``field_seq_flag``, ITU-T H.265 E.2.1), by FFmpeg's parser."""
    try:
        with logged(av.logging.INFO) as log:
            BitStreamFilterContext("trace_headers", stream).filter(None)
    except av.FFmpegError:
        return False
    return any(re.search(r"field_seq_flag\b.*= 1\s*$", message) for _, _, message in log)


def _check_dolby_vision(path: Path, description: list[str]) -> None:
    """Refuse Dolby Vision whose base layer is not YCbCr, so that it looks wrong without its metadata.

    Source: Dolby Vision Streams Within the ISO Base Media File Format (profile 5, and compatibility 0 of 8 and 10).

    Raises:
        MediaError: it is of such a profile.
    """
    for line in description:
        found = re.match(r"DOVI configuration record: .*profile: (\d+).*compatibility id: (\d+)", line)
        if found and (int(found[1]) == 5 or (int(found[1]) in (8, 10, 20) and int(found[2]) == 0)):
            raise _unconverted(path, int(found[1]))


def _is_profile_5(metadata: bytes) -> bool:
    """Whether the metadata of a frame (FFmpeg's AVDOVIMetadata) is that of profile 5: VDR profile 0, full range."""
    at = int.from_bytes(metadata[: struct.calcsize("N")], sys.byteorder)
    header = metadata[at : at + 11]
    return len(header) == 11 and header[4] == 0 and header[10] == 1


def _unconverted(path: Path, profile: int) -> MediaError:
    """The error for Dolby Vision that cannot be read as YCbCr."""
    happened = (
        f"Dolby Vision of profile {profile}, whose colours (IPT) are right only with metadata that cannot be kept"
    )
    return MediaError(path, happened, "Convert it to HDR10 or SDR first, with FFmpeg's libplacebo filter for example.")
