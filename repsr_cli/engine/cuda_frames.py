"""Upscale whole frames on a CUDA device, checked against tiles, which take over if that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repsr_cli.engine.cuda_batches import CudaBatches, CudaQueues, PlanesNetwork
from repsr_cli.engine.runner import NotFiniteError
from repsr_cli.engine.settings import Notify
from repsr_cli.engine.tile_reuse import Finish, ReuseCache
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.tiling import Progress
from repsr_cli.errors import lacks_memory
from repsr_cli.yuv.device_planes import DevicePlanes, on_host
from repsr_cli.yuv.filters import Planes

# How far graph and plain path may be apart anywhere, and on average, as shares of the largest sample. Kernels for other
# sizes add in another order, in half precision; a wrong frame is off by far more.
APART, APART_MEAN = 4 / 255, 0.25 / 255


class CudaFrames:
    """Upscales frames that a CUDA device computes whole.

    It checks itself: the first batch, and one frame more, are also computed tile by tile, without graphs and streams.
    Where that gives other frames, or a graph fails, everything is computed tile by tile from then on.

    Args:
        network: makes the network on the device, for a precision.
        tiled: the same network tile by tile: decides what fits, and computes frames that half precision cannot hold.
        notify: called in one line where the device is given up.
    """

    def __init__(
        self,
        queues: CudaQueues,
        network: Callable[[torch.dtype], PlanesNetwork],
        tiled: TiledFrames,
        cache: ReuseCache,
        notify: Notify,
    ) -> None:
        self._queues: CudaQueues | None = queues
        self._notify = notify
        self._to_check = 0
        self._network = network
        self._tiled = tiled
        self._cache = cache
        self._made: tuple[tuple[int, int], torch.dtype, CudaBatches] | None = None

    @property
    def ahead(self) -> int:
        """How many frames to begin before waiting for the first of them; 1 before ``prepare``."""
        return 1 if self._made is None else self._made[2].ahead

    def prepare(self, size: tuple[int, int]) -> bool:
        """Get ready for frames of a size.

        Args:
            size: (height, width) of the LR luma.

        Returns:
            Whether the device can compute such frames whole. Otherwise they are to be cut into tiles.
        """
        runner = self._tiled.runner
        if self._queues is None or len(runner.plan(*size)) > 1:
            self._made = None
            return False
        if self._made is None or self._made[:2] != (size, runner.precision):
            try:
                batches = CudaBatches(self._queues, self._network(runner.precision), size, runner.budget)
            except RuntimeError as error:
                self._made = None
                if lacks_memory(error):  # tiles can be halved until they fit
                    self._queues = None
                else:
                    self._give_up(f"fails ({_first_line(error)})")
                return False
            self._made = (size, runner.precision, batches)
            # One more: the second batch has memory and a graph of its own.
            self._to_check = batches.batch + 1
        return True

    def begin(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Finish:
        """Begin to upscale one frame of the size that was prepared; it counts as one tile."""
        assert self._made is not None, "prepare comes first"
        (height, width), precision, batches = self._made
        if isinstance(planes, DevicePlanes):
            # Changes are not looked for on the device.
            self._cache.count(height * width, height * width)
            self._cache.forget()
            finish = self._or_tiled(self._begun(batches, planes), planes.on_host)
        else:
            last = self._cache.last(planes, precision)
            if last is not None and all(map(np.array_equal, planes, last.planes)):
                self._cache.count(height * width, 0)
                return _reporting(last.finish, progress)
            self._cache.count(height * width, height * width)
            kept = tuple(plane.copy() for plane in planes)
            finish = self._or_tiled(self._begun(batches, kept), lambda: kept)
            self._cache.keep(kept, finish, precision)
        return _reporting(finish, progress)

    def _begun(self, batches: CudaBatches, planes: Sequence[NDArray[Any]] | DevicePlanes) -> Finish | None:
        """A frame begun on the device; None where that fails, and the device is given up."""
        try:
            return batches.begin(planes)
        except RuntimeError as error:
            self._give_up(f"fails ({_first_line(error)})")
            return None

    def _or_tiled(self, finish: Finish | None, planes: Callable[[], Planes]) -> Finish:
        """A frame from the device, or by tiles: where the device was given up, or half precision cannot hold it.

        In the latter case tiles change to fp32 for good.
        """
        by_tiles: list[Planes] = []

        def finished() -> Planes | DevicePlanes:
            if not by_tiles:
                found = None
                try:
                    if finish is not None and self._queues is not None:
                        found = self._checked(finish(), planes)
                except NotFiniteError:
                    pass
                except RuntimeError as error:
                    self._give_up(f"fails ({_first_line(error)})")
                if found is not None:
                    return found
                by_tiles.append(self._tiled.whole(planes()))
            return by_tiles[0]

        return finished

    def _checked(self, found: Planes | DevicePlanes, planes: Callable[[], Planes]) -> Planes | DevicePlanes | None:
        """A frame from the device; None where it is one of the first, and wrong."""
        if not self._to_check:
            return found
        self._to_check -= 1
        off = _apart(on_host(found), self._tiled.whole(planes()))
        if off is None:
            return found
        self._give_up(f"gives other frames (off by {off})")
        return None

    def _give_up(self, why: str) -> None:
        """Compute tile by tile from now on, also the frames that are under way."""
        self._queues = None
        self._cache.forget()
        self._notify(f"computing whole frames {why}: going on tile by tile, which is slower")


def _apart(found: Planes, expected: Planes) -> int | None:
    """The largest difference of two frames in code values; None if they are the same but for rounding."""
    largest = 0
    for ours, theirs in zip(found, expected, strict=True):
        if ours.shape != theirs.shape:
            return int(np.iinfo(theirs.dtype).max)
        difference = np.abs(ours.astype(np.int32) - theirs)
        peak = 255 if theirs.dtype == np.uint8 else 1023
        if difference.max() > APART * peak or difference.mean() > APART_MEAN * peak:
            largest = max(largest, int(difference.max()))
    return largest or None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _reporting(finish: Finish, progress: Progress | None) -> Finish:
    if progress is None:
        return finish

    def finished() -> Planes | DevicePlanes:
        result = finish()
        progress(1, 1)
        return result

    return finished
