"""Average a network's results over flips and rotations of an image (test-time augmentation)."""

from __future__ import annotations

from torch import Tensor

from repsr_cli.engine.tiling import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.upscale.constant_regions import upscale_keeping_constants


def ensemble(upscaler: Upscaler, lr: Tensor, views: int, progress: Progress | None = None) -> Tensor:
    """The mean of the network's results over the first ``views`` of the 8 flips and rotations, each turned back.

    Args:
        lr: (1, 3, H, W), an image or rows of it with their context.
        views: 1 to 8.
        progress: as for ``upscaler``, for each view from the start; may raise to cancel.

    Returns:
        (1, 3, H * s, W * s).
    """
    mean = upscale_keeping_constants(upscaler, lr, progress)
    for view in range(1, views):
        axes = [axis for axis, bit in ((2, 1), (3, 2)) if view & bit]
        seen = lr.flip(axes)
        sr = upscale_keeping_constants(upscaler, seen.transpose(2, 3).contiguous() if view & 4 else seen, progress)
        mean += (sr.transpose(2, 3) if view & 4 else sr).flip(axes)
    return mean.div_(views) if views > 1 else mean
