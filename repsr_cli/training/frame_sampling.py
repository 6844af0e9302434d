"""Choose frames of a video for training and for evaluation, far enough from each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repsr_cli.engine.pixels import to_8_bit
from repsr_cli.engine.planes import rgb_from_planes
from repsr_cli.errors import RecipeError
from repsr_cli.training.metrics import Pixels
from repsr_cli.video.colour_tags import plane_format
from repsr_cli.video.decode import Decoder
from repsr_cli.video.probe import VideoSource
from repsr_cli.video.timeline import Timeline, read_video
from repsr_cli.yuv.device_planes import on_host

MARGIN = 2.0  # seconds between any training frame and any held-out frame
TRAINING_FRAMES, HELD_OUT_FRAMES = 64, 24
SEQUENTIAL = 6000  # frames up to which decoding everything is faster than seeking


@dataclass(frozen=True, slots=True)
class Sampling:
    """The frames of a video that are used.

    Attributes:
        training: timestamps to train on, ascending.
        held_out: timestamps to evaluate on, ascending.
        stretches: (start, end) in seconds of what is held out.
    """

    source: VideoSource
    timeline: Timeline
    training: tuple[int, ...]
    held_out: tuple[int, ...]
    stretches: tuple[tuple[float, float], ...]


def held_out_stretches(start: float, end: float) -> tuple[tuple[float, float], ...]:
    """Stretches to hold out: the last fifth of a short video, up to twelve of four seconds each of a long one.

    Args:
        start: seconds at which the first frame is shown.
        end: seconds at which the last frame ends.
    """
    length = end - start
    count = min(12, max(1, int(length // 20)))
    width = min(4.0, 0.2 * length / count)
    part = length / count
    return tuple((start + part * (i + 1) - width, start + part * (i + 1)) for i in range(count))


def _evenly(items: list[int], count: int) -> list[int]:
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / max(1, count - 1))] for i in range(count)]


def sample_video(path: Path) -> Sampling:
    """Choose the frames.

    Training frames are keyframes first: encoders place one at every cut, so every scene is covered. Then come frames in
    between, evenly spaced.

    Raises:
        RecipeError: it is too short to hold a stretch out.
    """
    source, timeline = read_video(path)
    tick = float(source.time_base)
    start, end = timeline.pts[0] * tick, timeline.pts[-1] * tick
    stretches = held_out_stretches(start, end)
    held_out = [p for p in timeline.pts if any(a <= p * tick <= b for a, b in stretches)]
    allowed = [p for p in timeline.pts if all(p * tick < a - MARGIN or p * tick > b + MARGIN for a, b in stretches)]
    if len(allowed) < 8 or len(held_out) < 4:
        raise RecipeError(
            path, f"is too short to train on ({end - start:.1f} s)", "Give at least 5 seconds; minutes are better."
        )
    keys = [p for p in timeline.keys if p in set(allowed)]
    chosen = set(_evenly(keys, TRAINING_FRAMES))
    if len(timeline.pts) <= SEQUENTIAL or len(chosen) < TRAINING_FRAMES // 4:
        chosen |= set(_evenly(allowed, TRAINING_FRAMES - len(chosen)))
    return Sampling(source, timeline, tuple(sorted(chosen)), tuple(_evenly(held_out, HELD_OUT_FRAMES)), stretches)


def frames_at(
    source: VideoSource, timeline: Timeline, wanted: tuple[int, ...], scale: int
) -> Iterator[tuple[int, Pixels]]:
    """Decode chosen frames of a video.

    Args:
        wanted: timestamps, ascending.
        scale: images are cropped to a multiple of it.

    Yields:
        (timestamp, RGB (height, width, 3)), HDR as coded.
    """
    fmt = plane_format(source.planar, source.tags, source.path)
    decoder = Decoder(source, timeline)
    if len(timeline.pts) <= SEQUENTIAL:
        runs = [(wanted[0], wanted[-1] + 1)]
    else:
        runs = [(pts, pts + 1) for pts in wanted]
    chosen = set(wanted)
    for first, end in runs:
        for frame in decoder.frames(first, end):
            if frame.pts in chosen:
                rgb = to_8_bit(rgb_from_planes(on_host(frame.planes), fmt))
                height, width = (side - side % scale for side in rgb.shape[:2])
                yield frame.pts, rgb[:height, :width]
