"""What is of one colour stays of that colour."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.runner import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.upscale.alpha import box_sum

# A network that is further off means to change the colour.
_MEANT_TO_KEEP = 2.5 / 255


def upscale_flat(upscaler: Upscaler, lr: Tensor, progress: Progress | None = None) -> Tensor:
    """Enlarge, and keep the colour of pixels that see no other.

    Networks keep colours to the code or nearly so. Along the border, beyond which their convolutions see zeros, they
    are a code or two beside it, which shows as a frame around what is drawn. There the middle of a plane of that colour
    is taken instead; and where the network is nearly right anyway, the colour itself.

    Args:
        upscaler: the network on its device.
        lr: (1, 3, H, W), an image or rows of it with their context.
        progress: as for ``upscaler``; may raise to cancel.

    Returns:
        (1, 3, H * s, W * s).

    Raises:
        DeviceError: as the network's.
    """
    sr, reach, scale = upscaler(lr, progress), upscaler.spec.reach, upscaler.scale
    flat = _one_colour(lr[0].numpy(), reach)
    if not flat.any():
        return sr
    blocks = sr.view(3, lr.shape[2], scale, lr.shape[3], scale)
    rim = flat.copy()
    rim[reach : -reach or None, reach : -reach or None] = False
    y, x = np.nonzero(rim)
    if len(y):
        colours, which = torch.unique(lr[0][:, y, x], dim=1, return_inverse=True)
        blocks[:, y, :, x] = _middles(upscaler, colours)[which]
    own = lr[0][:, :, None, :, None]
    kept = torch.from_numpy(flat)[:, None, :, None] & ((blocks - own).abs_() < _MEANT_TO_KEEP)
    return torch.where(kept, own, blocks).view(sr.shape)


def _one_colour(planes: NDArray[np.float32], reach: int) -> NDArray[np.bool_]:
    """Which pixels of (3, H, W) are equal to all that are up to ``reach`` rows and columns away."""
    down = (planes[:, 1:] != planes[:, :-1]).any(axis=0)[..., None].astype(np.int32)
    across = (planes[:, :, 1:] != planes[:, :, :-1]).any(axis=0)[..., None].astype(np.int32)
    changes = box_sum(down, reach, (1, 0)) + box_sum(across, reach, (0, 1))
    flat: NDArray[np.bool_] = changes[..., 0] == 0
    return flat


def _middles(upscaler: Upscaler, colours: Tensor) -> Tensor:
    """What a network makes of a pixel that sees nothing but its own colour: (3, n) to (n, 3, s, s)."""
    scale, size = upscaler.scale, 2 * upscaler.spec.reach + 1
    middle = slice(upscaler.spec.reach * scale, (upscaler.spec.reach + 1) * scale)
    return upscaler(colours.t()[..., None, None].repeat(1, 1, size, size))[..., middle, middle]
