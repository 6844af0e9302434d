"""One clip: everything decided before the first frame, then segment after segment, then one file. Floor 4."""

from __future__ import annotations

import hashlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError, UsageError
from repsr_cli.media.video import VideoSource, probe
from repsr_cli.media.video_colour import ColourTags, plane_format
from repsr_cli.media.video_decode import Decoder
from repsr_cli.media.video_encode import (
    EncodedPacket,
    Encoding,
    SegmentEncoder,
    choose_pix_fmt,
    encoder_options,
    find_encoder,
    open_encoder,
    writes_hdr,
)
from repsr_cli.media.video_fields import combed_share
from repsr_cli.media.video_frames import CARRIED, Frame, Planes, planar_name, side_data
from repsr_cli.media.video_mux import StreamAction, Window, format_of, join, plan_streams
from repsr_cli.media.video_segments import SegmentWriter, Store, fingerprint, free_space
from repsr_cli.media.video_stages import run_stages
from repsr_cli.media.video_timeline import Segment, Timeline, cut, scan
from repsr_cli.pipelines.options import Outcome, Progress, Reporter, UpscaleOptions

# Above this share of frames with two moments in them, a clip is interlaced whatever else it is.
_COMBED = 0.25
_ENCODER_THREADS = 16


@dataclass(frozen=True, slots=True)
class VideoPlan:
    """What will be done to a clip, decided without a network.

    Attributes:
        source: the clip.
        timeline: its packets.
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
    timeline: Timeline
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
    def frames(self) -> int:
        """Frames to upscale, as far as the packets tell."""
        return sum(segment.frames for segment in self.segments)

    def __str__(self) -> str:
        source, encoding = self.source, self.encoding
        rate = f"{float(source.rate):.5g} fps" if source.rate else "unknown rate"
        options = " ".join(f"{name}={value}" for name, value in encoding.options)
        lines = [
            f"source: {source.width}x{source.height} {source.codec} {source.pix_fmt}, {self.frames} frames, {rate}",
            f"target: {encoding.width}x{encoding.height} {encoding.codec} {encoding.pix_fmt}, {self.format}, {options}",
            f"segments: {len(self.segments)}",
            *(f"stream {stream}" for stream in self.streams),
            *(f"note: {note}" for note in self.notes),
            *(f"lost without --allow-loss being given: {loss}" for loss in self.losses),
            f"space: about {self.bytes_needed / 1e6:.0f} MB while working",
        ]
        return "\n".join(lines)


def plan_video(source: Path, target: Path, scale: float, options: UpscaleOptions) -> VideoPlan:
    """Decide everything about a clip.

    Args:
        source: the clip.
        target: the file to write.
        scale: the network's factor, for where nothing else was asked for.
        options: the request.

    Raises:
        MediaError: the clip cannot be read, is damaged or interlaced, or the container cannot hold the output.
        UsageError: an option that makes no sense for it.
    """
    clip = probe(source, options.matrix, options.full_range)
    timeline = scan(clip)
    notes = list(clip.notes)
    if timeline.damage is not None:
        if options.on_error == "stop":
            remedy = "Take what there is with --on-error keep, or get the file again."
            raise MediaError(source, f"damaged or cut off: {timeline.damage}", remedy)
        notes.append(f"damaged or cut off: {timeline.damage}")
    notes += _interlacing(clip, options)
    window, segments = _stretch(clip, timeline, options)
    size = target_size(clip, scale, options)
    format = format_of(target)
    encoding, more = plan_encoding(clip, format, size, options)
    notes += more
    streams = plan_streams(clip, timeline, format, encoding)
    losses = [f"{each.stream}: {each.why}" for each in streams if each.loses]
    if clip.alpha:
        losses.append("transparency")
    if clip.hdr is not None and not writes_hdr(encoding.codec):
        losses.append(f"mastering display metadata, which {encoding.codec} cannot write")
    notes += _unkept(clip)
    if window.shift and options.start is None:
        notes.append(f"its clock begins at {float(-window.shift):.3f} s: every stream is moved to begin at 0")
    if format in ("matroska", "webm") and clip.time_base.denominator != 1000:
        notes.append("Matroska counts milliseconds: every time is rounded to the nearest")
    frames = sum(segment.frames for segment in segments)
    copied = sum(timeline.nbytes.get(each.stream.index, 0) for each in streams if each.action == "copy")
    needed = 2 * encoding.bytes_expected(frames) + copied
    return VideoPlan(
        clip,
        timeline,
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


def _interlacing(clip: VideoSource, options: UpscaleOptions) -> list[str]:
    """Refuse what is really interlaced.

    Raises:
        MediaError: fields of two moments, and no word of what to do about them.
    """
    if not clip.flagged_interlaced:
        return []
    if options.deinterlace:
        return ["deinterlaced by bwdif"]
    share = combed_share(clip)
    if share > _COMBED:
        happened = f"interlaced: in {share:.0%} of its frames the two fields show two moments"
        raise MediaError(clip.path, happened, "Add --deinterlace.")
    return [f"flagged as interlaced, but only {share:.0%} of its frames are: taken as progressive"]


def _stretch(clip: VideoSource, timeline: Timeline, options: UpscaleOptions) -> tuple[Window, tuple[Segment, ...]]:
    """What is kept of the source, and its segments.

    Raises:
        UsageError: nothing is left.
    """
    base = clip.time_base
    first, end = clip.start, None
    for name, seconds in (("--start", options.start), ("--end", options.end)):
        if seconds is not None and seconds < 0:
            raise UsageError(f"{name} {seconds:g}", "before the beginning", "Count from 0.")
    if options.start is not None:
        place = bisect_left(timeline.pts, clip.start + options.start / base)
        first = timeline.pts[place] if place < len(timeline.pts) else timeline.pts[-1] + 1
    if options.end is not None:
        end = clip.start + round(Fraction(options.end) / base)
    segments = cut(timeline, first, end)
    if not segments:
        asked = " ".join(
            f"{name} {value:g}"
            for name, value in (("--start", options.start), ("--end", options.end))
            if value is not None
        )
        raise UsageError(asked or clip.path, "no frames are left", f"The clip has {len(timeline.pts)} of them.")
    if options.start is not None:
        start = first * base
        return Window(start, None if end is None else end * base, -start), segments
    # The clock of a broadcast counts from nowhere. Of all other containers the offset is kept.
    shift = -timeline.begin if clip.container == "mpegts" else Fraction(0)
    return Window(None, None if end is None else end * base, shift), segments


def target_size(clip: VideoSource, scale: float, options: UpscaleOptions) -> tuple[int, int]:
    """(height, width) of the output as stored.

    A width or height that was asked for is that of the picture as shown. Where one follows from the other it is rounded
    to an even number, which every codec takes.

    Raises:
        UsageError: smaller than the source.
    """
    if options.width is None and options.height is None:
        factor = options.scale or scale
        return round(clip.height * factor), round(clip.width * factor)
    shown_height, shown_width = clip.display_size
    width, height = options.width, options.height
    if height is None:
        height = 2 * round(shown_height * (width or 0) / shown_width / 2)
    if width is None:
        width = 2 * round(shown_width * height / shown_height / 2)
    if height < shown_height or width < shown_width:
        happened = f"{width}x{height} is smaller than the source, {shown_width}x{shown_height}"
        raise UsageError(clip.path, happened, "Ask for a larger size.")
    return (width, height) if clip.rotation % 180 else (height, width)


def plan_encoding(
    clip: VideoSource, format: str, size: tuple[int, int], options: UpscaleOptions
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
    depth = VideoFormat(clip.planar).components[0].bits
    codec = options.codec
    if codec is None:
        codec = "libvpx-vp9" if format == "webm" else "libx265" if depth > 10 or clip.tags.hdr else "libx264"
        if codec == "libx265":
            notes.append("HDR or more than 10 bits: encoded by libx265")
    find_encoder(codec)
    wanted = clip.planar if options.pix_fmt is None else planar_name(_known(options.pix_fmt))
    pix_fmt, why = choose_pix_fmt(codec, wanted, height, width)
    if why is not None:
        notes.append(why)
    if clip.tags.hdr:
        notes.append("the networks were trained on pictures of standard range: look at the highlights of this HDR clip")
    encoding = Encoding(
        codec=codec,
        pix_fmt=pix_fmt,
        height=height,
        width=width,
        time_base=clip.time_base,
        rate=clip.rate or Fraction(25),
        sar=clip.sar,
        tags=_output_tags(clip.tags, clip.planar, pix_fmt),
        options=encoder_options(codec, options.crf, options.preset, options.encoder_options, clip.hdr),
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


def _unkept(clip: VideoSource) -> list[str]:
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
    found = [words for name, words in names.items() if name in clip.side_data]
    return [f"not carried over: {', '.join(found)}"] if found else []


@dataclass(frozen=True, slots=True, eq=False)
class _Upscaled:
    """A frame on its way to the encoder."""

    segment: int
    planes: Planes
    pts: int
    duration: int
    origin: VideoFrame | None


@dataclass(slots=True)
class _Work:
    """The state of one run: what is to be done and what has been."""

    plan: VideoPlan
    decoder: Decoder
    store: Store | None
    reporter: Reporter
    done: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """The frames of all segments that are not done, with the numbers of their segments."""
        segments = [segment for segment in self.plan.segments if segment.index not in self.done]
        for run in _runs(segments):
            whole = run[0].index == 0 and self.plan.window.start is None
            inside = 0
            for frame in self.decoder.frames(None if whole else run[0].first, run[-1].end):
                while run[inside].end is not None and frame.pts >= (run[inside].end or 0):
                    inside += 1
                yield run[inside].index, frame

    def encode(self, frames: Iterator[_Upscaled]) -> None:
        """Encode frames segment by segment and store each when it is whole."""
        encoder: SegmentEncoder | None = None
        writer: SegmentWriter | None = None
        segment = -1
        try:
            for frame in frames:
                if frame.segment != segment:
                    self._close(segment, encoder, writer)
                    segment, encoder = frame.segment, SegmentEncoder(self.plan.encoding)
                    writer = SegmentWriter(self.store, segment, {"pts": frame.pts}) if self.store else None
                assert encoder is not None
                packets = encoder.encode(frame.planes, frame.pts, frame.duration, frame.origin)
                self._add(packets, writer)
                self.count += 1
                self.reporter.progress(Progress(self.count, self.plan.frames, "frame"))
            self._close(segment, encoder, writer)
        except OSError as error:
            raise MediaError(self.plan.target, error.strerror or str(error), "Make room, and run it again.") from error
        finally:
            if writer is not None:
                writer.abandon()

    def _add(self, packets: list[EncodedPacket], writer: SegmentWriter | None) -> None:
        for packet in packets:
            if writer is not None:
                writer.add(packet)

    def _close(self, segment: int, encoder: SegmentEncoder | None, writer: SegmentWriter | None) -> None:
        if encoder is None:
            return
        self._add(encoder.finish(), writer)
        if writer is not None:
            writer.finish()
        self.done[segment] = encoder.frames


def _runs(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Consecutive segments together: these need only one seek."""
    run: list[Segment] = []
    for segment in segments:
        if run and segment.index != run[-1].index + 1:
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def upscale_video(
    source: Path, target: Path, upscaler: Upscaler, options: UpscaleOptions, reporter: Reporter
) -> Outcome:
    """Upscale a clip.

    Segments that are finished stay on disk until the target is; the same command goes on from them.

    Args:
        source: the clip.
        target: the file to write.
        upscaler: the network.
        options: the request.
        reporter: where progress goes.

    Raises:
        MediaError: reading, decoding, encoding or writing failed.
        UsageError: an option makes no sense, something would be lost, or a begun job was another.
        DeviceError: the network failed on its device.
    """
    began = time.perf_counter()
    plan = plan_video(source, target, upscaler.scale, options)
    _agree(plan, options)
    clip, encoding = plan.source, plan.encoding
    fmt_in = plane_format(clip.planar, clip.tags, clip.path)
    fmt_out = plane_format(encoding.pix_fmt, encoding.tags, clip.path)
    natural = (clip.height * upscaler.scale, clip.width * upscaler.scale)
    network = PlaneUpscaler(upscaler, fmt_in, fmt_out, None if plan.size == natural else plan.size)
    store = None if options.benchmark else Store.begin(target, _job(plan, upscaler, options), options.resume)
    decoder = Decoder(clip, plan.timeline, options.on_error, options.deinterlace)
    work = _Work(plan, decoder, store, reporter)
    try:
        if store is not None:
            work.done = store.finished()
            work.count = sum(work.done.values())
            if work.done:
                reporter.say(f"{len(work.done)} of {len(plan.segments)} segments are there already: going on")
        resumed = work.count

        def upscale(item: tuple[int, Frame]) -> _Upscaled:
            segment, frame = item
            origin = frame.origin
            if origin is not None and not CARRIED & side_data(origin).keys():
                origin = None
            return _Upscaled(segment, network(frame.planes), frame.pts, frame.duration, origin)

        stages = run_stages(
            work.frames,
            upscale,
            work.encode,
            lambda item: item[1].nbytes,
            lambda item: sum(plane.nbytes for plane in item.planes),
        )
        _all_there(plan, work.done)
        if store is not None:
            _finish(plan, store, work.count)
    except BaseException:
        if store is not None and (not options.resume or store.remove_if_empty()):
            store.remove()
        elif store is not None:
            reporter.say("finished segments are kept: the same command goes on from them, --no-resume begins again")
        raise
    seconds = time.perf_counter() - began
    return Outcome(
        source,
        target,
        seconds,
        _facts(plan, work, upscaler, stages, resumed, network.reused),
        _closing_notes(plan, work, stages),
    )


