"""Estimate how long a video will take, by putting its first frames through every stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from repsr_cli.engine.settings import Notify
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.upscale.calibrate import calibrated
from repsr_cli.upscale.frame_path import decoder_for, network_for
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.video.encode import SegmentEncoder
from repsr_cli.video.frames import Frame
from repsr_cli.video.planes import Planes
from repsr_cli.video.stages import Stages, run_stages
from repsr_cli.yuv.device_planes import DevicePlanes

# Long enough for an encoder to fill its window, short enough to wait for.
_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial measured.

    Attributes:
        frames: how many frames it took.
        rate: frames per second, on all devices together.
        seconds: what the whole video would take at that rate.
    """

    frames: int
    rate: float
    seconds: float


def estimate(plan: VideoPlan, upscaler: Upscaler, say: Notify) -> str:
    """A sentence on the time that a video will take, by ``trial``, whose arguments and errors it has."""
    measured = trial(plan, upscaler, say)
    left = timedelta(seconds=round(measured.seconds))
    return f"time: about {left}, an estimate from {measured.frames} frames at {measured.rate:.3g} a second"


def trial(plan: VideoPlan, upscaler: Upscaler, say: Notify) -> Trial:
    """Measure how fast a video is upscaled.

    The first frames are decoded, enlarged and encoded for three seconds, at least one of them; the packets are thrown
    away. What comes later in the video may be harder or easier.

    Args:
        say: reports what computes, where that was measured.

    Raises:
        MediaError: the first frames cannot be decoded or encoded.
    """
    upscaler = calibrated(upscaler, plan, say)
    network, encoder = network_for(plan, upscaler), SegmentEncoder(plan.encoding)
    decoder = decoder_for(plan, upscaler)
    first = plan.segments[0].first
    # Kernels are chosen and memory is found when a network runs for the first time.
    network.begin(next(decoder.frames(first, None)).planes)()

    def give() -> Iterator[Frame]:
        began = time.perf_counter()
        for frame in decoder.frames(first, plan.segments[-1].end):
            yield frame
            if time.perf_counter() - began > _SECONDS:
                return

    def work(frame: Frame) -> Callable[[], tuple[Frame, Planes | DevicePlanes]]:
        planes = network.begin(frame.planes)
        return lambda: (frame, planes())

    def take(frames: Iterator[tuple[Frame, Planes | DevicePlanes]]) -> None:
        for frame, planes in frames:
            encoder.encode(planes, frame.pts, frame.duration)
        encoder.finish()

    # Queues of one frame each, so that what is begun when the time is up is soon done.
    wall = run_stages(Stages(give, work, take, lambda _: 1, lambda _: 1, limit=1, ahead=lambda: network.ahead))["wall"]
    rate = encoder.frames / wall * len(plan.compute.devices)
    return Trial(encoder.frames, rate, (plan.frames or 0) / rate)
