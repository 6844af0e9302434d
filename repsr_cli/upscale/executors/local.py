"""Carry out plans on one device of this machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from threading import Event, Lock, get_ident
from typing import TYPE_CHECKING

from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.executors import Executor
from repsr_cli.upscale.models import ModelCache

if TYPE_CHECKING:  # either needs libraries that the other does not
    from repsr_cli.upscale.image_sinks import ImageSink
    from repsr_cli.upscale.plan_image import ImagePlan
    from repsr_cli.upscale.plan_video import VideoPlan
    from repsr_cli.upscale.sinks import VideoSink


class Local(Executor):
    """Computes on the plan's first device.

    Args:
        side_by_side: threads that run images at the same time, each with one CPU thread and a network of its own; 1:
            threads share one network, and one computes at a time.
    """

    def __init__(self, models: ModelCache, side_by_side: int = 1) -> None:
        self._models = models
        self._side_by_side = side_by_side
        self._turn = Lock()

    def run_image(self, plan: ImagePlan, sink: ImageSink, reporter: Reporter, stop: Event | None) -> Outcome:
        """As ``Executor`` says."""
        from repsr_cli.engine.threads import torch_threads
        from repsr_cli.upscale.image import upscale_image

        compute, slot, note = plan.compute, 0, ""
        turn: AbstractContextManager[object] = self._turn
        if self._side_by_side > 1:
            compute, slot, turn = replace(compute, threads=1), get_ident(), nullcontext()
            note = f", {self._side_by_side} images at a time"
        upscaler = self._models.upscaler(compute, compute.devices[0], reporter.say, slot=slot, note=note)
        with torch_threads(compute.threads):
            return upscale_image(plan, sink, upscaler, reporter, turn, stop)

    def run_video(self, plan: VideoPlan, sink: VideoSink, reporter: Reporter) -> Outcome:
        """As ``Executor`` says."""
        from repsr_cli.upscale.video import upscale_video
        from repsr_cli.upscale.without_torch import without_torch

        alone = without_torch(plan, reporter.say)
        if alone is not None:
            return upscale_video(plan, sink, (alone,), reporter)
        from repsr_cli.engine.threads import torch_threads

        upscaler = self._models.upscaler(plan.compute, plan.compute.devices[0], reporter.say)
        with torch_threads(plan.compute.threads):
            return upscale_video(plan, sink, (upscaler,), reporter)
