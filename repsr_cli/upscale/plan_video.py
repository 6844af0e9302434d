"""Decide everything about a video before its first frame, without loading a model."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal

from av.container import InputContainer

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.model.zoo import ModelFile
from repsr_cli.reporting import bytes_text
from repsr_cli.sizes import video_size
from repsr_cli.upscale.judge_video import judge_video
from repsr_cli.upscale.judged import Judged
from repsr_cli.upscale.models import Compute, choose_model
from repsr_cli.upscale.plan_encoding import CODEC_OF, plan_encoding
from repsr_cli.upscale.request import Request, SizeOptions, VideoOptions
from repsr_cli.video.clock import RAW
from repsr_cli.video.encoders import Encoding, reduction, writes_hdr
from repsr_cli.video.frames import unkept
from repsr_cli.video.image_sequence import is_pattern
from repsr_cli.video.interlace import survey
from repsr_cli.video.mux import StreamAction, Window
from repsr_cli.video.nvdec import Nvdec, find_nvdec
from repsr_cli.video.plan_streams import IMAGES, Y4M, format_of, plan_streams
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Segment, Timeline, cut, read_video
from repsr_cli.video.y4m import PIPE, describe_pipe, is_steady, open_pipe

# Above this share of frames with two moments in them, a video is interlaced whatever else it is.
_COMBED = 0.25


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What will be done to a video.

    Attributes:
        factor: how many times the video is enlarged, on the axis that grows more.
        original: the file that was named; an animation is read from a copy, which ``source`` describes.
        timeline: its packets; None on standard input, which can be read only once.
        nvdec: how a GPU decodes it; None: it is decoded in software.
        format: FFmpeg's name of its container.
        size: (height, width) of the output as stored.
        window: what is kept of the source.
        losses: what the output will lack.
        notes: what was assumed or changed, a sentence each.
        on_error: at a corrupt frame, ``stop`` or ``keep`` (repeat the frame before it).
        deinterlace: deinterlace with bwdif.
        flagged_only: only frames that are flagged as interlaced.
        reuse: keep the output of what did not change since the frame before.
        resume: keep finished segments and continue from them.
        anew: do not refuse where such segments are of another job; make them anew.
        allow_loss: let streams be dropped that the container cannot hold.
        benchmark: write nothing.
        pipe: standard input, of which only the header was read; None of a file, whose plan can be pickled.
    """

    kind: ClassVar[Literal["video"]] = "video"
    compute: Compute
    factor: float
    original: Path
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
    on_error: Literal["stop", "keep"]
    deinterlace: bool
    flagged_only: bool
    reuse: bool
    resume: bool
    overwrite: bool
    allow_loss: bool
    benchmark: bool
    anew: bool = False
    pipe: InputContainer | None = field(default=None, repr=False, compare=False)

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of the video as shown."""
        return self.source.display_size

    @property
    def resumable(self) -> bool:
        """Whether a later run can continue from the segments that are finished."""
        return self.resume and self.timeline is not None

    @property
    def frames(self) -> int | None:
        """Frames to upscale, as far as the packets tell; None if they cannot be counted ahead."""
        return None if self.timeline is None else sum(segment.frames for segment in self.segments)

    @property
    def bytes_copied(self) -> int:
        """Bytes of the streams that are copied, as far as the packets tell."""
        sizes = {} if self.timeline is None else self.timeline.nbytes
        return sum(sizes.get(each.stream.index, 0) for each in self.streams if each.action == "copy")

    @property
    def bytes_needed(self) -> int:
        """About how much space the work takes on the target's disk."""
        # Segments are joined from files of their own; raw frames are written once.
        times = 1 if self.format == Y4M else 2
        return times * self.encoding.bytes_expected(self.frames or 0) + self.bytes_copied

    def __str__(self) -> str:
        source, encoding = self.source, self.encoding
        rate = f"{float(source.rate):.5g} fps" if source.rate else "unknown rate"
        options = " ".join(f"{name}={value}" for name, value in encoding.options)
        frames = "unknown" if self.frames is None else self.frames
        lines = [
            f"source: {source.width}x{source.height} {source.codec} {source.pix_fmt}, {frames} frames, {rate}",
            f"target: {encoding.width}x{encoding.height} {encoding.codec} {encoding.pix_fmt}, "
            + ", ".join(filter(None, (self.format, options))),
            f"segments: {len(self.segments)}",
            *(f"stream {stream}" for stream in self.streams),
            *(f"note: {note}" for note in self.notes),
            *(f"would be lost, and needs --allow-loss: {loss}" for loss in self.losses),
            f"space: about {bytes_text(self.bytes_needed)} while working",
        ]
        return "\n".join(lines)


