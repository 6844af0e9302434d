"""Upscale frames tile by tile, computing only the tiles that changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.tile_reuse import ChangedTiles, Finish, ReuseCache, Runner
from repsr_cli.engine.tiling import Tile
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.filters import Planes
from repsr_cli.yuv.formats import PlaneFormat

# Called with (tiles done, tiles in total); may raise to cancel.
Progress = Callable[[int, int], None]


class ReusingFrames(ABC):
    """Upscales frames from planes to planes, tile by tile; how a tile is computed is a subclass's.

    Args:
        runner: runs the tiles.
        changed: finds those that changed.
        cache: what keeps the frame before.
        fmt_out: the planes to write.
        scale: the network's.
    """

    def __init__(
        self, runner: Runner, changed: ChangedTiles, cache: ReuseCache, fmt_out: PlaneFormat, scale: int
    ) -> None:
        self._runner = runner
        self._changed = changed
        self._cache = cache
        self._fmt_out = fmt_out
        self._scale = scale

    @abstractmethod
    def _begin(
        self, planes: Sequence[NDArray[Any]], targets: Planes, tiles: list[Tile], progress: Progress | None
    ) -> Callable[[], Planes]:
        """Begin to compute tiles of a frame into the planes to write; returns what waits for these."""

    def begin(self, planes: Sequence[NDArray[Any]], progress: Progress | None = None) -> Finish:
        """Begin to upscale a frame; as ``PlaneUpscaler.begin``."""
        height, width = planes[0].shape
        last = self._cache.last(planes, self._runner.precision)
        tiles = self._runner.plan(height, width) if last is None else self._changed(planes, last)
        if last is not None and last.precision is not self._runner.precision:
            # The trial of finer tiles overflowed half precision.
            last, tiles = None, self._runner.plan(height, width)
        computed = sum(tile.core.area for tile in tiles)
        self._cache.count(height * width, computed)
        if last is not None and not tiles:
            return last.finish
        if last is None or computed == height * width:
            targets = self._targets(height, width)
        else:
            before = last.finish()
            assert not isinstance(before, DevicePlanes), "tiles follow whole frames in another precision"
            targets = tuple(plane.copy() for plane in before)
        finish = self._begin(planes, targets, tiles, progress)
        self._cache.keep(tuple(plane.copy() for plane in planes), finish, self._runner.precision)
        return finish

    def whole(self, planes: Sequence[NDArray[Any]]) -> Planes:
        """Upscale a frame, all of it, whatever came before; it is not kept."""
        height, width = planes[0].shape
        return self._begin(planes, self._targets(height, width), self._runner.plan(height, width), None)()

    def _targets(self, height: int, width: int) -> Planes:
        fmt = self._fmt_out
        return tuple(np.empty(size, fmt.dtype) for size in fmt.plane_sizes(height * self._scale, width * self._scale))


def once(finish: Callable[[], None], result: Planes) -> Callable[[], Planes]:
    """A result that is waited for at the first call; then what made it is released."""
    waiting = [finish]

    def finished() -> Planes:
        if waiting:
            waiting[0]()
            waiting.clear()
        return result

    return finished
