"""Combine two videos into one: side by side, or one half of each.

Both begin with their first frames. Every frame of the second video is shown beside the nearest frame of the first, so
they may differ in frame rate and time base. Where one ends, its last frame stays until the other ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
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
            track = _Audio(audio, sides[0].timeline, out, float(sides[1].begin - sides[0].begin))
            total = len(sides[1].timeline.pts)
            for number, frame in enumerate(compared.frames(), 1):
                out.mux(stream.encode(frame))
                out.mux(track.until(frame.time or 0.0))
                reporter.progress(Progress(number, max(number, total), "frame"))
            out.mux(stream.encode(None))
            out.mux(track.until(None))
        for side in sides:
            for note in side.notes:
                reporter.say(f"{side.source.path.name}: {note}")
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{before} and {after}", f"cannot be compared ({error})") from error


def frame_at(path: Path, seconds: float) -> NDArray[np.uint8]:
    """The frame of a video at a time, as a screen shows it: RGB, (H, W, 3).

    Args:
        seconds: after its first frame.

    Raises:
        MediaError: the video cannot be decoded.
        UsageError: the video is shorter.
    """
    side = _Side.of(path)
    times, step = side.timeline.pts, side.source.time_base
    wanted = bisect_right(times, times[0] + round(seconds / step))
    first = times[max(0, wanted - 1)]
    # Few files store how long the last frame is shown.
    if wanted == len(times) and seconds > float((first - times[0]) * step) + 1:
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
    def begin(self) -> Fraction:
        """The time of its first frame, in seconds."""
        return self.timeline.pts[0] * self.source.time_base

    def shown(self, height: int, width: int) -> Iterator[_Shown]:
        """Its frames in order of time, as a screen shows them, at a size of even sides."""
        begin = float(self.begin)
        graph: av.filter.Graph | None = None
        for frame in self.frames():
            if graph is None:
                graph = av.filter.Graph()
                filters = *self.fits(height, width), ("format", "yuv420p"), ("buffersink", "")
                _chain(graph, self.buffer(graph, frame), *filters)
                graph.configure()
            graph.vpush(frame)
            yield _Shown((frame.time or 0.0) - begin, _planes(graph.vpull()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed and noticed, a sentence each."""
        repeated = len(self.decoder.repeated)
        torn = () if self.timeline.damage is None else (f"damaged or cut off: {self.timeline.damage.rstrip('.')}",)
        damage = (f"{repeated} frames could not be decoded and repeat the one before",) if repeated else ()
        return (*torn, *self.timeline.notes, *self.decoder.notes, *damage)

    def buffer(self, graph: av.filter.Graph, like: av.VideoFrame) -> FilterContext:
        """Where a graph takes frames like this one in."""
        return graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=self.source.time_base
        )

    def fits(self, height: int, width: int) -> list[tuple[str, str]]:
        """The filters that show a frame upright, without what is cropped, at a size, in BT.709."""
        crop, shown = self.source.crop, self.source
        cut = [("crop", f"{shown.width}:{shown.height}:{crop.left}:{crop.top}:exact=1")] if crop else []
        turns = [("transpose", "cclock")] * (round(shown.rotation / 90) % 4)  # degrees counter-clockwise
        return [*cut, *turns, _fit(width, height, shown.tags)]


class _Audio:
    """Encodes the audio of a video as AAC, mono or stereo, in step with the frames.

    Args:
        container: the video, opened for this alone.
        out: gets an audio stream if the video has one.
        later: by how many seconds it is moved.
    """

    def __init__(self, container: InputContainer, timeline: Timeline, out: OutputContainer, later: float) -> None:
        self._frames: Iterator[av.AudioFrame] = iter(())
        self._stream: AudioStream | None = None
        if container.streams.audio:
            source = container.streams.audio[0]
            layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
            self._stream = out.add_stream("aac", rate=min(source.rate or 48_000, 48_000), layout=layout)
            packets = shifted(container.demux(source), timeline.shifts)
            self._frames = _ascending((frame for packet in packets for frame in source.decode(packet)), later)
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


