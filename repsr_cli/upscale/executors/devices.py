"""Carry out plans of videos on several devices of this machine, which take segments from one queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repsr_cli.engine.threads import torch_threads
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.executors.local import Local

if TYPE_CHECKING:
    from repsr_cli.upscale.plan_video import VideoPlan
    from repsr_cli.upscale.sinks import VideoSink


class Devices(Local):
    """Computes videos on all of the plan's devices, images on the first."""

    def run_video(self, plan: VideoPlan, sink: VideoSink, reporter: Reporter) -> Outcome:
        """As ``Executor`` says."""
        from repsr_cli.upscale.video import upscale_video

        upscalers = [
            # Names may repeat: each device gets a network of its own.
            self._models.upscaler(plan.compute, device, reporter.say, slot=number)
            for number, device in enumerate(plan.compute.devices)
        ]
        with torch_threads(plan.compute.threads):
            return upscale_video(plan, sink, upscalers, reporter)
