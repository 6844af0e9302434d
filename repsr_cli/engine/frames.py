"""The folded network over the frames of a clip: nothing full-size but the planes, and no work done twice. Floor 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.codes import codes_from_planes, integers, rounded, shrink_chroma
from repsr_cli.engine.folding import Part, fold
from repsr_cli.engine.tiling import Box, Tile, plan_tiles
from repsr_cli.engine.trunk import place
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.media.colour import PlaneFormat

Planes = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame done: what came, what the network made of it, what went, and the precision in force."""

    planes: Planes
    samples: tuple[Tensor, ...]
    result: Planes
    precision: torch.dtype


class FoldedUpscaler:
    """Enlarges planes by a network into which their meaning is folded.

    Args:
        upscaler: the network on its device.
        fmt_in: the meaning of the planes that come.
        fmt_out: the meaning of the planes that go.
        reuse: keep the output of what did not change since the frame before.
    """

    def __init__(self, upscaler: Upscaler, fmt_in: PlaneFormat, fmt_out: PlaneFormat, reuse: bool) -> None:
        self._upscaler = upscaler
        self._fmt_in = fmt_in
        self._fmt_out = fmt_out
        self._folded = fold(upscaler.net, fmt_in, fmt_out)
        self._black = torch.tensor(self._folded.black).view(1, -1, 1, 1)
        self._runner = upscaler.runner(self._folded.trunk, self._folded.parts[-1].stop)
        self._reuse = reuse
        self._last: _Frame | None = None
        self._exact: dict[tuple[int, int], bool] = {}
        self._pixels = self._computed = 0

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return max(0.0, 1 - self._computed / self._pixels) if self._pixels else 0.0

    def __call__(self, planes: Sequence[NDArray[Any]]) -> Planes:
        """Enlarge one frame; as ``PlaneUpscaler.__call__``."""
        height, width = planes[0].shape
        last = self._comparable(planes)
        tiles = self._plan(height, width) if last is None else self._changed(planes, last)
        if last is not None and last.precision is not self._runner.precision:
            last, tiles = None, self._plan(height, width)
        self._pixels += height * width
        self._computed += sum(tile.core.area for tile in tiles)
        if last is not None and not tiles:
            return last.result
        lr = (codes_from_planes(planes, self._fmt_in) - self._black) * self._folded.gain
        samples = self._run(lr, tiles, last)
        result = self._finished(samples)
        if self._reuse:
            kept = tuple(plane.copy() for plane in planes)
            self._last = _Frame(kept, samples, result, self._runner.precision)
        return result

    def _run(self, lr: Tensor, tiles: list[Tile], last: _Frame | None) -> tuple[Tensor, ...]:
        """One tensor per plane: integers, or float codes where the chroma filter must follow."""
        height, width = lr.shape[-2:]
        parts = self._folded.parts
        if last is not None:
            # Integers were handed out and stay as they are; float codes were not.
            samples = tuple(old if old.is_floating_point() else old.clone() for old in last.samples)
        else:
            samples = tuple(
                torch.empty(height * part.rows, width * part.columns, dtype=self._type(part)) for part in parts
            )

        def write(features: Tensor, tile: Tile) -> None:
            codes = features[0].float()
            for part, sample in zip(parts, samples, strict=True):
                if any(part.unfinished):
                    _write(codes.cpu(), sample, tile.core, part)
            whole = integers(codes.clamp_(0, self._fmt_out.peak), self._fmt_out)
            for part, sample in zip(parts, samples, strict=True):
                if not any(part.unfinished):
                    _write(whole, sample, tile.core, part)

        self._runner(lr, write, self._upscaler.progress, tiles)
        return samples

    def _type(self, part: Part) -> torch.dtype:
        if any(part.unfinished):
            return torch.float32
        return torch.uint8 if self._fmt_out.depth == 8 else torch.int16

    def _finished(self, samples: tuple[Tensor, ...]) -> Planes:
        planes = []
        for sample, part in zip(samples, self._folded.parts, strict=True):
            if any(part.unfinished):
                planes.append(rounded(shrink_chroma(sample, self._fmt_out, part.unfinished), self._fmt_out))
            else:
                planes.append(sample.numpy().view(np.uint8 if self._fmt_out.depth == 8 else np.uint16))
        return tuple(planes)

    def _plan(self, height: int, width: int) -> list[Tile]:
        return plan_tiles(height, width, self._runner.tile_for(height, width), self._runner.reach)

    def _comparable(self, planes: Sequence[NDArray[Any]]) -> _Frame | None:
        last = self._last
        if last is None or last.precision is not self._runner.precision:
            return None
        same = all(now.shape == then.shape for now, then in zip(planes, last.planes, strict=True))
        return last if same else None

    def _changed(self, planes: Sequence[NDArray[Any]], last: _Frame) -> list[Tile]:
        """The tiles whose context changed: the usual ones, or finer ones where this is less work and as exact."""
        height, width = planes[0].shape
        differs = [now != then for now, then in zip(planes, last.planes, strict=True)]
        coarse = [tile for tile in self._plan(height, width) if self._touched(tile.context, differs)]
        if not coarse:
            return []
        side = max(64, 6 * self._runner.reach)
        fine = [
            tile
            for tile in plan_tiles(height, width, (side, side), self._runner.reach)
            if self._touched(tile.context, differs)
        ]
        if 2 * sum(tile.context.area for tile in fine) > sum(tile.context.area for tile in coarse):
            return coarse
        if (height, width) not in self._exact:
            self._exact[height, width] = self._is_exact(height, width, side)
        return fine if self._exact[height, width] else coarse

    def _touched(self, context: Box, differs: list[NDArray[np.bool_]]) -> bool:
        if differs[0][context.slices()].any():
            return True
        down, across = self._fmt_in.subsample if self._fmt_in.matrix not in ("rgb", "grey") else (1, 1)
        # Enlarged chroma depends on the chroma samples beside its own.
        rows = slice(max(context.top // down - 1, 0), -(-context.bottom // down) + 1)
        columns = slice(max(context.left // across - 1, 0), -(-context.right // across) + 1)
        return any(bool(plane[rows, columns].any()) for plane in differs[1:])

    def _is_exact(self, height: int, width: int, side: int) -> bool:
        """Whether finer tiles give the same bits as the usual ones.

        A library may compute pictures of another size by another kernel, which adds in another order. So every shape of
        a fine tile is tried once, on noise, against the usual tile around it.
        """
        # Little of it: no more than a frame would does it overflow half precision.
        noise = torch.randn(1, len(self._folded.black), height, width, generator=torch.Generator().manual_seed(0)) / 100
        shapes = {}
        for tile in plan_tiles(height, width, (side, side), self._runner.reach):
            shapes[tile.context.height, tile.context.width, tile.inner] = tile
        features: dict[Tile, Tensor] = {}
        self._runner(noise, lambda found, tile: features.__setitem__(tile, found.clone()), tiles=list(shapes.values()))
        same = True

        def compare(found: Tensor, usual: Tile) -> None:
            nonlocal same
            for fine, values in features.items():
                common = _common(usual.core, fine.core)
                if common is not None:
                    a, b = _within(found, usual.core, common), _within(values, fine.core, common)
                    same = same and torch.equal(a, b)

        self._runner(noise, compare)
        return same


def _write(features: Tensor, plane: Tensor, core: Box, part: Part) -> None:
    window = plane[
        core.top * part.rows : core.bottom * part.rows,
        core.left * part.columns : core.right * part.columns,
    ]
    place(features[..., part.start : part.stop], window, part.rows, part.columns)


def _common(a: Box, b: Box) -> Box | None:
    box = Box(max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right))
    return box if box.height > 0 and box.width > 0 else None


def _within(features: Tensor, core: Box, box: Box) -> Tensor:
    return features[:, box.top - core.top : box.bottom - core.top, box.left - core.left : box.right - core.left]
