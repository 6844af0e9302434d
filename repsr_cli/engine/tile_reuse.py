"""Keep the last frame of a video, and find the tiles that changed since."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.runner import TileRunner
from repsr_cli.engine.tiling import Box, Tile
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.filters import Planes

# Waits for a frame and returns it. Raises what computing it raised.
Finish = Callable[[], Planes | DevicePlanes]


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame computed or being computed.

    Attributes:
        planes: a copy of its LR planes.
        finish: what gives its output; may be called several times.
        precision: what it is computed in.
    """

    planes: Planes
    finish: Finish
    precision: object


class ReuseCache:
    """Keeps the last frame, and counts the pixels that it saved.

    Args:
        enabled: False: keeps nothing.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._last: Kept | None = None
        self._pixels = self._computed = 0

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return max(0.0, 1 - self._computed / self._pixels) if self._pixels else 0.0

    def last(self, planes: Sequence[NDArray[Any]], precision: object) -> Kept | None:
        """The frame before, if it has the size of these planes and was computed in this precision."""
        last = self._last
        if last is None or last.precision is not precision:
            return None
        same = all(now.shape == then.shape for now, then in zip(planes, last.planes, strict=True))
        return last if same else None

    def keep(self, planes: Planes, finish: Finish, precision: object) -> None:
        """Replace the frame kept."""
        if self._enabled:
            self._last = Kept(planes, finish, precision)

    def forget(self) -> None:
        """Keep no frame."""
        self._last = None

    def count(self, pixels: int, computed: int) -> None:
        """Count a frame: its LR pixels, and how many of them are computed."""
        self._pixels += pixels
        self._computed += computed


class ChangedTiles:
    """Finds the tiles of a frame that must be computed: the runner's usual ones, or finer ones where they are exact.

    Args:
        subsample: luma samples per chroma sample of the LR planes, (vertical, horizontal).
        channels: of the runner's input.
    """

    def __init__(self, runner: TileRunner, subsample: tuple[int, int], channels: int) -> None:
        self._runner = runner
        self._subsample = subsample
        self._channels = channels
        self._fine: dict[tuple[int, int], list[Tile]] = {}
        self._exact: dict[tuple[int, int], bool] = {}

    def __call__(self, planes: Sequence[NDArray[Any]], last: Kept) -> list[Tile]:
        """The tiles whose context changed: finer than usual where that is less work and gives the same bytes.

        Args:
            planes: the LR planes of the frame.
            last: the frame before, of the same size.
        """
        height, width = planes[0].shape
        differences = [now != then for now, then in zip(planes, last.planes, strict=True)]
        if not any(plane.any() for plane in differences):
            return []

        usual = [tile for tile in self._runner.plan(height, width) if self._touches(tile.context, differences)]
        side = max(64, 6 * self._runner.overlap)
        if (height, width) not in self._fine:
            self._fine[height, width] = self._runner.plan(height, width, side)
        fine, area, most = [], 0, sum(tile.context.area for tile in usual) / 2
        for tile in self._fine[height, width]:
            if self._touches(tile.context, differences):
                fine.append(tile)
                area += tile.context.area
                if area > most:
                    return usual
        if (height, width) not in self._exact:
            self._exact[height, width] = is_exact(self._runner, self._channels, (height, width), side)
        return fine if self._exact[height, width] else usual

    def _touches(self, context: Box, differences: list[NDArray[np.bool_]]) -> bool:
        down, across = self._subsample
        # Enlarged chroma depends on the chroma samples beside its own.
        rows = slice(max(context.top // down - 1, 0), -(-context.bottom // down) + 1)
        columns = slice(max(context.left // across - 1, 0), -(-context.right // across) + 1)
        windows = [context.slices()] + [(rows, columns)] * (len(differences) - 1)
        return any(bool(plane[at].any()) for plane, at in zip(differences, windows, strict=True))


def is_exact(runner: TileRunner, channels: int, size: tuple[int, int], side: int) -> bool:
    """Whether finer tiles give the same bits as a runner's usual ones.

    A library may compute images of another size by another kernel, which adds in another order. So every shape of a
    fine tile is tried once, on noise, against the usual tiles around it.

    Args:
        channels: of its input.
        size: (height, width) of a frame, LR pixels.
        side: of the finer tiles' cores, LR pixels.
    """
    noise = runner.noise(channels, *size)
    shapes = {}
    for tile in runner.plan(*size, side):
        shapes[tile.context.height, tile.context.width, tile.inner] = tile
    fine: dict[Tile, NDArray[Any]] = {}
    # Begun, as frames are: then the same threads compute them.
    runner.begin(noise, lambda found, tile: fine.__setitem__(tile, _array(found).copy()), tiles=list(shapes.values()))()
    verdicts = []

    def within(features: NDArray[Any], tile: Tile, box: Box) -> NDArray[Any]:
        rows, columns = box.seen_from(tile.with_margin(runner.margin)).slices()
        return features[:, rows, columns]

    def compare(found: Any, usual: Tile) -> None:
        for tile, values in fine.items():
            common = usual.core.common(tile.core)
            if common is not None:
                same = np.array_equal(within(_array(found), usual, common), within(values, tile, common))
                verdicts.append(same)

    runner.begin(noise, compare)()
    return all(verdicts)


def _array(found: Any) -> NDArray[Any]:
    """What a runner gives for a tile, as an array; exact, since no number format here is wider than float32."""
    return found if isinstance(found, np.ndarray) else np.asarray(found.float().cpu().numpy())
