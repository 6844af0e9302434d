"""Run a body over tiles within the limits of memory and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Barrier, BrokenBarrierError

import torch
from torch import Tensor

from repsr_cli.engine.backends.backend import Backend, MakeBackend
from repsr_cli.engine.memory import smaller
from repsr_cli.engine.settings import RunSettings, precision_name
from repsr_cli.engine.side_by_side import abandon, results, tiles_at_once
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.tiling import CPU_CONTEXT_PIXELS, Progress, Tile, fit_tile, plan_tiles
from repsr_cli.errors import DeviceError, MediaError, lacks_memory

Write = Callable[[Tensor, Tile], None]


class NotFiniteError(ArithmeticError):
    """Results that are not finite in the current precision."""


@dataclass(frozen=True, slots=True)
class BodyShape:
    """What a runner must know of a body.

    Attributes:
        reach: receptive radius in LR pixels.
        channels: the most channels between two layers; with the size of a number it predicts memory.
        margin: pixels around its core that a writer needs of every tile; cores then begin at multiples of it.
    """

    reach: int
    channels: int
    margin: int = 0


class TileRunner:
    """Runs a body over tiles and passes the features of every tile to a writer.

    Where memory is short the tile is halved until the work fits. Where half precision gives results that are not finite
    the image is computed again in fp32, and fp32 stays. With ``reach`` pixels of context the cuts are invisible.

    Args:
        make_backend: what makes the backend for a precision.
        shape: of the body.
        settings: device, precision, tile and threads.

    Attributes:
        at_once: how many tiles are computed at once.
    """

    def __init__(self, make_backend: MakeBackend, shape: BodyShape, settings: RunSettings) -> None:
        self.overlap = shape.reach + shape.margin
        self.margin = shape.margin
        self.precision = settings.precision
        self._channels = shape.channels
        self._settings = settings
        self._make_backend = make_backend
        self._backend = make_backend(self.precision)
        self.at_once = tiles_at_once(settings.thread_count) if settings.device.type == "cpu" else 1
        self._pools: dict[int, ThreadPoolExecutor] = {}
        tile = settings.tile
        self._budget = int(tile[len("auto:") :]) if isinstance(tile, str) and ":" in tile else None
        self._largest: int | None = None

    def plan(self, height: int, width: int, side: int | None = None) -> list[Tile]:
        """The tiles of an image of this size; with ``side``, cores of that many pixels a side."""
        tile = (side, side) if side is not None else self._tile_for(height, width)
        return plan_tiles(height, width, tile, self.overlap, max(self.margin, 1))

    def noise(self, channels: int, height: int, width: int) -> Tensor:
        """Input for trials, (1, channels, height, width).

        Of low amplitude, so that it does not overflow half precision where a frame would not.
        """
        return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0)) / 100

    @property
    def budget(self) -> int:
        """How many pixels a context may have, by the memory for its features."""
        # Measured once: what torch's allocator keeps after the first image does not count as free.
        if self._budget is None:
            self._budget = self._measure()
        return self._budget

    def _tile_for(self, height: int, width: int) -> tuple[int, int]:
        asked = self._settings.tile
        if isinstance(asked, int):
            tile = (asked, asked)
        elif asked == "off":
            tile = (height, width)
        else:
            # For pairs, however many there are at once: results do not depend on the number of threads.
            tile = fit_tile(height, width, self.overlap, self.budget, min(self.at_once, 2))
        if self._largest is not None:
            tile = (min(tile[0], self._largest), min(tile[1], self._largest))
        return tile

    def __call__(
        self,
        lr: Tensor,
        write: Write,
        progress: Progress | None = None,
        tiles: list[Tile] | None = None,
    ) -> None:
        """Run the network over a batch of images.

        Args:
            lr: (N, C, H, W) float32 on the CPU.
            write: called with what the backend gives for a tile's core and the margin around it (clipped to the image),
                (N, h, w, K), and the tile. It may change the tensor. It is called in inference mode, possibly from
                several threads at once for different tiles, possibly again for pixels already written.
            progress: called with (tiles done, tiles in total) after each tile; may raise to cancel.
            tiles: what to compute; None: the whole image. If memory is short, the whole image is computed in smaller
                tiles.

        Raises:
            DeviceError: out of memory at the smallest tile, or results that are not finite even in fp32.
            MediaError: the input is not finite.
        """
        with torch_threads(self._settings.threads):
            self._finish(lr, write, progress, tiles, None)

    def begin(
        self,
        lr: Tensor,
        write: Write,
        progress: Progress | None = None,
        tiles: list[Tile] | None = None,
    ) -> Callable[[], None]:
        """Begin a call, and return before its end, so that the next image's tiles can follow without a pause.

        Returns:
            A function that waits for the end, and raises what a call raises. It does all the work where tiles run one
            after the other. If half precision is abandoned in between, the image is computed again.
        """
        if self.at_once == 1:
            return lambda: self(lr, write, progress, tiles)
        plan = tiles if tiles is not None else self.plan(*lr.shape[-2:])
        running, precision = self._side_by_side(lr, plan, write, self.at_once), self.precision
        if running is None:
            return lambda: self(lr, write, progress, plan)

        def finish() -> None:
            with torch_threads(self._settings.threads):
                if self.precision is precision:
                    self._finish(lr, write, progress, plan, running)
                    return
                abandon(running)
                self._finish(lr, write, progress, None, None)

        return finish

    def _finish(
        self,
        lr: Tensor,
        write: Write,
        progress: Progress | None,
        tiles: list[Tile] | None,
        running: list[Future[None]] | None,
    ) -> None:
        """Compute, or wait for what is being computed; repeat if memory or precision did not suffice."""
        height, width = lr.shape[-2:]
        while True:
            plan = tiles if tiles is not None else self.plan(height, width)
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
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
                self._shrink(max(max(each.core.height, each.core.width) for each in plan), error)
            except NotFiniteError as error:
                # The whole image, not only this tile: all of its pixels are computed in one precision.
                self._raise_precision(lr, error)
            tiles = running = None

    def _in_turn(self, lr: Tensor, plan: list[Tile], write: Write) -> Iterator[None]:
        """One tile after the other, on all threads."""
        for tile in plan:
            self._compute(self._backend, lr, tile, write)
            yield

    def _compute(self, backend: Backend, lr: Tensor, tile: Tile, write: Write) -> None:
        rows, columns = tile.with_margin(self.margin).seen_from(tile.context).slices()
        with torch.inference_mode():
            features = backend.run(lr[(..., *tile.context.slices())], tile)
            if features.is_floating_point() and not is_finite(features):
                raise NotFiniteError
            write(features[:, rows, columns], tile)

    def _side_by_side(self, lr: Tensor, plan: list[Tile], write: Write, at_once: int) -> list[Future[None]] | None:
        """Several tiles at once, each on a share of the threads, so that no thread waits for another between layers.

        None where the system allows no more threads: from then on, tiles are computed one after the other.
        """
        if at_once not in self._pools:
            pool = _pool(at_once, max(self._settings.thread_count // at_once, 1))
            if pool is None:
                self.at_once = 1
                return None
            self._pools[at_once] = pool
        return [self._pools[at_once].submit(self._compute, self._backend, lr, tile, write) for tile in plan]

    def _raise_precision(self, lr: Tensor, error: BaseException) -> None:
        if not bool(torch.isfinite(lr).all()):
            raise MediaError(
                "input", "it holds values that are not numbers", "Repair or re-export the image."
            ) from error
        if self.precision is torch.float32:
            raise DeviceError(
                str(self._settings.device),
                "the network gives values that are not finite, even in fp32",
                "The model is damaged or does not suit this input; try another one.",
            ) from error
        name = precision_name(self.precision)
        self._settings.notify(f"{name} overflowed on {self._settings.device}; going on in fp32, which is slower")
        self.precision = torch.float32
        self._backend = self._make_backend(self.precision)

    def _measure(self) -> int:
        device = self._settings.device
        if device.type == "cpu":
            return CPU_CONTEXT_PIXELS
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
        else:
            free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        # Two layers alive, as much again for workspaces, and as much again for what follows; half of the free memory.
        bytes_per_pixel = 6 * self._channels * torch.finfo(self.precision).bits // 8
        # Kernels index with 32 bits.
        return max(min(free // 2 // bytes_per_pixel, (2**31 - 1) // self._channels), 1)

    def _shrink(self, side: int, error: BaseException) -> None:
        device = self._settings.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self._largest = smaller(side, str(device), self._settings.notify, error)


def _pool(count: int, threads: int) -> ThreadPoolExecutor | None:
    """So many threads, each with so many of torch's; None where the system allows no more."""
    settled, before = Barrier(count + 1), torch.get_num_threads()

    def settle() -> None:
        # A thread that torch sees for the first time is given the number that was set last: first, so that it stays.
        torch.get_num_threads()
        # Applies to the calling thread and to new threads; the latter are restored below.
        torch.set_num_threads(threads)
        with suppress(BrokenBarrierError):
            settled.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="tile", initializer=settle)
    try:
        for _ in range(count):
            pool.submit(lambda: None)
        settled.wait()
    except RuntimeError:
        settled.abort()
        pool.shutdown()
        return None
    finally:
        torch.set_num_threads(before)
    return pool


def is_finite(features: Tensor) -> bool:
    """Whether every number is finite."""
    # A single pass: a value that is not finite makes the sum not finite. So may huge values, hence the second check.
    return bool(features.sum(dtype=torch.float32).isfinite()) or bool(features.isfinite().all())
