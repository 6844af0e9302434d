"""Everything about a video that can be decided before its first frame. Floor 4, without a network."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.format import VideoFormat

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.sizes import video_size
from repsr_cli.upscale.request import UpscaleOptions
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.encode import (
    Encoding,
    choose_pix_fmt,
    encoder_options,
    find_encoder,
    open_encoder,
    writes_hdr,
)
from repsr_cli.video.image_sequence import is_pattern
from repsr_cli.video.interlace import combed_share
from repsr_cli.video.mux import IMAGES, Y4M, StreamAction, Window, format_of, plan_streams
from repsr_cli.video.nvdec import Nvdec, find_nvdec
from repsr_cli.video.planes import planar_name
from repsr_cli.video.probe import VideoSource, probe
from repsr_cli.video.timeline import Segment, Timeline, cut, scan
from repsr_cli.video.y4m import PIPE, PIXEL_FORMATS, describe_pipe, is_steady

# What is written without a choice of encoder.
_CODEC_OF = {IMAGES: "png", Y4M: "rawvideo"}
# Above this share of frames with two moments in them, a video is interlaced whatever else it is.
_COMBED = 0.25
_ENCODER_THREADS = 16


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What will be done to a video, decided without a network.

    Attributes:
        source: the video.
        timeline: its packets; None on standard input, which can be read only once.
        nvdec: how a GPU decodes it; None: it is decoded in software.
        target: the file to write.
        format: FFmpeg's name of its container.
        size: (height, width) of the output as stored.
        encoding: settings of the encoder.
        window: what is kept of the source.
        segments: the units of work.
        streams: what becomes of every stream.
        losses: what the output will lack.
        notes: what was assumed or changed, a sentence each.
        bytes_needed: about how much space the work takes on the target's disk.
    """

    source: VideoSource
    timeline: Timeline | None
    nvdec: Nvdec | None
    target: Path
    format: str
    size: tuple[int, int]
    encoding: Encoding
    window: Window
    segments: tuple[Segment, ...]
    streams: tuple[StreamAction, ...]
    losses: tuple[str, ...]
    notes: tuple[str, ...]
    bytes_needed: int

    @property
    def frames(self) -> int | None:
        """Frames to upscale, as far as the packets tell; None if they cannot be counted ahead."""
        return None if self.timeline is None else sum(segment.frames for segment in self.segments)

    def __str__(self) -> str:
        source, encoding = self.source, self.encoding
        rate = f"{float(source.rate):.5g} fps" if source.rate else "unknown rate"
        options = " ".join(f"{name}={value}" for name, value in encoding.options)
        frames = "unknown" if self.frames is None else self.frames
        lines = [
            f"source: {source.width}x{source.height} {source.codec} {source.pix_fmt}, {frames} frames, {rate}",
            f"target: {encoding.width}x{encoding.height} {encoding.codec} {encoding.pix_fmt}, {self.format}, {options}",
            f"segments: {len(self.segments)}",
            *(f"stream {stream}" for stream in self.streams),
            *(f"note: {note}" for note in self.notes),
            *(f"would be lost, and needs --allow-loss: {loss}" for loss in self.losses),
            f"space: about {self.bytes_needed / 1e6:.0f} MB while working",
        ]
        return "\n".join(lines)