def _agree(plan: VideoPlan, options: UpscaleOptions) -> None:
    """See that nothing is lost, overwritten or begun in vain.

    Raises:
        UsageError: something would be lost, or the target exists.
        MediaError: there is no room.
    """
    if options.benchmark:
        return
    if plan.target.exists() and not options.overwrite:
        raise UsageError(plan.target, "exists", "Add -y to replace it.")
    if plan.losses and not options.allow_loss:
        better = "" if plan.format == "matroska" else ", or try .mkv"
        raise UsageError(plan.target, f"would lack {'; '.join(plan.losses)}", f"Agree with --allow-loss{better}.")
    free = free_space(plan.target.parent)
    if plan.bytes_needed > free:
        happened = f"needs about {plan.bytes_needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free"
        raise MediaError(plan.target, happened, "Make room, or write to another disk with -o.")


def _job(plan: VideoPlan, upscaler: Upscaler, options: UpscaleOptions) -> dict[str, Any]:
    """Everything that packets depend on."""
    digest = hashlib.sha256()
    for name, weights in upscaler.net.state_dict().items():
        digest.update(name.encode() + weights.cpu().numpy().tobytes())
    return {
        "source": fingerprint(plan.source.path),
        "network": digest.hexdigest()[:32],
        "device": upscaler.device.type,
        "precision": upscaler.precision,
        "tile": str(options.tile),
        "deinterlace": options.deinterlace,
        "encoding": repr(plan.encoding),
        "planes": f"{plan.source.planar} {plan.source.tags}",
        "segments": [[segment.first, segment.end] for segment in plan.segments],
    }


