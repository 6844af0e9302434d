"""Upscale the frames of a video with a folded network: whole on a CUDA device, or tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from repsr_cli.engine.colour_folding import fold
from repsr_cli.engine.cuda_batches import PlanesNetwork, queues_for
from repsr_cli.engine.cuda_frames import CudaFrames
from repsr_cli.engine.tile_reuse import Finish, ReuseCache
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.tiling import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.yuv.device_planes import DevicePlanes, on_host
from repsr_cli.yuv.formats import PlaneFormat


class FrameUpscaler:
    """Upscales planes with a network into which their formats are folded.

    Args:
        upscaler: the network on its device.
        fmt_in: the LR planes.
        fmt_out: the planes to write.
        reuse: keep the output of what did not change since the frame before.
        gpu_format: as ``PlaneUpscaler``.

    Attributes:
        engine: what computes: ``torch``, or another engine's name and version.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        fmt_in: PlaneFormat,
        fmt_out: PlaneFormat,
        reuse: bool,
        gpu_format: str | None = None,
    ) -> None:
        folded, cache = fold(upscaler.net, fmt_in, fmt_out), ReuseCache(reuse)
        self._tiled = TiledFrames(upscaler, folded, fmt_in, fmt_out, cache)
        self.engine = self._tiled.engine
        queues = queues_for(upscaler.device)
        self._cuda: CudaFrames | None = None
        if queues is not None:

            def network(precision: torch.dtype) -> PlanesNetwork:
                planes = PlanesNetwork(folded, fmt_in, fmt_out, precision, gpu_format, upscaler.engine)
                return planes.to(upscaler.device)

            self._cuda = CudaFrames(queues, network, self._tiled, cache, upscaler.settings.notify)

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return self._tiled.reused

    @property
    def ahead(self) -> int:
        """How many frames are worth beginning before the first of them is waited for."""
        return self._tiled.ahead if self._cuda is None else self._cuda.ahead

    def begin(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Finish:
        """Begin to upscale one frame; as ``PlaneUpscaler.begin``."""
        if self._cuda is not None and self._cuda.prepare(size_of(planes)):
            return self._cuda.begin(planes, progress)
        return self._tiled.begin(on_host(planes), progress)


def size_of(planes: Sequence[NDArray[Any]] | DevicePlanes) -> tuple[int, int]:
    """(height, width) of the luma."""
    if isinstance(planes, DevicePlanes):
        return planes.height, planes.width
    height, width = planes[0].shape
    return height, width
