"""Convert planes of samples to RGB and back, and upscale planes.

The conversions are the affine maps of ``repsr_cli.yuv.matrices``, which are invertible, and the chroma filters of
``repsr_cli.yuv.chroma``, of which shrinking inverts enlarging exactly. Nothing is clipped before the last rounding, so
that planes which no RGB image could give (every video has some) are restored exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.colour_folding import fold, folds
from repsr_cli.engine.cuda_batches import PlanesNetwork, queues_for
from repsr_cli.engine.cuda_frames import CudaFrames
from repsr_cli.engine.tile_reuse import Finish, ReuseCache
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.tiling import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.yuv.chroma import rounded, shrink_chroma
from repsr_cli.yuv.device_planes import DevicePlanes, on_host
from repsr_cli.yuv.filters import Planes, samples_of
from repsr_cli.yuv.formats import PlaneFormat
from repsr_cli.yuv.matrices import rgb_from_samples, samples_from_rgb


def rgb_from_planes(planes: Sequence[NDArray[Any]], fmt: PlaneFormat) -> Tensor:
    """Planes of samples as an RGB image.

    Args:
        planes: Y, U, V, or R, G, B, or one plane of luma, each (H, W) or the chroma size that goes with it; integers.

    Returns:
        (1, 3, H, W) float32, nominally in [0, 1], not clipped.
    """
    samples = torch.from_numpy(samples_of(planes, fmt))
    matrix, offset = rgb_from_samples(fmt)
    if fmt.matrix == "grey":
        return (samples * float(matrix[0, 0]) + float(offset[0])).repeat(1, 3, 1, 1)
    return _affine(samples, matrix, offset)


def planes_from_rgb(rgb: Tensor, fmt: PlaneFormat) -> tuple[NDArray[Any], ...]:
    """An RGB image as planes of samples: the inverse of ``rgb_from_planes``.

    Args:
        rgb: (1, 3, H, W), nominally in [0, 1].

    Returns:
        Contiguous arrays, uint8 at a depth of 8, uint16 above; rounded half up, then clipped to ``[0, fmt.peak]``.
    """
    samples = _affine(rgb.to("cpu", torch.float32), *samples_from_rgb(fmt))[0]
    luma = rounded(samples[0] + 0.5, fmt)
    if fmt.matrix == "grey":
        return (luma,)
    return luma, *(rounded(plane + 0.5, fmt) for plane in shrink_chroma(samples[1:], fmt))


class PlaneUpscaler:
    """Upscales planes, from those of a video decoder to those of an encoder.

    Colour is folded into the network where that is possible (``repsr_cli.engine.colour_folding``); otherwise planes are
    converted to RGB and back, with equal results. A CUDA device computes folded frames whole, all others tile by tile.

    Args:
        size: (height, width) of the luma to write; None: the network's scale times that of the LR luma.
        reuse: keep the output of what did not change since the frame before.
        gpu_format: ``nv12`` or ``p010le``: where the device computes whole frames they stay there, in this format, for
            an encoder on the same device; None: all are downloaded.

    Attributes:
        engine: what computes: ``torch``, or another engine's name and version.
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
        self.engine = "torch"
        self._cache = ReuseCache(reuse)
        self._tiled: TiledFrames | None = None
        self._cuda: CudaFrames | None = None
        if not folds(upscaler.net, fmt_out):
            return
        folded = fold(upscaler.net, fmt_in, fmt_out)
        self._tiled = TiledFrames(upscaler, folded, fmt_in, fmt_out, self._cache)
        self.engine = self._tiled.engine
        queues = queues_for(upscaler.device)
        if queues is not None:

            def network(precision: torch.dtype) -> PlanesNetwork:
                planes = PlanesNetwork(folded, fmt_in, fmt_out, precision, gpu_format, upscaler.engine)
                return planes.to(upscaler.device)

            self._cuda = CudaFrames(queues, network, self._tiled, self._cache, upscaler.settings.notify)

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return self._cache.reused

    @property
    def ahead(self) -> int:
        """How many frames are worth beginning before the first of them is waited for; 1 before the first frame."""
        frames = self._cuda or self._tiled
        return 1 if frames is None else frames.ahead

    def __call__(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Planes:
        """Upscale one frame.

        Args:
            planes: in ``fmt_in``; may be strided views, or planes on a device, where they stay if it computes whole
                frames (``repsr_cli.engine.cuda_frames``).
            progress: called with (tiles done, tiles in total) after each tile that is computed; may raise to cancel.

        Returns:
            Contiguous planes in ``fmt_out``. Do not write to them: the next frame may share them.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite.
        """
        return on_host(self.begin(planes, progress)())

    def begin(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Finish:
        """Begin a call, and return before its end, so that the next frame can follow without a pause.

        Progress is reported while the frame is waited for.

        Returns:
            A function that waits for the frame and returns it, on the device with ``gpu_format``, and raises what a
            call raises. Wait for frames in order.
        """
        height, width = (planes.height, planes.width) if isinstance(planes, DevicePlanes) else planes[0].shape
        natural = (height * self.upscaler.scale, width * self.upscaler.scale)
        if self._tiled is None or (self.size is not None and tuple(self.size) != natural):
            result = self.explicit(on_host(planes), progress)
            return lambda: result
        if self._cuda is not None and self._cuda.prepare((height, width)):
            return self._cuda.begin(planes, progress)
        return self._tiled.begin(on_host(planes), progress)

    def explicit(self, planes: Sequence[NDArray[Any]], progress: Progress | None = None) -> tuple[NDArray[Any], ...]:
        """Upscale by way of an RGB image: the reference, and what runs where colour cannot be folded."""
        sr = self.upscaler(rgb_from_planes(planes, self.fmt_in), progress)
        if self.size is not None and tuple(sr.shape[-2:]) != tuple(self.size):
            sr = F.interpolate(sr, self.size, mode="bicubic", antialias=True, align_corners=False)
        return planes_from_rgb(sr, self.fmt_out)


def _affine(image: Tensor, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Tensor:
    """A colour map applied to (1, 3, H, W)."""
    weight = torch.from_numpy(matrix).float().view(3, 3, 1, 1)
    return F.conv2d(image, weight, torch.from_numpy(offset).float())