def plan_video(
    source: Path, target: Path, scale: float, options: UpscaleOptions, pipe: InputContainer | None = None
) -> VideoPlan:
    """Decide everything about a video.

    Args:
        source: the video; ``-`` is y4m on standard input, ``frames/%06d.png`` numbered images.
        target: the file to write; ``-`` is y4m on standard output, ``frames/%06d.png`` numbered images.
        scale: the network's factor, for where nothing else was asked for.
        options: the request.
        pipe: standard input, opened, where the source is ``-``.

    Raises:
        MediaError: the video cannot be read, is damaged or interlaced, or the container cannot hold the output.
        UsageError: an option that makes no sense for it.
        DeviceError: a GPU is asked for that is not there.
    """
    if source == PIPE and pipe is None:
        raise UsageError("--dry-run", "standard input can be read only once", "Name a file.")
    if options.fps is None and is_pattern(source):
        raise UsageError(source, "images do not say how fast they follow each other", "Say it with --fps 24.")
    if options.fps is not None and not is_pattern(source):
        raise UsageError(f"--fps {options.fps}", f"{source} has times of its own", "Leave it out.")
    video = (
        probe(source, options.matrix, options.full_range, options.fps)
        if pipe is None
        else (describe_pipe(pipe, options.matrix, options.full_range))
    )
    timeline = scan(video) if pipe is None else None
    notes = list(video.notes)
    if timeline is not None and timeline.damage is not None:
        if options.on_error == "stop":
            remedy = "Take what there is with --on-error keep, or get the file again."
            raise MediaError(source, f"damaged or cut off: {timeline.damage}", remedy)
        notes.append(f"damaged or cut off: {timeline.damage}")
    notes += _interlacing(video, options)
    nvdec, more = _decoding(video, options)
    notes += more
    window, segments = _stretch(video, timeline, options)
    size, rounding = target_size(video, scale, options)
    notes += [] if rounding is None else [rounding]
    format = format_of(target)
    encoding, more = plan_encoding(video, format, size, options)
    notes += more
    streams = plan_streams(video, timeline, format, encoding)
    losses = [f"{each.stream}: {each.why}" for each in streams if each.loses]
    if video.alpha:
        losses.append("transparency")
    if video.hdr is not None and not writes_hdr(encoding.codec):
        losses.append(f"mastering display metadata, which {encoding.codec} cannot write")
    notes += _unkept(video)
    if window.shift and options.start is None:
        notes.append(f"its clock begins at {float(-window.shift):.3f} s: every stream is moved to begin at 0")
    if format in ("matroska", "webm") and video.time_base.denominator != 1000:
        notes.append("Matroska counts milliseconds: every time is rounded to the nearest")
    frames, copied = 0, 0
    if timeline is not None:
        frames = sum(segment.frames for segment in segments)
        copied = sum(timeline.nbytes.get(each.stream.index, 0) for each in streams if each.action == "copy")
        if format in (Y4M, IMAGES) and not is_steady(timeline.pts, video.time_base, video.rate):
            losses.append(f"the times of its frames, which do not come at a constant rate: {format} cannot say when")
    needed = 2 * encoding.bytes_expected(frames) + copied
    return VideoPlan(
        video,
        timeline,
        nvdec,
        target,
        format,
        size,
        encoding,
        window,
        segments,
        streams,
        tuple(losses),
        tuple(notes),
        needed,
    )


def _decoding(video: VideoSource, options: UpscaleOptions) -> tuple[Nvdec | None, list[str]]:
    """Where the video is decoded.

    Returns:
        (how the GPU does it, if it does; a sentence about it).

    Raises:
        UsageError: on a cluster.
        DeviceError: there is no GPU.
    """
    if options.hwaccel == "none":
        return None, []
    if options.ray is not None:
        raise UsageError("--hwaccel cuda", "stands beside --ray, whose workers decode in software", "Leave one out.")
    kind, _, index = options.device.partition(":")
    found = find_nvdec(video, int(index or 0) if kind == "cuda" else 0)
    if isinstance(found, str):
        return None, [f"decoded in software: {found}"]
    return found, ["decoded by NVDEC, which notices frames that are missing, but not damage within one"]


def _interlacing(video: VideoSource, options: UpscaleOptions) -> list[str]:
    """Refuse what is really interlaced.

    Raises:
        MediaError: fields of two moments, and no word of what to do about them.
    """
    if not video.flagged_interlaced:
        return []
    if options.deinterlace:
        return ["deinterlaced by bwdif"]
    share = combed_share(video)
    if share > _COMBED:
        happened = f"interlaced: in {share:.0%} of its frames the two fields show two moments"
        raise MediaError(video.path, happened, "Add --deinterlace.")
    return [f"flagged as interlaced, but only {share:.0%} of its frames are: taken as progressive"]


def _stretch(
    video: VideoSource, timeline: Timeline | None, options: UpscaleOptions
) -> tuple[Window, tuple[Segment, ...]]:
    """What is kept of the source, and its segments.

    Raises:
        UsageError: nothing is left.
    """
    base = video.time_base
    first, end = video.start, None
    for name, seconds in (("--start", options.start), ("--end", options.end)):
        if seconds is not None and seconds < 0:
            raise UsageError(f"{name} {seconds:g}", "before the beginning", "Count from 0.")
    if timeline is None:
        first = round(Fraction(options.start or 0) / base)
        end = None if options.end is None else round(Fraction(options.end) / base)
        return Window(first * base or None, None, -first * base), (Segment(0, first, end, 0),)
    if options.start is not None:
        place = bisect_left(timeline.pts, video.start + options.start / base)
        first = timeline.pts[place] if place < len(timeline.pts) else timeline.pts[-1] + 1
    if options.end is not None:
        end = video.start + round(Fraction(options.end) / base)
    segments = cut(timeline, first, end)
    if not segments:
        asked = " ".join(
            f"{name} {value:g}"
            for name, value in (("--start", options.start), ("--end", options.end))
            if value is not None
        )
        raise UsageError(asked or video.path, "no frames are left", f"The video has {len(timeline.pts)} of them.")
    if options.start is not None:
        start = first * base
        return Window(start, None if end is None else end * base, -start), segments
    # The clock of a broadcast counts from nowhere. Of all other containers the offset is kept.
    shift = -timeline.begin if video.container == "mpegts" else Fraction(0)
    return Window(None, None if end is None else end * base, shift), segments


