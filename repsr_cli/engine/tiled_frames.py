"""Upscale frames tile by tile with a folded network, reusing the tiles that did not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.backends.folded import folded_backend
from repsr_cli.engine.body import place
from repsr_cli.engine.colour_folding import Folded
from repsr_cli.engine.plane_folding import cross
from repsr_cli.engine.reusing_frames import ReusingFrames
from repsr_cli.engine.tensor_tiles import TensorRunner
from repsr_cli.engine.tile_reuse import ReuseCache
from repsr_cli.engine.tiling import Progress, Tile
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.yuv.chroma import integers, rounded, shrink_chroma
from repsr_cli.yuv.filters import Planes
from repsr_cli.yuv.formats import PlaneFormat


class TiledFrames(ReusingFrames):
    """Upscales frames from planes to planes, tile by tile.

    Args:
        folded: the same network, with both formats folded in.

    Attributes:
        engine: what computes: ``torch``, or another engine's name and version.
    """

    def __init__(
        self, upscaler: Upscaler, folded: Folded, fmt_in: PlaneFormat, fmt_out: PlaneFormat, cache: ReuseCache
    ) -> None:
        make_backend, self.engine = folded_backend(folded, fmt_out, upscaler.settings)
        channels = max(upscaler.spec.channels, folded.parts[-1].stop)
        self.runner = TensorRunner(make_backend, upscaler.settings, upscaler.spec.reach, channels, folded.margin)
        super().__init__(self.runner, folded, (fmt_in, fmt_out), upscaler.scale, cache)

    def sample(self, lr: Tensor, pixels: int) -> tuple[Callable[[], None], float]:
        """Some of the work on a frame, to be timed.

        Args:
            lr: (1, C, H, W) float32, in place of a frame; the values do not matter.
            pixels: how many the tiles have together at least, context included.

        Returns:
            A function that computes so many tiles that all threads are busy all the time; and what share of a frame's
            work this is, possibly above 1.
        """
        height, width = lr.shape[-2:]
        plan = self.runner.plan(height, width)
        area = sum(tile.context.area for tile in plan)
        at_once = max(self.runner.at_once, 2)
        count = at_once * -(-pixels * len(plan) // (at_once * area))
        tiles = list(islice(cycle(plan), max(count, at_once)))
        write = partial(self._write, self._targets(height, width))
        return lambda: self.runner.begin(lr, write, tiles=tiles)(), sum(tile.context.area for tile in tiles) / area

    def _begin(
        self, lr: NDArray[np.float32], targets: Planes, tiles: list[Tile], progress: Progress | None
    ) -> Callable[[], None]:
        return self.runner.begin(torch.from_numpy(lr), partial(self._write, targets), progress, tiles)

    def _write(self, targets: Planes, found: Tensor, tile: Tile) -> None:
        """Write a tile's core into the planes of a frame.

        Args:
            found: (1, h, w, K), of the core and the margin around it: floats, or finished samples as integers.
        """
        if not found.is_floating_point():
            self._put(found[0], self._finished, tile, targets)
            return
        samples, fmt = found[0].float(), self._fmt_out
        there = tile.with_margin(self.runner.margin)
        core = tile.core.seen_from(there)
        for part, target in zip(self._parts, targets, strict=True):
            if any(part.unfinished):
                full = torch.empty(there.height * part.rows, there.width * part.columns)
                place(samples[..., part.start : part.stop].cpu(), full, part.rows, part.columns)
                chroma = shrink_chroma(full, fmt, part.unfinished)
                from_, to = part.window(core), part.window(tile.core)
                target[to] = rounded(chroma[from_], fmt)
            elif part.crossing:
                cross(samples, part, there.left == 0, there.right == tile.image.right)
        own = [part.own for part in self._parts]
        self._put(integers(samples.clamp_(0, fmt.peak), fmt), own, tile, targets)

    def _put(self, whole: Tensor, samples: Sequence[slice], tile: Tile, targets: Planes) -> None:
        """Shuffle finished samples, (h, w, K) integers, to their places; the rest as ``_places`` takes it."""
        for at, target, part in self._places(tile, samples, targets):
            plane = torch.from_numpy(target if self._fmt_out.depth == 8 else target.view(np.int16))
            # By torch: where torch is loaded, a frame of `fast` by OpenVINO takes a fifth longer if NumPy does this.
            place(whole[at], plane, part.rows, part.columns)
