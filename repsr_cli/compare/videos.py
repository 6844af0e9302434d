"""Combine two videos into one: side by side, or one half of each.

FFmpeg's overlay filter keeps the second video's timestamps and picks the nearest frame of the first, so the videos may
differ in frame rate and time base.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.upscale.request import Progress, Reporter
from repsr_cli.video.colour_tags import ColourTags
from repsr_cli.video.open import main_stream, open_video
from repsr_cli.video.probe import VideoSource, probe

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter.context import FilterContext
    from av.video.stream import VideoStream

QUALITY = {"crf": "16", "preset": "veryfast"}


def compare_videos(before: Path, after: Path, target: Path, *, split: bool, reporter: Reporter) -> None:
    """Write both videos into one, H.264 in MP4, with the audio of the first as AAC.

    Args:
        before: shown on the left, scaled to the other's size.
        after: shown on the right.
        target: file to write.
        split: show one half of each; False: whole frames side by side.
        reporter: gets the progress.

    Raises:
        MediaError: a video cannot be decoded, or the result cannot be encoded.
    """
    try:
        with (
            open_video(before) as left,
            open_video(after) as right,
            open_video(before) as audio,
            av.open(f"file:{target}", "w", format="mp4") as out,
        ):
            compared = _Comparison((before, after), left, right, split)
            stream = out.add_stream("libx264", options=QUALITY)
            stream.width, stream.height = compared.width, compared.height
            stream.pix_fmt = "yuv420p"
            # What the scale filter produces: BT.709, limited range.
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
            stream.time_base = stream.codec_context.time_base = compared.time_base
            track = _Audio(audio, out)
            total = main_stream(right, after).frames or None
            for number, frame in enumerate(compared.frames(), 1):
                out.mux(stream.encode(frame))
                out.mux(track.until(_seconds(frame)))
                reporter.progress(Progress(number, total, "frame"))
            out.mux(stream.encode(None))
            out.mux(track.until(None))
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{before} and {after}", f"cannot be compared ({error})") from error


def frame_at(path: Path, seconds: float) -> NDArray[np.uint8]:
    """The frame of a video at a time, as a screen shows it: RGB, (H, W, 3).

    Raises:
        MediaError: the video cannot be decoded.
        UsageError: the video is shorter.
    """
    source = probe(path)
    try:
        with open_video(path) as container:
            stream = main_stream(container, path)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and _seconds(frame) > seconds:
                    return _rgb(shown, stream, source)
                shown = frame
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(path, f"cannot be decoded ({error})") from error
    if shown is None or seconds > _seconds(shown) + 1:  # few files store how long the last frame is shown
        raise UsageError(path, f"is shorter than {seconds:g} s", "Choose an earlier time.")
    return _rgb(shown, stream, source)


def _rgb(frame: av.VideoFrame, stream: VideoStream, source: VideoSource) -> NDArray[np.uint8]:
    graph = av.filter.Graph()
    last = graph.add_buffer(template=stream)
    first = last
    height, width = source.display_size
    for name, arguments in [*_upright(source.rotation), _fit(width, height, source.tags), ("format", "rgb24")]:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    first.push(frame)
    shown = sink.pull()
    assert isinstance(shown, av.VideoFrame)
    return shown.to_ndarray().astype(np.uint8, copy=False)


class _Audio:
    """Encodes the audio of a video as AAC, mono or stereo, in step with the frames.

    Args:
        container: the video, opened for this alone.
        out: gets an audio stream if the video has one.
    """

    def __init__(self, container: InputContainer, out: OutputContainer) -> None:
        self._frames: Iterator[av.AudioFrame] = iter(())
        self._stream: AudioStream | None = None
        if container.streams.audio:
            source = container.streams.audio[0]
            layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
            self._stream = out.add_stream("aac", rate=min(source.rate or 48_000, 48_000), layout=layout)
            self._frames = container.decode(source)
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


class _Comparison:
    """A filter graph with two inputs that are fed in order of time.

    Args:
        paths: the files of both videos.
        left: the first, shown on the left.
        right: the second, shown on the right; its timestamps are kept.
        split: as ``compare_videos``.
    """

    def __init__(self, paths: tuple[Path, Path], left: InputContainer, right: InputContainer, split: bool) -> None:
        self.containers = (left, right)
        self.streams = (main_stream(left, paths[0]), main_stream(right, paths[1]))
        self.time_base = self.streams[1].time_base or Fraction(1, 90_000)
        sources = [probe(path) for path in paths]
        # H.264 in 4:2:0 needs even sizes.
        self.height, width = (side // 2 * 2 for side in sources[1].display_size)
        self.width = width if split else 2 * width
        self.graph = av.filter.Graph()
        fits = [[*_upright(source.rotation), _fit(width, self.height, source.tags)] for source in sources]
        halve = [("crop", f"{width // 2}:{self.height}:0:0")] if split else []
        widen = [] if split else [("pad", f"{self.width}:{self.height}:{width}:0")]
        self.inputs = [
            self.graph.add_buffer(template=side, name=name) for side, name in zip(self.streams, "ab", strict=True)
        ]
        plain = ("format", "yuv420p")
        before = self._chain(self.inputs[0], *fits[0], plain, *halve)
        after = self._chain(self.inputs[1], *fits[1], plain, *widen)
        over = self.graph.add("overlay", "0:0:ts_sync_mode=nearest:eof_action=repeat")
        after.link_to(over, 0, 0)
        before.link_to(over, 0, 1)
        line = ("drawbox", f"x={(width // 2 if split else width) - 1}:y=0:w=2:h=ih:color=white:t=fill")
        self.output = self._chain(over, line, ("buffersink", ""))
        self.graph.configure()

    def _chain(self, last: FilterContext, *filters: tuple[str, str]) -> FilterContext:
        for name, arguments in filters:
            following = self.graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        return last

    def frames(self) -> Iterator[av.VideoFrame]:
        """One frame for every frame of the second video, at its time."""
        decoders = [container.decode(stream) for container, stream in zip(self.containers, self.streams, strict=True)]
        heads = [next(decoder, None) for decoder in decoders]
        while any(heads):
            # The side that is behind goes first, so that the graph buffers little.
            index = min((i for i in (0, 1) if heads[i] is not None), key=lambda i: _seconds(heads[i]))
            self.inputs[index].push(heads[index])
            heads[index] = next(decoders[index], None)
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
