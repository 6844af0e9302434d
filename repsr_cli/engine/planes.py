"""Planes of codes to RGB and back, and networks that take and give planes. Floor 3.

The numbers are those of ``repsr_cli.media.colour``: affine maps that can be undone, and chroma filters of which the
shrinking one undoes the enlarging one exactly. Nothing is clipped before the last rounding, so that planes which no RGB
picture could give (every film has some) come back as they were.

Borders of the chroma filters, for n luma and m = ceil(n / 2) chroma samples on an axis:

* centred: enlarging repeats the edge sample of chroma, shrinking repeats the edge sample of luma; where n is odd, the
  last luma sample stands alone over its chroma sample and equals it;
* co-sited: enlarging repeats the edge sample of chroma (needed only where n is even), shrinking mirrors about the edge
  sample of luma.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.media.colour import PlaneFormat, codes_from_rgb, rgb_from_codes

Plane = Tensor | NDArray[Any]


def rgb_from_planes(planes: Sequence[Plane], fmt: PlaneFormat) -> Tensor:
    """Planes of codes as an RGB picture.

    Args:
        planes: Y, U, V, or R, G, B, or one plane of luma, each (H, W) or the chroma size that goes with it; integers.
        fmt: their meaning.

    Returns:
        (1, 3, H, W) float32, nominally in [0, 1], not clipped.
    """
    codes = codes_from_planes(planes, fmt)
    matrix, offset = rgb_from_codes(fmt)
    if fmt.matrix == "grey":
        return (codes * float(matrix[0, 0]) + float(offset[0])).repeat(1, 3, 1, 1)
    return _affine(codes, matrix, offset)


def planes_from_rgb(rgb: Tensor, fmt: PlaneFormat) -> tuple[NDArray[Any], ...]:
    """An RGB picture as planes of codes: the inverse of ``rgb_from_planes``.

    Args:
        rgb: (1, 3, H, W), nominally in [0, 1].
        fmt: the meaning that the planes shall have.

    Returns:
        Contiguous arrays, uint8 at a depth of 8, uint16 above; rounded half up, then clipped to the codes there are.
    """
    codes = _affine(rgb.to("cpu", torch.float32), *codes_from_rgb(fmt))
    if fmt.matrix == "grey":
        return (quantised(codes[0, 0], fmt),)
    if fmt.matrix == "rgb":
        return tuple(quantised(plane, fmt) for plane in codes[0])
    chroma = shrink_chroma(codes[:, 1:], fmt)
    return (quantised(codes[0, 0], fmt), *(quantised(plane, fmt) for plane in chroma[0]))


def codes_from_planes(planes: Sequence[Plane], fmt: PlaneFormat) -> Tensor:
    """Planes stacked at luma size, (1, 1 or 3, H, W) float32, still in codes."""
    expected = 1 if fmt.matrix == "grey" else 3
    if len(planes) != expected:
        raise ValueError(f"{fmt.matrix} has {expected} planes, not {len(planes)}")
    floats = [_as_float(plane) for plane in planes]
    height, width = floats[0].shape
    subsampled = expected == 3 and fmt.matrix != "rgb"
    chroma_size = fmt.chroma_size(height, width) if subsampled else (height, width)
    for plane in floats[1:]:
        if tuple(plane.shape) != chroma_size:
            raise ValueError(
                f"a luma plane of {height}x{width} needs chroma of {chroma_size}, not {tuple(plane.shape)}"
            )
    if not subsampled:
        return torch.stack(floats)[None]
    chroma = enlarge_chroma(torch.stack(floats[1:])[None], fmt, height, width)
    return torch.cat([floats[0][None, None], chroma], 1)


def quantised(plane: Tensor, fmt: PlaneFormat) -> NDArray[Any]:
    """(H, W) real codes as integers: rounded half up, then clipped to ``[0, fmt.peak]``."""
    # After clipping everything is positive, where the conversion to an integer is floor.
    whole = (plane + 0.5).clamp_(0, fmt.peak)
    return whole.contiguous().numpy().astype(np.uint8 if fmt.depth == 8 else np.uint16)


def enlarge_chroma(chroma: Tensor, fmt: PlaneFormat, height: int, width: int) -> Tensor:
    """Chroma at the size of luma: (..., chroma size) to (..., height, width)."""
    for axis, size, step, cosited in ((-2, height, *_axis(fmt, 0)), (-1, width, *_axis(fmt, 1))):
        if step == 2:
            chroma = _doubled(chroma, axis, size, cosited)
    return chroma


def shrink_chroma(chroma: Tensor, fmt: PlaneFormat) -> Tensor:
    """Chroma at its own size from chroma at the size of luma; undoes ``enlarge_chroma`` exactly."""
    for axis, (step, cosited) in ((-2, _axis(fmt, 0)), (-1, _axis(fmt, 1))):
        if step == 2:
            chroma = _halved(chroma, axis, cosited)
    return chroma


class PlaneUpscaler:
    """Enlarges planes: what a video decoder gives in, what an encoder takes out.

    Args:
        upscaler: the network on its device.
        fmt_in: the meaning of the planes that come.
        fmt_out: the meaning of the planes that go.
        size: (height, width) of the luma to give; None: the network's scale times what came.
    """

    def __init__(
        self, upscaler: Upscaler, fmt_in: PlaneFormat, fmt_out: PlaneFormat, size: tuple[int, int] | None = None
    ) -> None:
        for fmt in (fmt_in, fmt_out):
            if not set(fmt.subsample) <= {1, 2}:
                raise ValueError(f"chroma is subsampled by 1 or 2 on an axis, not by {fmt.subsample}")
        self.upscaler = upscaler
        self.fmt_in = fmt_in
        self.fmt_out = fmt_out
        self.size = size

    def __call__(self, planes: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Enlarge one frame.

        Args:
            planes: as ``fmt_in`` says; views with strides are fine.

        Returns:
            Contiguous planes as ``fmt_out`` says.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite.
        """
        sr = self.upscaler(rgb_from_planes(planes, self.fmt_in))
        if self.size is not None and tuple(sr.shape[-2:]) != self.size:
            sr = F.interpolate(sr, self.size, mode="bicubic", antialias=True, align_corners=False)
        return planes_from_rgb(sr, self.fmt_out)


