"""What a device needs for a clip beside itself: the decoder that feeds it, and the network between planes. Floor 4."""

from __future__ import annotations

from dataclasses import replace

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.upscale.request import UpscaleOptions
from repsr_cli.video.colour_tags import plane_format
from repsr_cli.video.decode import Decoder
from repsr_cli.video.encode import card_format


def decoder_for(plan: VideoPlan, upscaler: Upscaler, options: UpscaleOptions) -> Decoder:
    """A decoder, on the card of the network if it decodes on one: there its frames stay."""
    card = _card(upscaler)
    nvdec = plan.nvdec if plan.nvdec is None or card is None else replace(plan.nvdec, device=card)
    return Decoder(plan.source, plan.timeline, options.on_error, options.deinterlace, nvdec, card is not None)


def network_for(plan: VideoPlan, upscaler: Upscaler, options: UpscaleOptions) -> PlaneUpscaler:
    """The network from the clip's planes to the encoder's; they stay on the card if the encoder is there too."""
    clip, encoding = plan.source, plan.encoding
    natural = (clip.height * upscaler.scale, clip.width * upscaler.scale)
    return PlaneUpscaler(
        upscaler,
        plane_format(clip.planar, clip.tags, clip.path),
        plane_format(encoding.pix_fmt, encoding.tags, clip.path),
        None if plan.size == natural else plan.size,
        options.reuse,
        None if _card(upscaler) is None else card_format(encoding),
    )


def _card(upscaler: Upscaler) -> int | None:
    """CUDA's number of the device that a network is on; None: it is on none of CUDA's."""
    return (upscaler.device.index or 0) if upscaler.device.type == "cuda" else None
