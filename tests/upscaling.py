"""Upscale files by networks that are in no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.zoo import ModelFile
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.request import Request


def weight(scale: int) -> ModelFile:
    """What stands for such a network in a plan."""
    return ModelFile("in memory", Path("in memory"), scale)


def upscale_image(source: Path, target: Path, upscaler: Upscaler, request: Request, reporter: Reporter) -> Outcome:
    """Plan an image and carry the plan out with a network that is loaded."""
    from repsr_cli.upscale.image import upscale_image
    from repsr_cli.upscale.image_sinks import sink_for
    from repsr_cli.upscale.plan_image import plan_image

    plan = plan_image(source, target, request, weight(upscaler.scale))
    return upscale_image(plan, sink_for(plan), upscaler, reporter)


def upscale_video(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    request: Request,
    reporter: Reporter,
    others: Sequence[Upscaler] = (),
) -> Outcome:
    """Plan a video and carry the plan out with a network that is loaded, or on a cluster if the request says so."""
    from repsr_cli.upscale.models import ModelCache
    from repsr_cli.upscale.plan_video import plan_video
    from repsr_cli.upscale.sinks import sink_for
    from repsr_cli.upscale.video import upscale_video

    plan = plan_video(source, target, request, weight(upscaler.scale))
    if plan.compute.ray is None:
        return upscale_video(plan, sink_for(plan), (upscaler, *others), reporter)
    from repsr_cli.upscale.executors.ray import Ray

    models = ModelCache()
    models.network(plan.compute.model, lambda _model: upscaler.net)
    return Ray(models).run(plan, sink_for(plan), reporter)
