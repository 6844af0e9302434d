"""Planes of samples to RGB and back, and networks that take and give planes.

The numbers are those of ``repsr_cli.yuv.formats``: affine maps that can be undone, and chroma filters of which the
shrinking one undoes the enlarging one exactly. Nothing is clipped before the last rounding, so that planes which no RGB
image could give (every video has some) come back as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.colour_folding import folds
from repsr_cli.engine.frame_upscaler import FoldedUpscaler, size_of
from repsr_cli.engine.runner import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.video.cuda_planes import DevicePlanes, on_host
from repsr_cli.yuv.chroma import Plane, Planes, planes_from_samples, samples_from_planes
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import rgb_from_samples, samples_from_rgb


def rgb_from_planes(planes: Sequence[Plane], fmt: PlaneFormat) -> Tensor:
    """Planes of samples as an RGB image.

    Args:
        planes: Y, U, V, or R, G, B, or one plane of luma, each (H, W) or the chroma size that goes with it; integers.
        fmt: their meaning.

    Returns:
        (1, 3, H, W) float32, nominally in [0, 1], not clipped.
    """
    samples = samples_from_planes(planes, fmt)
    matrix, offset = rgb_from_samples(fmt)
    if fmt.matrix == "grey":
        return (samples * float(matrix[0, 0]) + float(offset[0])).repeat(1, 3, 1, 1)
    return _affine(samples, matrix, offset)


def planes_from_rgb(rgb: Tensor, fmt: PlaneFormat) -> tuple[NDArray[Any], ...]:
    """An RGB image as planes of samples: the inverse of ``rgb_from_planes``.

    Args:
        rgb: (1, 3, H, W), nominally in [0, 1].
        fmt: the meaning that the planes shall have.

    Returns:
        Contiguous arrays, uint8 at a depth of 8, uint16 above; rounded half up, then clipped to the samples there are.
    """
    return planes_from_samples(_affine(rgb.to("cpu", torch.float32), *samples_from_rgb(fmt)), fmt)


class PlaneUpscaler:
    """Enlarges planes: what a video decoder gives in, what an encoder takes out.

    Colour is folded into the network where that is possible (``repsr_cli.engine.colour_folding``); otherwise planes
    become RGB and RGB becomes planes, with equal results.

    Args:
        upscaler: the network on its device.
        fmt_in: the meaning of the planes that come.
        fmt_out: the meaning of the planes that go.
        size: (height, width) of the luma to give; None: the network's scale times what came.
        reuse: keep the output of what did not change since the frame before.
        card_format: ``nv12`` or ``p010le``, as an encoder on the same device takes planes that stay there; None: they
            come down. Where the device does not compute whole frames they do so anyway.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        fmt_in: PlaneFormat,
        fmt_out: PlaneFormat,
        size: tuple[int, int] | None = None,
        reuse: bool = True,
        gpu_format: str | None = None,
    ) -> None:
        for fmt in (fmt_in, fmt_out):
            if not set(fmt.subsample) <= {1, 2}:
                raise ValueError(f"chroma is subsampled by 1 or 2 on an axis, not by {fmt.subsample}")
        self.upscaler = upscaler
        self.fmt_in = fmt_in
        self.fmt_out = fmt_out
        self.size = size
        folded = folds(upscaler.net, fmt_out)
        self._folded = FoldedUpscaler(upscaler, fmt_in, fmt_out, reuse, gpu_format) if folded else None

    @property
    def engine(self) -> str:
        """What computes where colour is folded: ``torch``, or another's name and version."""
        return self._folded.engine if self._folded is not None else "torch"

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return self._folded.reused if self._folded is not None else 0.0

    @property
    def ahead(self) -> int:
        """How many frames are worth beginning before the first of them is waited for; known from the first on."""
        return self._folded.ahead if self._folded is not None else 1

    def __call__(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Planes:
        """Enlarge one frame.

        Args:
            planes: as ``fmt_in`` says; views with strides are fine. Or on a device, where they stay if whole frames are
                computed there (``repsr_cli.engine.cuda_batches``).
            progress: called with (tiles done, tiles in total) after each tile that is computed; may raise to cancel.

        Returns:
            Contiguous planes as ``fmt_out`` says. Not to be written to: the next frame may share them.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite.
        """
        return on_host(self.begin(planes, progress)())

    def begin(
        self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None
    ) -> Callable[[], Planes | DevicePlanes]:
        """As a call, but returns before the end, so that the next frame can follow without a pause.

        Progress is reported while the frame is waited for.

        Returns:
            What waits for the frame and gives it, on the device if ``card_format`` says so, and raises what a call
            raises. Frames are to be waited for in order.
        """
        height, width = size_of(planes)
        natural = (height * self.upscaler.scale, width * self.upscaler.scale)
        if self._folded is not None and (self.size is None or tuple(self.size) == natural):
            return self._folded.begin(planes, progress)
        result = self.explicit(on_host(planes), progress)
        return lambda: result

    def explicit(self, planes: Sequence[NDArray[Any]], progress: Progress | None = None) -> tuple[NDArray[Any], ...]:
        """The same by way of an RGB image: the reference, and the way for what does not fold."""
        sr = self.upscaler(rgb_from_planes(planes, self.fmt_in), progress)
        if self.size is not None and tuple(sr.shape[-2:]) != tuple(self.size):
            sr = F.interpolate(sr, self.size, mode="bicubic", antialias=True, align_corners=False)
        return planes_from_rgb(sr, self.fmt_out)


def _affine(image: Tensor, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """A colour map applied to (1, 3, H, W)."""
    weight = torch.from_numpy(matrix).float().view(3, 3, 1, 1)
    return F.conv2d(image, weight, torch.from_numpy(offset).float())