def plan_video(
    source: Path, target: Path, request: Request, model: ModelFile | None = None, judged: Judged | None = None
) -> VideoPlan:
    """Decide everything about a video.

    Args:
        source: the video; ``-`` is y4m on standard input, ``frames/%06d.png`` numbered images.
        target: the file to write; ``-`` is y4m on standard output, ``frames/%06d.png`` numbered images.
        model: the model to use; None: the one that fits the request.
        judged: the kind of model that it needs, where another file than the source tells that.

    Raises:
        MediaError: the video cannot be read, is damaged or interlaced, or the container cannot hold the output.
        CheckpointError: no model fits the request.
        UsageError: an option that makes no sense for it, or it is larger than the size asked for.
        DeviceError: a GPU is asked for that is absent.
    """
    options = request.video
    video, timeline, pipe = _opened(source, options)
    compute, factor = _compute(request, model, video, timeline, judged)
    nvdec, decoding = _decoding(video, options, compute)
    interlacing, flagged_only = _interlacing(video, timeline, options)
    notes = [*video.notes, *(timeline.notes if timeline is not None else ()), *_damage(video, timeline, options)]
    notes += [*interlacing, *decoding]
    window, segments = _stretch(video, timeline, options)
    size, rounding = target_size(video, compute.model.scale, request.size)
    notes += [] if rounding is None else [rounding]
    format = format_of(target)
    encoding, more = plan_encoding(video, format, size, options)
    notes += more
    streams = plan_streams(video, timeline, format, encoding)
    notes += [*_unkept(video), *_times(video, timeline, format, window, options)]
    notes += [str(each) for each in streams if each.times or (each.action == "drop" and not each.loses and each.why)]
    return VideoPlan(
        compute=compute,
        factor=factor,
        original=source,
        source=video,
        timeline=timeline,
        nvdec=nvdec,
        target=target,
        format=format,
        size=size,
        encoding=encoding,
        window=window,
        segments=segments,
        streams=streams,
        losses=_losses(video, timeline, format, encoding, streams, options),
        notes=tuple(notes),
        on_error=options.on_error,
        deinterlace=options.deinterlace,
        flagged_only=flagged_only,
        reuse=options.reuse,
        resume=options.resume,
        overwrite=request.run.overwrite,
        allow_loss=request.run.allow_loss,
        benchmark=request.run.benchmark,
        pipe=pipe,
    )


def _opened(source: Path, options: VideoOptions) -> tuple[VideoSource, Timeline | None, InputContainer | None]:
    """What the container's header and its packets say; of a pipe no packets, but the pipe, to be read on.

    Raises:
        UsageError: ``--fps`` is missing, or given for a video that has times.
    """
    if options.fps is None and is_pattern(source):
        raise UsageError(source, "images do not say how fast they follow each other", "Add --fps 24.")
    if source == PIPE:
        if options.fps is not None:
            raise UsageError(f"--fps {options.fps}", f"{source} has times of its own", "Leave it out.")
        pipe = open_pipe()
        return describe_pipe(pipe, options.matrix, options.full_range), None, pipe
    video, timeline = read_video(source, options.matrix, options.full_range, options.fps)
    if options.fps is not None and not is_pattern(source) and video.container not in RAW:
        raise UsageError(f"--fps {options.fps}", f"{source} has times of its own", "Leave it out.")
    return video, timeline, None


def _compute(
    request: Request,
    model: ModelFile | None,
    video: VideoSource,
    timeline: Timeline | None,
    judged: Judged | None,
) -> tuple[Compute, float]:
    """The model and where it computes, and how many times the video is enlarged.

    Raises:
        CheckpointError: no model fits the request.
        UsageError: the size is not known beforehand, or the video cannot be divided among workers.
    """
    if model is None:
        if video.path == PIPE and request.size.sized:
            raise UsageError(
                video.path, "the size of frames from a pipe is not known beforehand", "Give a factor with -s."
            )
        compute, factor = choose_model(
            request, video.path, video.display_size, lambda: judged or judge_video(video, timeline)
        )
    else:
        compute, factor = Compute.of(request, model), float(model.scale)
    if compute.ray is not None and timeline is not None and timeline.clock is not None and timeline.clock.by_order:
        raise UsageError("--ray", f"{video.path} has no presentation times to divide it by", "Run it without --ray.")
    return compute, factor


def _damage(video: VideoSource, timeline: Timeline | None, options: VideoOptions) -> list[str]:
    """Refuse a damaged file, or note the damage."""
    if timeline is None or timeline.damage is None:
        return []
    damage = f"damaged or cut off: {timeline.damage.rstrip('.')}"
    if options.on_error == "stop":
        remedy = "Keep what can be read with --on-error keep, or get the file again."
        raise MediaError(video.path, damage, remedy)
    return [damage]


def _losses(
    video: VideoSource,
    timeline: Timeline | None,
    format: str,
    encoding: Encoding,
    streams: tuple[StreamAction, ...],
    options: VideoOptions,
) -> tuple[str, ...]:
    """What the output will lack."""
    losses = [f"{each.stream}: {each.why}" for each in streams if each.loses]
    if video.alpha:
        losses.append("transparency")
    if video.hdr is not None and not writes_hdr(encoding.codec):
        losses.append(f"mastering display metadata, which {encoding.codec} cannot write")
    steady = timeline is None or is_steady(timeline.pts, video.time_base, video.rate)
    if format in (Y4M, IMAGES) and not steady:
        losses.append(f"the times of its frames, which do not come at a constant rate: {format} cannot say when")
    if options.codec is None and options.pix_fmt is None and format not in CODEC_OF:
        losses += filter(None, [reduction(video.planar, encoding.pix_fmt)])
    return tuple(losses)


