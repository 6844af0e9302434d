"""Validate a network while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.training.evaluate import upscale_pixels
from repsr_cli.training.metrics import psnr_rgb, psnr_y

SHOWN = 4  # validation images in a run's validation.png

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Validated:
    """Mean figures over the validation images, dB, and the first few results."""

    psnr_y: float
    psnr_rgb: float
    shown: tuple[Pixels, ...]


def validate(net: RepSR | PlainSR, images: Sequence[tuple[Pixels, Pixels]], device: str, threads: int) -> Validated:
    """Measure the fused network on (lr, hr) images, through the tiled engine."""
    plain = fuse(net) if isinstance(net, RepSR) else net
    upscaler = Upscaler(plain, device=device, precision="fp32", threads=threads)
    border = plain.spec.scale
    figures: list[tuple[float, float]] = []
    shown: list[Pixels] = []
    for lr, hr in images:
        sr = upscale_pixels(upscaler, lr)
        figures.append((psnr_y(sr, hr, border), psnr_rgb(sr, hr, border)))
        if len(shown) < SHOWN:
            shown.append(sr)
    mean = np.mean(figures, axis=0)
    return Validated(float(mean[0]), float(mean[1]), tuple(shown))
