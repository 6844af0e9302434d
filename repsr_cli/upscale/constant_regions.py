"""Upscale an image and keep regions of one colour exactly as they are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.tiling import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.upscale.alpha import box_sum

# A network that is further off changes the colour on purpose.
_TOLERANCE = 2.5 / 255


def upscale_keeping_constants(upscaler: Upscaler, lr: Tensor, progress: Progress | None = None) -> Tensor:
    """Upscale, and keep the colour of pixels whose receptive field has one colour only.

    Networks keep such a colour to within about one code value. Along the image's border, beyond which their
    convolutions see zeros, the error is one or two code values larger and shows as a frame. There the network's result
    in the middle of an area of that colour is used instead; and wherever the result is nearly right, the colour itself.

    Args:
        lr: (1, 3, H, W), an image or rows of it with their context.
        progress: as for ``upscaler``; may raise to cancel.

    Returns:
        (1, 3, H * s, W * s).
    """
    sr, reach, scale = upscaler(lr, progress), upscaler.spec.reach, upscaler.scale
    if not upscaler.spec.exact:  # nobody knows how far such a network sees
        return sr
    constant = _one_colour(lr[0].numpy(), reach)
    if not constant.any():
        return sr
    blocks = sr.view(3, lr.shape[2], scale, lr.shape[3], scale)
    rim = constant.copy()
    rim[reach : -reach or None, reach : -reach or None] = False
    y, x = np.nonzero(rim)
    if len(y):
        colours, which = torch.unique(lr[0][:, y, x], dim=1, return_inverse=True)
        blocks[:, y, :, x] = _middles(upscaler, colours)[which]
    own = lr[0][:, :, None, :, None]
    kept = torch.from_numpy(constant)[:, None, :, None] & ((blocks - own).abs_() < _TOLERANCE)
    return torch.where(kept, own, blocks).view(sr.shape)


def _one_colour(planes: NDArray[np.float32], reach: int) -> NDArray[np.bool_]:
    """Which pixels of (3, H, W) are equal to all that are up to ``reach`` rows and columns away."""
    down = (planes[:, 1:] != planes[:, :-1]).any(axis=0)[..., None].astype(np.int32)
    across = (planes[:, :, 1:] != planes[:, :, :-1]).any(axis=0)[..., None].astype(np.int32)
    changes = box_sum(down, reach, (1, 0)) + box_sum(across, reach, (0, 1))
    constant: NDArray[np.bool_] = changes[..., 0] == 0
    return constant


def _middles(upscaler: Upscaler, colours: Tensor) -> Tensor:
    """A network's result for pixels in the middle of an area of their colour: (3, n) to (n, 3, s, s)."""
    scale, size = upscaler.scale, 2 * upscaler.spec.reach + 1
    middle = slice(upscaler.spec.reach * scale, (upscaler.spec.reach + 1) * scale)
    return upscaler(colours.t()[..., None, None].repeat(1, 1, size, size))[..., middle, middle]
