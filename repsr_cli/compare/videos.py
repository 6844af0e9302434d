"""Combine two videos into one: side by side, or one half of each.

FFmpeg's overlay filter keeps the second video's timestamps and picks the nearest frame of the first, so the videos may
differ in frame rate and time base.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.reporting import Progress, Reporter
from repsr_cli.video.clock import shifted
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.decode import Decoder
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline, read_video

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter.context import FilterContext

QUALITY = {"crf": "16", "preset": "veryfast"}


def compare_videos(before: Path, after: Path, target: Path, *, split: bool, reporter: Reporter) -> None:
    """Write both videos into one, H.264 in MP4, with the audio of the first as AAC.

    Args:
        before: shown on the left, scaled to the other's size.
        split: show one half of each; False: whole frames side by side.

    Raises:
        MediaError: a video cannot be decoded, or the result cannot be encoded.
    """
    try:
        sides = _Side.of(before), _Side.of(after)
        with sides[0].source.open() as audio, av.open(f"file:{target}", "w", format="mp4") as out:
            compared = _Comparison(sides, split)
            stream = out.add_stream("libx264", options=QUALITY)
            stream.width, stream.height = compared.width, compared.height
            stream.pix_fmt = "yuv420p"
            # What the scale filter produces: BT.709, limited range.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
            stream.time_base = stream.codec_context.time_base = compared.time_base
            track = _Audio(audio, sides[0].timeline, out)
            total = len(sides[1].timeline.pts)
            for number, frame in enumerate(compared.frames(), 1):
                out.mux(stream.encode(frame))
                out.mux(track.until(_seconds(frame)))
                reporter.progress(Progress(number, total, "frame"))
            out.mux(stream.encode(None))
            out.mux(track.until(None))
        for side in sides:
            for note in side.notes:
                reporter.say(f"{side.source.path.name}: {note}")
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{before} and {after}", f"cannot be compared ({error})") from error


def frame_at(path: Path, seconds: float) -> NDArray[np.uint8]:
    """The frame of a video at a time, as a screen shows it: RGB, (H, W, 3).

    Raises:
        MediaError: the video cannot be decoded.
        UsageError: the video is shorter.
    """
    side = _Side.of(path)
    wanted = bisect_right(side.timeline.pts, round(seconds / side.source.time_base))
    first = side.timeline.pts[max(0, wanted - 1)]
    # Few files store how long the last frame is shown.
    if wanted == len(side.timeline.pts) and seconds > float(first * side.source.time_base) + 1:
        raise UsageError(path, f"is shorter than {seconds:g} s", "Choose an earlier time.")
    with closing(side.frames(first)) as frames:
        frame = next(frames)
    graph = av.filter.Graph()
    height, width = side.source.display_size
    _chain(graph, side.buffer(graph, frame), *side.fits(height, width), ("format", "rgb24"), ("buffersink", ""))
    graph.configure()
    graph.vpush(frame)
    return graph.vpull().to_ndarray().astype(np.uint8, copy=False)


def _chain(graph: av.filter.Graph, last: FilterContext, *filters: tuple[str, str]) -> FilterContext:
    """Add filters, (name, arguments), one after the other behind a filter. Returns the last of them."""
    for name, arguments in filters:
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    return last


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the videos, whose frames are cropped and timed as they are for upscaling.

    Attributes:
        decoder: gives its frames; one that is damaged or missing is shown as the one before.
    """

    source: VideoSource
    timeline: Timeline
    decoder: Decoder

    @classmethod
    def of(cls, path: Path) -> _Side:
        """Look at a video."""
        source, timeline = read_video(path)
        return cls(source, timeline, Decoder(source, timeline, "keep"))

    def frames(self, first: int | None = None) -> Generator[av.VideoFrame]:
        """Its frames in order of time, from one on, each with its time."""
        for frame in self.decoder.frames(first):
            assert frame.origin is not None
            frame.origin.pts, frame.origin.time_base = frame.pts, frame.time_base
            yield frame.origin

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed and noticed, a sentence each."""
        repeated = len(self.decoder.repeated)
        torn = () if self.timeline.damage is None else (f"damaged or cut off: {self.timeline.damage.rstrip('.')}",)
        damage = (f"{repeated} frames could not be decoded and repeat the one before",) if repeated else ()
        return (*torn, *self.timeline.notes, *self.decoder.notes, *damage)

    def buffer(self, graph: av.filter.Graph, like: av.VideoFrame, name: str | None = None) -> FilterContext:
        """Where a graph takes frames like this one in."""
        return graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=self.source.time_base, name=name
        )

    def fits(self, height: int, width: int) -> list[tuple[str, str]]:
        """The filters that show a frame upright, without what is cropped, at a size, in BT.709."""
        crop, shown = self.source.crop, self.source
        cut = [("crop", f"{shown.width}:{shown.height}:{crop.left}:{crop.top}:exact=1")] if crop else []
        return [*cut, *_upright(shown.rotation), _fit(width, height, shown.tags)]


class _Audio:
    """Encodes the audio of a video as AAC, mono or stereo, in step with the frames.

    Args:
        container: the video, opened for this alone.
        out: gets an audio stream if the video has one.
    """

    def __init__(self, container: InputContainer, timeline: Timeline, out: OutputContainer) -> None:
        self._frames: Iterator[av.AudioFrame] = iter(())
        self._stream: AudioStream | None = None
        if container.streams.audio:
            source = container.streams.audio[0]
            layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
            self._stream = out.add_stream("aac", rate=min(source.rate or 48_000, 48_000), layout=layout)
            packets = shifted(container.demux(source), timeline.shifts)
            self._frames = _ascending(frame for packet in packets for frame in source.decode(packet))
        self._head = next(self._frames, None)

    def until(self, seconds: float | None) -> list[av.Packet[AudioStream]]:
        """The next packets that begin by a time; None: all that remain."""
        packets: list[av.Packet[AudioStream]] = []
        while self._stream is not None and self._head is not None:
            if seconds is not None and (self._head.time or 0.0) > seconds:
                return packets
            packets += self._stream.encode(self._head)
            self._head = next(self._frames, None)
            if self._head is None:
                packets += self._stream.encode(None)
        return packets


def _ascending(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Frames without those that begin while the one before still sounds, as where recordings are joined."""
    end = -math.inf
    for frame in frames:
        seconds = frame.samples / (frame.sample_rate or 48_000)
        if frame.time is None or frame.time > end - seconds / 2:
            yield frame
            end = (frame.time or 0.0) + seconds


