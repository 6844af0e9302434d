"""Run a compiled network over tiles of arrays, without torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.memory import smaller
from repsr_cli.engine.side_by_side import results, tiles_at_once
from repsr_cli.engine.tiling import Progress, Tile, fit_tile, plan_tiles
from repsr_cli.errors import lacks_memory

Samples = NDArray[np.float32]
Write = Callable[[NDArray[Any], Tile], None]


class Computes(Protocol):
    """Computes what the pixels of a tile's context become, in several threads at once."""

    def run(self, context: Samples, tile: Tile) -> NDArray[Any]:
        """As ``OpenVinoGraphs.run``."""


@dataclass(slots=True)
class ArrayRunner:
    """Runs a network over tiles, several at a time, and passes what it gives to a writer; as ``TileRunner``.

    Attributes:
        network: computes a tile.
        precision: its number format.
        overlap: pixels of context on every side.
        margin: pixels around its core that a writer needs of every tile.
        threads: CPU threads.
        budget: LR pixels of a tile, context included.
        notify: reports a change of plan.
    """

    network: Computes
    precision: str
    overlap: int
    margin: int
    threads: int
    budget: int
    notify: Callable[[str], None]
    _largest: int | None = None
    _pool: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.at_once, thread_name_prefix="tile")

    @property
    def at_once(self) -> int:
        """How many tiles are computed at once."""
        return tiles_at_once(self.threads)

    def plan(self, height: int, width: int, side: int | None = None) -> list[Tile]:
        """The tiles of an image of this size; with ``side``, cores of that many pixels a side."""
        if side is not None:
            tile = (side, side)
        else:
            tile = fit_tile(height, width, self.overlap, self.budget, min(self.threads, 2))
            if self._largest is not None:
                tile = (min(tile[0], self._largest), min(tile[1], self._largest))
        return plan_tiles(height, width, tile, self.overlap, max(self.margin, 1))

    def noise(self, channels: int, height: int, width: int) -> Samples:
        """Input for trials, (1, channels, height, width)."""
        return np.random.default_rng(0).standard_normal((1, channels, height, width), np.float32) / np.float32(100)

    def __call__(
        self, lr: Samples, write: Write, progress: Progress | None = None, tiles: list[Tile] | None = None
    ) -> None:
        """As ``TileRunner.__call__``."""
        self.begin(lr, write, progress, tiles)()

    def begin(
        self, lr: Samples, write: Write, progress: Progress | None = None, tiles: list[Tile] | None = None
    ) -> Callable[[], None]:
        """As ``TileRunner.begin``."""
        plan = tiles if tiles is not None else self.plan(*lr.shape[-2:])
        running = self._side_by_side(lr, plan, write)
        return lambda: self._finish(lr, write, progress, plan, running)

    def _side_by_side(self, lr: Samples, plan: list[Tile], write: Write) -> list[Future[None]]:
        def compute(tile: Tile) -> None:
            rows, columns = tile.with_margin(self.margin).seen_from(tile.context).slices()
            write(self.network.run(lr[(..., *tile.context.slices())], tile)[:, rows, columns], tile)

        return [self._pool.submit(compute, tile) for tile in plan]

    def _finish(
        self, lr: Samples, write: Write, progress: Progress | None, plan: list[Tile], running: list[Future[None]]
    ) -> None:
        """Wait for tiles; compute the whole image in smaller ones if memory does not suffice."""
        while True:
            try:
                for done, _ in enumerate(results(running), 1):
                    if progress is not None:
                        progress(done, len(plan))
                return
            except KeyboardInterrupt:  # as TileRunner
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._new_pool()
                raise
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
                side = max(max(each.core.height, each.core.width) for each in plan)
                self._largest = smaller(side, "cpu", self.notify, error)
            plan = self.plan(*lr.shape[-2:])
            running = self._side_by_side(lr, plan, write)