def target_size(video: VideoSource, scale: float, options: UpscaleOptions) -> tuple[tuple[int, int], str | None]:
    """The size of the output.

    Returns:
        (height, width) as stored, and a note where it was rounded to even numbers.

    Raises:
        UsageError: smaller than the source.
    """
    (height, width), note = video_size(video.display_size, options, scale)
    shown_height, shown_width = video.display_size
    if height < shown_height or width < shown_width:
        happened = f"{width}x{height} is smaller than the source, {shown_width}x{shown_height}"
        raise UsageError(video.path, happened, "Ask for a larger size.")
    return ((width, height) if video.rotation % 180 else (height, width)), note


def plan_encoding(
    video: VideoSource, format: str, size: tuple[int, int], options: UpscaleOptions
) -> tuple[Encoding, list[str]]:
    """Choose encoder, pixel format and tags, and try them.

    Returns:
        (settings, what was changed, a sentence each).

    Raises:
        UsageError: the encoder does not take an option.
        MediaError: it takes no planar format.
    """
    height, width = size
    notes = []
    depth = VideoFormat(video.planar).components[0].bits
    codec = options.codec
    if format in _CODEC_OF:
        if codec not in (None, _CODEC_OF[format]):
            raise UsageError(f"--codec {codec}", f"{format} is written by {_CODEC_OF[format]}", "Leave it out.")
        codec = _CODEC_OF[format]
    elif codec is None and format == "webm":
        codec = "libsvtav1" if depth > 8 else "libvpx-vp9"
    elif codec is None:
        codec = "libx265" if depth > 10 or video.tags.hdr else "libx264"
    if options.codec is None and codec in ("libx265", "libsvtav1"):
        notes.append(f"encoded by {codec}, for HDR or its {depth} bits")
    find_encoder(codec)
    wanted = video.planar if options.pix_fmt is None else planar_name(_known(options.pix_fmt))
    if format == IMAGES and options.pix_fmt is None:
        wanted = {1: "gray", 3: "gbrp"}[len(VideoFormat(video.planar).components)] + ("16le" if depth > 8 else "")
    pix_fmt, why = choose_pix_fmt(codec, wanted, height, width, PIXEL_FORMATS if format == Y4M else ())
    if why is not None:
        notes.append(why)
    if video.tags.hdr:
        notes.append("the networks were trained on images of standard range: look at the highlights of this HDR video")
    encoding = Encoding(
        codec=codec,
        pix_fmt=pix_fmt,
        height=height,
        width=width,
        time_base=video.time_base,
        rate=video.rate or Fraction(25),
        sar=video.sar,
        tags=_output_tags(video.tags, video.planar, pix_fmt),
        options=encoder_options(codec, options.crf, options.preset, options.encoder_options, video.hdr),
        threads=min(_ENCODER_THREADS, os.cpu_count() or 1),
        # Apple's players know HEVC in MP4 by this name alone.
        tag="hvc1" if format in ("mp4", "mov") and ("265" in codec or "hevc" in codec) else "",
    )
    open_encoder(encoding)
    return encoding, notes


def _known(pix_fmt: str) -> str:
    """A pixel format by FFmpeg's name.

    Raises:
        UsageError: there is none.
    """
    try:
        return VideoFormat(pix_fmt).name
    except ValueError as error:
        raise UsageError(f"--pix-fmt {pix_fmt}", "no such pixel format", "Try yuv420p or yuv420p10le.") from error


def _output_tags(tags: ColourTags, planar_in: str, planar_out: str) -> ColourTags:
    """The tags of the output: the source's, but for what changes between RGB and YCbCr."""
    rgb_in, rgb_out = VideoFormat(planar_in).is_rgb, VideoFormat(planar_out).is_rgb
    if rgb_in and not rgb_out:
        return replace(tags, matrix=1, range=1)
    return replace(tags, matrix=0, range=2) if rgb_out else tags


def _unkept(video: VideoSource) -> list[str]:
    """What rides on frames and cannot be carried over: PyAV gives no way to write it."""
    names = {
        "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
        "DOVI_RPU_BUFFER": "Dolby Vision metadata",
        "AMBIENT_VIEWING_ENVIRONMENT": "the ambient viewing environment",
        "ICC_PROFILE": "an ICC profile",
        "SPHERICAL": "the spherical mapping",
        "STEREO3D": "the stereo layout",
        "AFD": "the active format description",
    }
    found = [words for name, words in names.items() if name in video.side_data]
    return [f"not carried over: {', '.join(found)}"] if found else []