def _axis(fmt: PlaneFormat, axis: int) -> tuple[int, bool]:
    return fmt.subsample[axis], fmt.cosited[axis]


def _affine(picture: Tensor, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """A colour map applied to (1, 3, H, W)."""
    weight = torch.from_numpy(matrix).float().view(3, 3, 1, 1)
    return F.conv2d(picture, weight, torch.from_numpy(offset).float())


def _as_float(plane: Plane) -> Tensor:
    if isinstance(plane, np.ndarray):
        # Unsigned 16-bit tensors know few operations; numpy converts, and copies what is strided or read-only.
        return torch.from_numpy(plane.astype(np.float32))
    return plane.to("cpu", torch.float32)


def _doubled(chroma: Tensor, axis: int, size: int, cosited: bool) -> Tensor:
    """Up by two along an axis, to ``size`` = 2 m or 2 m - 1 samples."""
    m = chroma.shape[axis]
    after = _taken(chroma, axis, np.minimum(np.arange(m) + 1, m - 1))
    if cosited:
        even, odd = chroma, (chroma + after) / 2
    else:
        before = _taken(chroma, axis, np.maximum(np.arange(m) - 1, 0))
        slope = (after - before) / 8
        even, odd = chroma - slope, chroma + slope
        if size % 2:
            even = torch.cat([even.narrow(axis, 0, m - 1), chroma.narrow(axis, m - 1, 1)], axis)
    dim = axis % chroma.ndim
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)


def _halved(luma_sized: Tensor, axis: int, cosited: bool) -> Tensor:
    """Down by two along an axis, to half the samples, rounded up."""
    size = luma_sized.shape[axis]
    at = np.arange(0, size, 2)
    if not cosited:
        return (_taken(luma_sized, axis, at) + _taken(luma_sized, axis, np.minimum(at + 1, size - 1))) / 2
    here = _taken(luma_sized, axis, at)
    beside = [_taken(luma_sized, axis, _mirrored(at + step, size)) for step in (-2, -1, 1, 2)]
    return (6 * here + 2 * (beside[1] + beside[2]) - (beside[0] + beside[3])) / 8


def _taken(tensor: Tensor, axis: int, index: NDArray[np.int64]) -> Tensor:
    return tensor.index_select(axis, torch.from_numpy(index))


def _mirrored(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions mirrored about the first and the last sample."""
    if size == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * (size - 1))
    return np.asarray(np.minimum(folded, 2 * (size - 1) - folded))
