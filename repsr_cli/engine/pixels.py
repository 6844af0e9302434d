"""Convert between images of integers and tensors of floats.

Arrays are (H, W, C) with C = 1 (grey) or 3 (RGB), uint8, uint16 or float32 in [0, 1]; tensors are (1, 3, H, W) float32
RGB with the same [0, 1]. Rounding (half up) and clipping happen here and nowhere before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from repsr_cli.yuv.matrices import LUMA_WEIGHTS


def to_tensor(pixels: NDArray[Any]) -> Tensor:
    """An image as a tensor.

    Args:
        pixels: (H, W, 1) or (H, W, 3), uint8, uint16 or float32. Grey is repeated into R = G = B.

    Returns:
        (1, 3, H, W) float32; integers divided by their largest value, floats as they are.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"expected (H, W, 1) or (H, W, 3), got {pixels.shape}")
    planes = np.array(pixels.transpose(2, 0, 1), dtype=np.float32, order="C")
    if np.issubdtype(pixels.dtype, np.integer):
        planes /= np.float32(_peak(pixels.dtype))
    tensor = torch.from_numpy(planes)[None]
    return tensor if tensor.shape[1] == 3 else tensor.repeat(1, 3, 1, 1)


def to_pixels(sr: Tensor, dtype: DTypeLike, grey: bool) -> NDArray[Any]:
    """A tensor as an image.

    Args:
        sr: (1, 3, H, W) RGB, nominally in [0, 1].
        dtype: uint8 or uint16 (rounded half up, then clipped) or float32 (clipped to [0, 1]).
        grey: give one channel, the BT.709 luma. Its weights sum to one, so R = G = B gives that value.

    Returns:
        (H, W, 1) or (H, W, 3), contiguous.
    """
    if sr.ndim != 4 or sr.shape[:2] != (1, 3):
        raise ValueError(f"expected (1, 3, H, W), got {tuple(sr.shape)}")
    planes = sr[0].detach().to("cpu", torch.float32)
    if grey:
        # Differences to green, so that R = G = B comes back to the last bit and not to within rounding of a sum.
        red, blue = LUMA_WEIGHTS["bt709"]
        green = planes[1:2]
        planes = green + red * (planes[0:1] - green) + blue * (planes[2:3] - green)
    values = planes.permute(1, 2, 0).contiguous()
    target = np.dtype(dtype)
    if not np.issubdtype(target, np.integer):
        return values.clamp(0, 1).numpy().astype(target, copy=False)
    peak = _peak(target)
    # After clipping everything is positive, where conversion to an integer rounds down.
    return (values * peak).add_(0.5).clamp_(0, peak).numpy().astype(target)


def to_8_bit(sr: Tensor) -> NDArray[np.uint8]:
    """A tensor as an RGB image of 8 bits per channel, as ``to_pixels``."""
    pixels: NDArray[np.uint8] = to_pixels(sr, np.uint8, grey=False)
    return pixels


def _peak(dtype: DTypeLike) -> int:
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise ValueError(f"images are uint8, uint16 or float32, not {kind}")
    return int(np.iinfo(kind).max)