def _all_there(plan: VideoPlan, done: dict[int, int]) -> None:
    """Hold the output against what the source promised.

    Raises:
        MediaError: a segment gave no frames.
    """
    missing = [segment.index for segment in plan.segments if not done.get(segment.index)]
    if missing:
        at = float((plan.segments[missing[0]].first - plan.source.start) * plan.source.time_base)
        raise MediaError(plan.source.path, f"no frames could be had from {at:.3f} s on", "Check that it plays.")


def _finish(plan: VideoPlan, store: Store, frames: int) -> None:
    """Join the segments and put the file in its place.

    Raises:
        MediaError: the muxer wrote fewer packets than there are frames, or could not write.
    """
    partial = store.folder / f"joined{plan.target.suffix}"
    packets = (packet for segment in plan.segments for packet in store.packets(segment.index))
    written = join(plan.source, plan.streams, plan.format, plan.encoding, packets, partial, plan.window)
    if written != frames:
        raise MediaError(plan.target, f"{written} packets were written for {frames} frames")
    partial.replace(plan.target)
    store.remove()


def _facts(
    plan: VideoPlan, work: _Work, upscaler: Upscaler, stages: dict[str, float], resumed: int, reused: float
) -> dict[str, Any]:
    """What a machine may want to know."""
    encoding, wall = plan.encoding, max(stages["wall"], 1e-9)
    return {
        "frames": work.count,
        "resumed_frames": resumed,
        "fps": round((work.count - resumed) / wall, 3),
        "source_size": [plan.source.height, plan.source.width],
        "size": list(plan.size),
        "codec": encoding.codec,
        "pix_fmt": encoding.pix_fmt,
        "segments": len(plan.segments),
        "streams": [str(stream) for stream in plan.streams],
        "network": upscaler.describe(),
        "reused": round(reused, 4),
        "occupancy": {name: round(stages[name] / wall, 3) for name in ("decode", "network", "encode")},
        "repeated_frames": [round(at, 6) for at in work.decoder.repeated],
    }


def _closing_notes(plan: VideoPlan, work: _Work, stages: dict[str, float]) -> tuple[str, ...]:
    """What the user should know when it is over."""
    notes = [*plan.notes, *work.decoder.notes]
    notes += [f"lost: {loss}" for loss in plan.losses]
    if work.decoder.repeated:
        times = ", ".join(f"{at:.3f}" for at in work.decoder.repeated[:20])
        notes.append(
            f"{len(work.decoder.repeated)} frames could not be decoded and repeat the one before, at {times} s"
        )
    slowest = max(("decode", "network", "encode"), key=lambda name: stages[name])
    shares = ", ".join(
        f"{name} {stages[name] / max(stages['wall'], 1e-9):.0%}" for name in ("decode", "network", "encode")
    )
    notes.append(f"slowest stage: {slowest} (busy: {shares})")
    return tuple(notes)