def _ascending(frames: Iterator[av.AudioFrame], later: float) -> Iterator[av.AudioFrame]:
    """Frames, moved, without those that begin while the one before still sounds, as where recordings are joined."""
    end = -math.inf
    for frame in frames:
        if frame.pts is not None and frame.time_base:
            frame.pts += round(later / frame.time_base)
        seconds = frame.samples / (frame.sample_rate or 48_000)
        if frame.time is None or frame.time > end - seconds / 2:
            yield frame
            end = (frame.time or 0.0) + seconds


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame as it is shown.

    Attributes:
        seconds: since the first frame of its video.
        planes: Y (height, width), and U and V of half the sides; BT.709, limited range.
    """

    seconds: float
    planes: tuple[NDArray[np.uint8], ...]


class _Comparison:
    """Joins the frames of two videos.

    Args:
        sides: the videos; the second's timestamps are kept.
        split: as ``compare_videos``.
    """

    def __init__(self, sides: tuple[_Side, _Side], split: bool) -> None:
        self.sides, self.split = sides, split
        self.time_base = sides[1].source.time_base
        # H.264 in 4:2:0 needs even sizes.
        self.height, self._each = (side // 2 * 2 for side in sides[1].source.display_size)
        self.width = self._each if split else 2 * self._each

    def frames(self) -> Iterator[av.VideoFrame]:
        """A frame for every frame of the second video, at its time; after its end, for every frame of the first."""
        lefts, rights = (side.shown(self.height, self._each) for side in self.sides)
        left, following = next(lefts), next(lefts, None)
        right = None
        for right in rights:
            while following is not None and _distance(following, right) <= _distance(left, right):
                left, following = following, next(lefts, None)
            yield self._frame(left, right, right.seconds)
        while following is not None and right is not None:
            if following.seconds > right.seconds:
                yield self._frame(following, right, following.seconds)
            following = next(lefts, None)

    def _frame(self, left: _Shown, right: _Shown, seconds: float) -> av.VideoFrame:
        planes = tuple(map(self._joined, left.planes, right.planes, (1, 2, 2)))
        line = self.width // 4 * 2
        for plane, factor, white in zip(planes, (1, 2, 2), (235, 128, 128), strict=True):
            plane[:, (line - 1) // factor : line // factor + 1] = white
        packed = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, self.width)
        frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
        frame.pts = round((seconds + self.sides[1].begin) / self.time_base)
        frame.time_base = self.time_base
        return frame

    def _joined(self, before: NDArray[np.uint8], after: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
        """A plane of both, ``factor`` times smaller than the frame: side by side, or the left and the right half."""
        if not self.split:
            return np.concatenate([before, after], axis=1)
        cut = self.width // 4 * 2 // factor
        return np.concatenate([before[:, :cut], after[:, cut:]], axis=1)


def _distance(one: _Shown, other: _Shown) -> float:
    return abs(one.seconds - other.seconds)


def _planes(frame: av.VideoFrame) -> tuple[NDArray[np.uint8], ...]:
    """The planes of a frame of even sides in yuv420p."""
    height, width = frame.height, frame.width
    packed = frame.to_ndarray().astype(np.uint8, copy=False).reshape(-1)
    luma, *chroma = np.split(packed, [height * width, height * width * 5 // 4])
    return luma.reshape(height, width), *(plane.reshape(height // 2, width // 2) for plane in chroma)


def _fit(width: int, height: int, tags: ColourTags) -> tuple[str, str]:
    """The filter that scales a video and converts it to BT.709 in limited range."""
    matrix = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}.get(tags.matrix, "bt601")
    levels = "full" if tags.range == 2 else "limited"
    source = f"in_color_matrix={matrix}:in_range={levels}"
    return (
        "scale",
        f"{width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int:{source}:out_color_matrix=bt709:out_range=limited",
    )
