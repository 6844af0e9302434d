"""Decide where plans are carried out: on one device, on several, or on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Event
from typing import TYPE_CHECKING, cast

from repsr_cli.reporting import SILENT, Outcome, Reporter

if TYPE_CHECKING:  # either needs libraries that the other does not
    from repsr_cli.upscale.image_sinks import ImageSink
    from repsr_cli.upscale.plan_image import ImagePlan
    from repsr_cli.upscale.plan_video import VideoPlan
    from repsr_cli.upscale.sinks import VideoSink


class Executor(ABC):
    """Carries out plans. Where the plan leaves a choice to measurement, it is made once, at the start."""

    def run(
        self,
        plan: ImagePlan | VideoPlan,
        sink: ImageSink | VideoSink,
        reporter: Reporter = SILENT,
        stop: Event | None = None,
    ) -> Outcome:
        """Carry out a plan.

        Args:
            sink: takes in the result; of the plan's kind.
            reporter: gets the progress, which may raise to stop the work.
            stop: set when the result of an image is not wanted any more.

        Raises:
            RepsrError: the input, the model, the device or the output failed; the target is not left behind.
        """
        if plan.kind == "image":
            return self.run_image(plan, cast("ImageSink", sink), reporter, stop)
        return self.run_video(plan, cast("VideoSink", sink), reporter)

    @abstractmethod
    def run_image(self, plan: ImagePlan, sink: ImageSink, reporter: Reporter, stop: Event | None) -> Outcome:
        """Carry out the plan of an image; several threads may call this."""

    @abstractmethod
    def run_video(self, plan: VideoPlan, sink: VideoSink, reporter: Reporter) -> Outcome:
        """Carry out the plan of a video."""
