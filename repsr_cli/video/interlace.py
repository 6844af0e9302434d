"""Detect whether the frames of a video are interlaced, by their flags and by their images, all over its length.

Broadcasts flag progressive video as interlaced too. Only the images show whether their fields were taken at different
times. Recordings change in the middle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import av
from av.video.frame import VideoFrame

from repsr_cli.video.clock import in_order, numbered
from repsr_cli.video.decode import decoded
from repsr_cli.video.frames import filter_graph
from repsr_cli.video.open import main_stream, translated
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline

# Frames to examine of a video of standard definition, of any; at one place at least; places.
_FRAMES, _LEAST_FRAMES, _AT_A_PLACE, _PLACES = 600, 96, 8, 24
_STANDARD = 720 * 576
# Frames without a flag are taken for interlaced if nearly all have the same order of fields, in images of this height.
_SURE, _SURE_FRAMES, _SURE_HEIGHT = 0.8, 8, 480


@dataclass(frozen=True, slots=True)
class Survey:
    """What some frames all over a video show.

    Attributes:
        flagged: frames flagged as interlaced.
        unflagged: others.
        combed: share of the flagged frames whose fields were taken at different times; those without motion do not
            count.
        combed_unflagged: whether the others look interlaced as well.
        first: seconds from the beginning to the first frame that is flagged; None if none is.
    """

    flagged: int
    unflagged: int
    combed: float
    combed_unflagged: bool
    first: float | None


def survey(source: VideoSource, timeline: Timeline) -> Survey:
    """Look at frames at the beginning of a video and after keyframes all over its length.

    Uses libavfilter's ``idet``.
    """
    flagged: Counter[str] = Counter()
    unflagged: Counter[str] = Counter()
    first: int | None = None
    for frame, judged, alone in _judged(source, timeline):
        if not frame.interlaced_frame:
            unflagged[alone] += 1
            continue
        flagged[judged] += 1
        if frame.pts is not None:
            first = frame.pts if first is None else min(first, frame.pts)
    moving, lone = (sum(counts[name] for name in ("tff", "bff", "progressive")) for counts in (flagged, unflagged))
    sure = lone >= _SURE_FRAMES and max(unflagged["tff"], unflagged["bff"]) >= _SURE * lone
    return Survey(
        flagged=flagged.total(),
        unflagged=unflagged.total(),
        combed=(flagged["tff"] + flagged["bff"]) / moving if moving else 0.0,
        combed_unflagged=sure and source.height >= _SURE_HEIGHT,
        first=None if first is None else float((first - source.start) * source.time_base),
    )


def _judged(source: VideoSource, timeline: Timeline) -> Iterator[tuple[VideoFrame, str, str]]:
    """Frames, with what ``idet`` says of each beside those around it, and alone."""
    budget = max(_LEAST_FRAMES, min(_FRAMES, _FRAMES * _STANDARD // (source.height * source.width)))
    places = _places(timeline, min(_PLACES, budget // _AT_A_PLACE))
    for place in places:
        graph = filter_graph(source.pix_fmt, source.decoded_size, source.time_base, ("idet", None))
        held: VideoFrame | None = None
        for frame in islice(_frames(source, timeline, place), budget // len(places)):
            if (frame.height, frame.width, frame.format.name) != (*source.decoded_size, source.pix_fmt):
                break
            graph.vpush(frame)
            try:
                verdict = graph.vpull().metadata
            except av.BlockingIOError:
                held = frame
                continue
            names = ("multiple", "single")
            judged, alone = (verdict.get(f"lavfi.idet.{name}.current_frame", "undetermined") for name in names)
            # The filter is one frame behind.
            yield held or frame, judged, alone
            held = frame


def _places(timeline: Timeline, count: int) -> list[int | None]:
    """Times of keyframes to look from, evenly over a video; None is its beginning."""
    if timeline.clock is not None or len(timeline.keys) < 2:
        return [None]
    keys = timeline.keys[1:]
    chosen = {round(n * (len(keys) - 1) / max(1, count - 2)) for n in range(count - 1)}
    return [None, *(keys[place] for place in sorted(chosen) if place < len(keys))]


def _frames(source: VideoSource, timeline: Timeline, place: int | None) -> Iterator[VideoFrame]:
    """Frames from a keyframe on, as far as they can be decoded."""
    with translated(source.path), source.open() as container:
        stream = main_stream(container, source.path)
        if place is not None:
            try:
                container.seek(place, stream=stream)
            except av.FFmpegError:
                return
        images = decoded(stream.codec_context, numbered(container.demux(stream), timeline.clock))
        yield from (image for image in in_order(images, timeline.clock, 1) if image is not None)
