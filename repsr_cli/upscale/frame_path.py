"""Make the decoder that feeds a device, and the network between planes on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from repsr_cli.engine.array_frames import ArrayCompute, ArrayFrames
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.video.colour_tags import plane_format
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encoders import gpu_format
from repsr_cli.yuv.formats import PlaneFormat

if TYPE_CHECKING:  # torch, which some videos do without
    from repsr_cli.engine.planes import PlaneUpscaler
    from repsr_cli.engine.upscaler import Upscaler


def decoder_for(plan: VideoPlan, upscaler: Upscaler | ArrayCompute) -> Decoder:
    """A decoder, on the GPU of the network if it decodes on one: there its frames stay."""
    gpu = _gpu(upscaler)
    nvdec = plan.nvdec if plan.nvdec is None or gpu is None else replace(plan.nvdec, device=gpu)
    return Decoder(
        plan.source, plan.timeline, plan.on_error, plan.deinterlace, nvdec, gpu is not None, plan.flagged_only
    )


def network_for(plan: VideoPlan, upscaler: Upscaler | ArrayCompute) -> PlaneUpscaler | ArrayFrames:
    """The network from the video's planes to the encoder's; they stay on the GPU if the encoder is there too."""
    if isinstance(upscaler, ArrayCompute):
        return upscaler.frames(*formats_of(plan), plan.reuse)
    from repsr_cli.engine.planes import PlaneUpscaler

    video, encoding = plan.source, plan.encoding
    natural = (video.height * upscaler.scale, video.width * upscaler.scale)
    return PlaneUpscaler(
        upscaler,
        *formats_of(plan),
        None if plan.size == natural else plan.size,
        plan.reuse,
        None if _gpu(upscaler) is None else gpu_format(encoding),
    )


def formats_of(plan: VideoPlan) -> tuple[PlaneFormat, PlaneFormat]:
    """The planes that the decoder gives, and those that the encoder takes."""
    video, encoding = plan.source, plan.encoding
    return plane_format(video.planar, video.tags, video.path), plane_format(encoding.pix_fmt, encoding.tags, video.path)


def _gpu(upscaler: Upscaler | ArrayCompute) -> int | None:
    """CUDA's number of the device that a network is on; None: it is not on a CUDA device."""
    return (upscaler.device.index or 0) if upscaler.device.type == "cuda" else None
