"""Run a network over tiles, several at a time, and over smaller ones if memory is short. Does not need torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from repsr_cli.engine.side_by_side import abandon, results
from repsr_cli.engine.tiling import CPU_CONTEXT_PIXELS, SMALLEST_TILE, Progress, Tile, fit_tile, plan_tiles
from repsr_cli.errors import DeviceError, lacks_memory

Write = Callable[[Any, Tile], None]


class NotFiniteError(ArithmeticError):
    """Results that are not finite in the current precision."""


class TileRunner(ABC):
    """Runs a network over tiles and passes what it gives for every tile to a writer; how is a subclass's.

    Where memory is short the tile is halved until the work fits. With ``overlap`` pixels of context, the network's
    reach or more, the cuts are invisible.

    Args:
        tile: ``auto``, ``auto:N``, ``off`` or the side of a core in LR pixels.
        device: its name.
        notify: reports a change of plan.

    Attributes:
        overlap: pixels of context on every side.
        margin: pixels around its core that a writer needs of every tile; cores begin at multiples of it.
        at_once: how many tiles are computed at once.
    """

    def __init__(
        self,
        backend: Any,
        precision: Any,
        overlap: int,
        margin: int,
        at_once: int,
        tile: str | int,
        device: str,
        notify: Callable[[str], None],
    ) -> None:
        self.overlap = overlap
        self.margin = margin
        self.precision = precision
        self.at_once = at_once
        self._backend = backend
        self._tile = tile
        self._device = device
        self._notify = notify
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._budget = int(tile[len("auto:") :]) if isinstance(tile, str) and ":" in tile else None
        self._largest: int | None = None

    @abstractmethod
    def _pool(self, count: int) -> ThreadPoolExecutor | None:
        """So many threads; None where tiles are to be computed in the calling thread, one after the other."""

    @abstractmethod
    def _compute(self, backend: Any, lr: Any, tile: Tile, write: Write) -> None:
        """Compute a tile and write it; called from the threads of a pool, or from the calling one."""

    def _measure(self) -> int:
        """How many pixels a context may have, where the tile size does not say so."""
        return CPU_CONTEXT_PIXELS

    def _threads(self) -> AbstractContextManager[None]:
        """What is done around the work in the calling thread."""
        return nullcontext()

    def _recover(self, lr: Any, plan: list[Tile], error: BaseException) -> None:
        """Make ready to compute an image again after an error; raises it where that would be in vain."""
        if not lacks_memory(error):
            raise error
        side = max(max(each.core.height, each.core.width) for each in plan)
        if side <= SMALLEST_TILE:
            happened = f"out of memory at the smallest tile ({SMALLEST_TILE} pixels)"
            remedy = "Close other programs." if self._device == "cpu" else "Free memory, or use --device cpu."
            raise DeviceError(self._device, happened, remedy) from error
        self._largest = max(side // 2, SMALLEST_TILE)
        self._notify(f"out of memory on {self._device}; going on with tiles of {self._largest} pixels")

    def noise(self, channels: int, height: int, width: int) -> Any:
        """Input for trials, (1, channels, height, width).

        Of low amplitude, so that it does not overflow half precision where a frame would not.
        """
        return np.random.default_rng(0).standard_normal((1, channels, height, width), np.float32) / np.float32(100)

    @property
    def budget(self) -> int:
        """How many pixels a context may have, by the memory for its features."""
        # Measured once: what torch's allocator keeps after the first image does not count as free.
        if self._budget is None:
            self._budget = self._measure()
        return self._budget

    def plan(self, height: int, width: int, side: int | None = None) -> list[Tile]:
        """The tiles of an image of this size; with ``side``, cores of that many pixels a side."""
        tile = (side, side) if side is not None else self._tile_for(height, width)
        return plan_tiles(height, width, tile, self.overlap, max(self.margin, 1))

    def _tile_for(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self._tile, int):
            tile = (self._tile, self._tile)
        elif self._tile == "off":
            tile = (height, width)
        else:
            # For pairs, however many there are at once: results do not depend on the number of threads.
            tile = fit_tile(height, width, self.overlap, self.budget, min(self.at_once, 2))
        if self._largest is not None:
            tile = (min(tile[0], self._largest), min(tile[1], self._largest))
        return tile

    def __call__(
        self, lr: Any, write: Write, progress: Progress | None = None, tiles: list[Tile] | None = None
    ) -> None:
        """Run the network over a batch of images.

        Args:
            lr: (N, C, H, W) float32 on the CPU.
            write: called with what the backend gives for a tile's core and the margin around it (clipped to the image),
                (N, h, w, K), and the tile. It may change the samples. It is called possibly from several threads at
                once for different tiles, possibly again for pixels already written.
            progress: called with (tiles done, tiles in total) after each tile; may raise to cancel.
            tiles: what to compute; None: the whole image. If memory is short, the whole image is computed in smaller
                tiles.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite even in fp32.
            MediaError: the input is not finite.
        """
        with self._threads():
            self._finish(lr, write, progress, tiles, None)

    def begin(
        self, lr: Any, write: Write, progress: Progress | None = None, tiles: list[Tile] | None = None
    ) -> Callable[[], None]:
        """Begin a call, and return before its end, so that the next image's tiles can follow without a pause.

        Returns:
            A function that waits for the end, and raises what a call raises. It does all the work where tiles run one
            after the other. If half precision is abandoned in between, the image is computed again.
        """
        plan = tiles if tiles is not None else self.plan(*lr.shape[-2:])
        running, precision = self._side_by_side(lr, plan, write, self.at_once), self.precision
        if running is None:
            return lambda: self(lr, write, progress, plan)

        def finish() -> None:
            with self._threads():
                if self.precision is precision:
                    self._finish(lr, write, progress, plan, running)
                    return
                abandon(running)
                self._finish(lr, write, progress, None, None)

        return finish

    def _finish(
        self,
        lr: Any,
        write: Write,
        progress: Progress | None,
        tiles: list[Tile] | None,
        running: list[Future[None]] | None,
    ) -> None:
        """Compute, or wait for what is being computed; repeat if memory or precision did not suffice."""
        while True:
            plan = tiles if tiles is not None else self.plan(*lr.shape[-2:])
            if running is None and self.at_once > 1 and len(plan) > 1:
                # Nothing follows: a few tiles are done sooner two by two, each on half the threads.
                running = self._side_by_side(lr, plan, write, self.at_once if len(plan) >= self.at_once else 2)
            computed = self._in_turn(lr, plan, write) if running is None else results(running)
            try:
                for done, _ in enumerate(computed, 1):
                    if progress is not None:
                        progress(done, len(plan))
                return
            except KeyboardInterrupt:
                # Nobody waits for the images that were begun after this one, but the end of the process would.
                while self._pools:
                    self._pools.popitem()[1].shutdown(wait=False, cancel_futures=True)
                raise
            except (RuntimeError, MemoryError, NotFiniteError) as error:
                self._recover(lr, plan, error)
            tiles = running = None

    def _in_turn(self, lr: Any, plan: list[Tile], write: Write) -> Iterator[None]:
        """One tile after the other, on all threads."""
        for tile in plan:
            self._compute(self._backend, lr, tile, write)
            yield

    def _side_by_side(self, lr: Any, plan: list[Tile], write: Write, at_once: int) -> list[Future[None]] | None:
        """Several tiles at once, each on a share of the threads, so that no thread waits for another between layers.

        None where there are no threads for that: from then on, tiles are computed one after the other.
        """
        if at_once not in self._pools:
            pool = self._pool(at_once)
            if pool is None:
                self.at_once = 1
                return None
            self._pools[at_once] = pool
        return [self._pools[at_once].submit(self._compute, self._backend, lr, tile, write) for tile in plan]