def _times(
    video: VideoSource, timeline: Timeline | None, format: str, window: Window, options: VideoOptions
) -> list[str]:
    """How the times of the output differ from the source's."""
    notes = []
    if window.shift and options.start is None:
        notes.append(f"its clock begins at {float(-window.shift):.3f} s: every stream is moved to begin at 0")
    if format in ("matroska", "webm") and (timeline is None or _rounded(timeline.pts, video.time_base, window.shift)):
        notes.append("Matroska counts milliseconds: the times of frames are rounded to the nearest")
    return notes


def _rounded(pts: Iterable[int], time_base: Fraction, shift: Fraction) -> bool:
    """Whether any of these times is not a number of milliseconds."""
    unit, moved = 1000 * time_base, 1000 * shift
    scale = math.lcm(unit.denominator, moved.denominator)
    return any((time * unit.numerator * (scale // unit.denominator) + int(moved * scale)) % scale for time in pts)


def _decoding(video: VideoSource, options: VideoOptions, compute: Compute) -> tuple[Nvdec | None, list[str]]:
    """Where the video is decoded.

    Returns:
        (how the GPU does it, if it does; a sentence about it).

    Raises:
        UsageError: on a cluster.
        DeviceError: there is no GPU.
    """
    if options.hwaccel == "none":
        return None, []
    if compute.ray is not None:
        raise UsageError("--hwaccel cuda", "stands beside --ray, whose workers decode in software", "Leave one out.")
    kind, _, index = compute.devices[0].partition(":")
    found = find_nvdec(video, int(index or 0) if kind == "cuda" else 0)
    if isinstance(found, str):
        return None, [f"decoded in software: {found}"]
    return found, ["decoded by NVDEC, which notices frames that are missing, but not damage within one"]


def _interlacing(video: VideoSource, timeline: Timeline | None, options: VideoOptions) -> tuple[list[str], bool]:
    """Refuse what is really interlaced.

    Returns:
        (sentences about it, whether only frames that are flagged are to be deinterlaced).
    """
    if timeline is None:
        if video.flagged_interlaced and not options.deinterlace:
            raise MediaError(video.path, "flagged as interlaced", "Add --deinterlace.")
        return (["deinterlaced by bwdif"] if options.deinterlace else []), False
    found = survey(video, timeline)
    if options.deinterlace:
        only = bool(found.flagged and found.unflagged) and not found.combed_unflagged
        return ["deinterlaced by bwdif" + (", where frames are flagged as interlaced" if only else "")], only
    if found.flagged and found.combed > _COMBED:
        where = f" from {found.first:.3f} s on" if found.unflagged and found.first is not None else ""
        happened = f"interlaced{where}: in {found.combed:.0%} of its frames the two fields show two moments"
        raise MediaError(video.path, happened, "Add --deinterlace.")
    notes = []
    if found.flagged:
        notes.append(f"flagged as interlaced, but only {found.combed:.0%} of its frames are: taken as progressive")
    if found.combed_unflagged:
        notes.append("its frames look interlaced, though they are not flagged so: if they are, add --deinterlace")
    return notes, False


def _stretch(
    video: VideoSource, timeline: Timeline | None, options: VideoOptions
) -> tuple[Window, tuple[Segment, ...]]:
    """What is kept of the source, and its segments."""
    base = video.time_base
    first, end = video.start, None
    bounds = {"--start": options.start, "--end": options.end}
    for name, seconds in bounds.items():
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
        asked = " ".join(f"{name} {seconds:g}" for name, seconds in bounds.items() if seconds is not None)
        raise UsageError(asked or video.path, "no frames are left", f"The video has {len(timeline.pts)} of them.")
    if options.start is not None:
        start = first * base
        return Window(start, None if end is None else end * base, -start), segments
    # The clock of a broadcast counts from nowhere. Of all other containers the offset is kept.
    shift = -timeline.begin if video.container == "mpegts" else Fraction(0)
    return Window(None, None if end is None else end * base, shift), segments


def target_size(video: VideoSource, scale: float, size: SizeOptions) -> tuple[tuple[int, int], str | None]:
    """The size of the output.

    Returns:
        (height, width) as stored, and a note where it was rounded to even numbers.
    """
    (height, width), note = video_size(video.display_size, size.sides(), scale)
    shown_height, shown_width = video.display_size
    if height < shown_height or width < shown_width:
        happened = f"{width}x{height} is smaller than the source, {shown_width}x{shown_height}"
        raise UsageError(video.path, happened, "Ask for a larger size.")
    return ((width, height) if video.rotation % 180 else (height, width)), note


def _unkept(video: VideoSource) -> list[str]:
    """What rides on frames and cannot be carried over."""
    found = unkept(video.side_data)
    return [f"not carried over: {found}"] if found else []