class _Comparison:
    """A filter graph with two inputs that are fed in order of time.

    Args:
        sides: the videos; the second's timestamps are kept.
        split: as ``compare_videos``.
    """

    def __init__(self, sides: tuple[_Side, _Side], split: bool) -> None:
        self.time_base = sides[1].source.time_base
        # H.264 in 4:2:0 needs even sizes.
        self.height, width = (side // 2 * 2 for side in sides[1].source.display_size)
        self.width = width if split else 2 * width
        self.graph = av.filter.Graph()
        self._frames = [side.frames() for side in sides]
        self._heads: list[av.VideoFrame | None] = [next(frames) for frames in self._frames]
        fits = [side.fits(self.height, width) for side in sides]
        halve = [("crop", f"{width // 2}:{self.height}:0:0")] if split else []
        widen = [] if split else [("pad", f"{self.width}:{self.height}:{width}:0")]
        self.inputs = [
            side.buffer(self.graph, head, name)
            for side, head, name in zip(sides, self._heads, "ab", strict=True)
            if head is not None
        ]
        plain = ("format", "yuv420p")
        before = _chain(self.graph, self.inputs[0], *fits[0], plain, *halve)
        after = _chain(self.graph, self.inputs[1], *fits[1], plain, *widen)
        over = self.graph.add("overlay", "0:0:ts_sync_mode=nearest:eof_action=repeat")
        after.link_to(over, 0, 0)
        before.link_to(over, 0, 1)
        line = ("drawbox", f"x={(width // 2 if split else width) - 1}:y=0:w=2:h=ih:color=white:t=fill")
        self.output = _chain(self.graph, over, line, ("buffersink", ""))
        self.graph.configure()

    def frames(self) -> Iterator[av.VideoFrame]:
        """One frame for every frame of the second video, at its time."""
        heads = self._heads
        while any(heads):
            # The side that is behind goes first, so that the graph buffers little.
            index = min((i for i in (0, 1) if heads[i] is not None), key=lambda i: _seconds(heads[i]))
            self.inputs[index].push(heads[index])
            heads[index] = next(self._frames[index], None)
            if heads[index] is None:
                self.inputs[index].push(None)
            yield from self._pull()
        yield from self._pull()

    def _pull(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = self.output.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            if isinstance(frame, av.VideoFrame):
                frame.pict_type = av.video.frame.PictureType.NONE
                yield frame


def _upright(rotation: int) -> list[tuple[str, str]]:
    """The filters that rotate a video as players do; ``rotation`` in degrees counter-clockwise."""
    turn = ("transpose", "cclock")
    return [turn] * (round(rotation / 90) % 4)


def _fit(width: int, height: int, tags: ColourTags) -> tuple[str, str]:
    """The filter that scales a video and converts it to BT.709 in limited range."""
    matrix = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}.get(tags.matrix, "bt601")
    levels = "full" if tags.range == 2 else "limited"
    source = f"in_color_matrix={matrix}:in_range={levels}"
    return (
        "scale",
        f"{width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int:{source}:out_color_matrix=bt709:out_range=limited",
    )


def _seconds(frame: av.VideoFrame | None) -> float:
    return frame.time if frame is not None and frame.time is not None else 0.0
