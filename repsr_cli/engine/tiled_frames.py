"""Upscale frames tile by tile with a folded network, reusing the tiles that did not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, cycle, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.backends.folded import folded_backend
from repsr_cli.engine.body import place
from repsr_cli.engine.colour_folding import Folded, cross
from repsr_cli.engine.runner import BodyShape, Progress, TileRunner
from repsr_cli.engine.tile_reuse import ChangedTiles, Finish, ReuseCache
from repsr_cli.engine.tiling import Tile
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.yuv.chroma import Planes, integers, rounded, samples_from_planes, shrink_chroma
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.formats import PlaneFormat


class TiledFrames:
    """Upscales frames from planes to planes, tile by tile.

    Args:
        upscaler: the network on its device.
        folded: the same network, with both formats folded in.
        fmt_in: the LR planes.
        fmt_out: the planes to write.
        cache: what keeps the frame before.

    Attributes:
        engine: what computes: ``torch``, or another engine's name and version.
        runner: what runs the tiles.
    """

    def __init__(
        self, upscaler: Upscaler, folded: Folded, fmt_in: PlaneFormat, fmt_out: PlaneFormat, cache: ReuseCache
    ) -> None:
        self._fmt_in = fmt_in
        self._fmt_out = fmt_out
        self._folded = folded
        self._cache = cache
        self._scale = upscaler.scale
        self._black = torch.tensor(folded.black).view(1, -1, 1, 1)
        # The chroma filter reaches two samples out, which at scale 1 is two pixels; and two is even, so that chroma
        # begins on a core's first sample at odd scales too.
        unfinished = any(any(part.unfinished) for part in folded.parts)
        margin = 2 if unfinished else 1 if any(part.crossing for part in folded.parts) else 0
        make_backend, self.engine = folded_backend(folded, fmt_out, upscaler.settings)
        channels = max(upscaler.spec.channels, folded.parts[-1].stop)
        self.runner = TileRunner(make_backend, BodyShape(upscaler.spec.reach, channels, margin), upscaler.settings)
        self._changed = ChangedTiles(self.runner, fmt_in.subsample, len(folded.black))

    def begin(self, planes: Sequence[NDArray[Any]], progress: Progress | None = None) -> Finish:
        """Begin to upscale a frame; as ``PlaneUpscaler.begin``."""
        height, width = planes[0].shape
        last = self._cache.last(planes, self.runner.precision)
        tiles = self.runner.plan(height, width) if last is None else self._changed(planes, last)
        if last is not None and last.precision is not self.runner.precision:
            # The trial of finer tiles overflowed half precision.
            last, tiles = None, self.runner.plan(height, width)
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
        self._cache.keep(tuple(plane.copy() for plane in planes), finish, self.runner.precision)
        return finish

    def whole(self, planes: Sequence[NDArray[Any]]) -> Planes:
        """Upscale a frame, all of it, whatever came before; it is not kept."""
        height, width = planes[0].shape
        return self._begin(planes, self._targets(height, width), self.runner.plan(height, width), None)()

    def sample(self, lr: Tensor, pixels: int) -> tuple[Callable[[], None], float]:
        """Some of the work on a frame, to be timed.

        Args:
            lr: (1, C, H, W) float32, in place of a frame; the values do not matter.
            pixels: how many the tiles have together at least, context included.

        Returns:
            A function that computes an even number of tiles, so that all threads are busy; and what share of a frame's
            work this is, possibly above 1.
        """
        height, width = lr.shape[-2:]
        plan = self.runner.plan(height, width)
        area = sum(tile.context.area for tile in plan)
        count = 2 * -(-pixels * len(plan) // (2 * area))
        tiles = list(islice(cycle(plan), max(count, 2)))
        write = self._writer(self._targets(height, width))
        return lambda: self.runner(lr, write, tiles=tiles), sum(tile.context.area for tile in tiles) / area

    def _begin(
        self, planes: Sequence[NDArray[Any]], targets: Planes, tiles: list[Tile], progress: Progress | None
    ) -> Callable[[], Planes]:
        lr = (samples_from_planes(planes, self._fmt_in) - self._black) * self._folded.gain
        return _once(self.runner.begin(lr, self._writer(targets), progress, tiles), targets)

    def _targets(self, height: int, width: int) -> Planes:
        fmt = self._fmt_out
        return tuple(np.empty(size, fmt.dtype) for size in fmt.plane_sizes(height * self._scale, width * self._scale))

    def _writer(self, targets: Planes) -> Callable[[Tensor, Tile], None]:
        """What writes tiles into the planes of a frame."""

        def write(found: Tensor, tile: Tile) -> None:
            if found.is_floating_point():
                self._write(found[0].float(), tile, targets)
                return
            # Finished samples: one plane's after the other's.
            counts = [part.rows * part.columns for part in self._folded.parts]
            own = [slice(stop - count, stop) for count, stop in zip(counts, accumulate(counts), strict=True)]
            self._put(found[0], own, tile, targets)

        return write

    def _write(self, samples: Tensor, tile: Tile, targets: Planes) -> None:
        """Write a tile's core into the planes.

        Args:
            samples: (h, w, K) float32, of the core and the margin around it.
            tile: the tile.
            targets: the planes of the whole frame.
        """
        fmt = self._fmt_out
        there = tile.core.grown(self.runner.margin, tile.context)
        core = tile.core.seen_from(there)
        for part, target in zip(self._folded.parts, targets, strict=True):
            if any(part.unfinished):
                full = torch.empty(there.height * part.rows, there.width * part.columns)
                place(samples[..., part.start : part.stop].cpu(), full, part.rows, part.columns)
                chroma = shrink_chroma(full, fmt, part.unfinished)
                from_, to = part.window(core), part.window(tile.core)
                target[to] = rounded(chroma[from_], fmt)
            elif part.crossing:
                cross(samples, part, there.left == 0, there.right == tile.image.right)
        own = [part.own for part in self._folded.parts]
        self._put(integers(samples.clamp_(0, fmt.peak), fmt), own, tile, targets)

    def _put(self, whole: Tensor, samples: Sequence[slice], tile: Tile, targets: Planes) -> None:
        """Shuffle finished samples to their places.

        Args:
            whole: (h, w, K) integers, of the core and the margin around it.
            samples: the channels of each plane.
            tile: the tile.
            targets: the planes of the whole frame.
        """
        core = tile.core.seen_from(tile.core.grown(self.runner.margin, tile.context)).slices()
        for part, own, target in zip(self._folded.parts, samples, targets, strict=True):
            if not any(part.unfinished):
                plane = torch.from_numpy(target if self._fmt_out.depth == 8 else target.view(np.int16))
                place(whole[core][..., own], plane[part.window(tile.core)], part.rows, part.columns)


def _once(finish: Callable[[], None], result: Planes) -> Callable[[], Planes]:
    """A result that is waited for at the first call; then what made it is released."""
    waiting = [finish]

    def finished() -> Planes:
        if waiting:
            waiting[0]()
            waiting.clear()
        return result

    return finished
