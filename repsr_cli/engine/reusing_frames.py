"""Upscale frames tile by tile, computing only the tiles that changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.plane_folding import FoldedArrays, Part
from repsr_cli.engine.runner import TileRunner
from repsr_cli.engine.side_by_side import frames_ahead
from repsr_cli.engine.tile_reuse import ChangedTiles, Finish, ReuseCache
from repsr_cli.engine.tiling import Progress, Tile
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.filters import Planes, samples_of
from repsr_cli.yuv.formats import PlaneFormat


class ReusingFrames(ABC):
    """Upscales frames from planes to planes, tile by tile; how a tile is computed is a subclass's.

    Args:
        folded: what it computes.
        formats: the LR planes, and those to write.

    Attributes:
        ahead: how many frames are worth beginning before the first of them is waited for; 1 before the first frame.
    """

    def __init__(
        self,
        runner: TileRunner,
        folded: FoldedArrays,
        formats: tuple[PlaneFormat, PlaneFormat],
        scale: int,
        cache: ReuseCache,
    ) -> None:
        self._runner = runner
        self._fmt_in, self._fmt_out = formats
        self._scale = scale
        self.ahead = 1
        self._cache = cache
        self._changed = ChangedTiles(runner, self._fmt_in.subsample, len(folded.black))
        self._black = np.array(folded.black, np.float32).reshape(1, -1, 1, 1)
        self._gain = np.float32(folded.gain)
        self._parts = folded.parts
        # Where a network gives finished samples: one plane's after the other's.
        counts = [part.rows * part.columns for part in folded.parts]
        self._finished = [slice(stop - count, stop) for count, stop in zip(counts, accumulate(counts), strict=True)]

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return self._cache.reused

    @abstractmethod
    def _begin(
        self, lr: NDArray[np.float32], targets: Planes, tiles: list[Tile], progress: Progress | None
    ) -> Callable[[], None]:
        """Begin to compute tiles of the network's input into the planes to write; returns what waits for these."""

    def begin(self, planes: Sequence[NDArray[Any]], progress: Progress | None = None) -> Finish:
        """Begin to upscale a frame; as ``PlaneUpscaler.begin``."""
        height, width = planes[0].shape
        last = self._cache.last(planes, self._runner.precision)
        tiles = self._runner.plan(height, width) if last is None else self._changed(planes, last)
        if last is None:
            self.ahead = frames_ahead(self._runner.at_once, len(tiles))
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
        finish = once(self._begin(self._lr(planes), targets, tiles, progress), targets)
        self._cache.keep(tuple(plane.copy() for plane in planes), finish, self._runner.precision)
        return finish

    def whole(self, planes: Sequence[NDArray[Any]]) -> Planes:
        """Upscale a frame, all of it, whatever came before; it is not kept."""
        height, width = planes[0].shape
        targets = self._targets(height, width)
        self._begin(self._lr(planes), targets, self._runner.plan(height, width), None)()
        return targets

    def _lr(self, planes: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The network's input, (1, C, H, W).

        By NumPy, in the calling thread: torch's threads would take cores from the tiles under way, and wait for one
        another.
        """
        lr = samples_of(planes, self._fmt_in)
        lr -= self._black
        lr *= self._gain
        return lr

    def _places(
        self, tile: Tile, samples: Sequence[slice], targets: Planes
    ) -> Iterator[tuple[tuple[slice, slice, slice], NDArray[Any], Part]]:
        """Where the finished samples of a tile lie, and where they go, plane by plane.

        Args:
            samples: the channels of each plane.

        Yields:
            The index of a plane's samples in (h, w, K), the core and the margin around it; the window of the plane.
        """
        rows, columns = tile.core.seen_from(tile.with_margin(self._runner.margin)).slices()
        for part, own, target in zip(self._parts, samples, targets, strict=True):
            if not any(part.unfinished):
                yield (rows, columns, own), target[part.window(tile.core)], part

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
