"""A body on a device, run over tiles: precision, memory, and the numbers that come out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from threading import Barrier

import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.openvino import CompiledBody
from repsr_cli.engine.backends.registry import PRECISIONS, optimized
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.tiling import Tile, fit_tile, plan_tiles
from repsr_cli.errors import DeviceError, MediaError, UsageError

SMALLEST_TILE = 32

# Measured with 16, 32 and 64 channels (docs/speed.md): contexts of this size run at the speed of the machine's matrix
# products, larger ones fall out of the cache that cores share, smaller ones pay for overlap.
CPU_CONTEXT_PIXELS = 80_000

Say = Callable[[str], None]
Write = Callable[[Tensor, Tile], None]
# Called with (tiles done, tiles in total); may raise to cancel.
Progress = Callable[[int, int], None]


def pick_device(name: str) -> torch.device:
    """The device a user asked for.

    Args:
        name: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UsageError: no such kind of device.
        DeviceError: this machine, or this build of torch, has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"device {name}", "no such device", "Choose auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            found = f"{count} CUDA device{'s' * (count != 1)} found" if count else "no CUDA device found"
            built = ", and this torch is built without CUDA" if torch.version.cuda is None else ""
            raise DeviceError(name, found + built, "Use --device cpu, or install a torch with CUDA.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "this machine or this torch has no MPS", "Use --device cpu.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format a user asked for; ``auto`` is fp32 on CPU and fp16 elsewhere.

    Raises:
        UsageError: no such precision.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in PRECISIONS:
        raise UsageError(f"precision {name}", "no such precision", "Choose auto, fp32, fp16 or bf16.")
    return PRECISIONS[name]


def pick_tile(name: str | int) -> str | int:
    """The tile a user asked for.

    Args:
        name: ``auto``; ``auto:N``, the same within a budget of N LR pixels, context included; ``off``; or the side of a
            core in LR pixels.

    Raises:
        UsageError: anything else.
    """
    if name in ("auto", "off"):
        return name
    automatic, _, number = str(name).rpartition(":")
    if automatic in ("", "auto") and number.isdecimal() and int(number) > 0:
        return f"auto:{int(number)}" if automatic else int(number)
    raise UsageError(f"tile {name}", "not a tile size", "Give auto, auto:PIXELS, off or a positive number of pixels.")


_NO_MEMORY = ("out of memory", "can't allocate memory", "could not create a primitive", "cudnn_status_alloc_failed")


class NotFiniteError(ArithmeticError):
    """Numbers that are not finite in the precision in force."""


class TileRunner:
    """Runs a body over tiles and hands the features of every tile to a writer.

    What it holds against: memory (the tile is halved until the work fits), half precision (a result that is not finite
    is computed again in fp32, and fp32 stays), tiling (with ``reach`` of context the cuts are invisible).

    Args:
        net: float32 module from (N, C, H, W) to features (N, H, W, K).
        reach: receptive radius of ``net`` in LR pixels.
        channels: the most channels between two layers; with the size of a number it predicts memory.
        device: where to run.
        precision: number format to run in.
        tile: as ``pick_tile`` gives it.
        say: told of every change of plan.
        margin: pixels around its core that a writer wants of every tile; cores then begin at multiples of it.
        compiled: what computes in place of ``net``; see ``repsr_cli.engine.backends.openvino``.
        engine: what makes a faster one of ``net``, if it is one that does.
        threads: CPU threads to compute with; None: as many as torch has set.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        reach: int,
        channels: int,
        device: torch.device,
        precision: torch.dtype,
        tile: str | int,
        say: Say,
        margin: int = 0,
        compiled: CompiledBody | None = None,
        engine: str = "torch",
        threads: int | None = None,
    ) -> None:
        self.overlap = reach + margin
        self.margin = margin
        self.device = device
        self.precision = precision
        self._channels = channels
        self._tile = tile
        self._say = say
        self._master = net
        self._threads = threads
        self._compiled = compiled
        self._engine = engine
        self._at_once = 2 if device.type == "cpu" and (threads or torch.get_num_threads()) > 1 else 1
        self._pool: ThreadPoolExecutor | None = None
        self._budget = int(tile[len("auto:") :]) if isinstance(tile, str) and ":" in tile else None
        self._largest: int | None = None
        self._placed = self._place()

    def plan(self, height: int, width: int, side: int | None = None) -> list[Tile]:
        """The tiles that an image of this size is cut into; with ``side``, cores of this size."""
        tile = (side, side) if side is not None else self._tile_for(height, width)
        return plan_tiles(height, width, tile, self.overlap, max(self.margin, 1))

    @property
    def budget(self) -> int:
        """How many pixels a context may have, by the memory there is for what they become."""
        # Once: what torch keeps for itself after the first image no longer counts as free.
        if self._budget is None:
            self._budget = self._measure()
        return self._budget

    def _tile_for(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self._tile, int):
            tile = (self._tile, self._tile)
        elif self._tile == "off":
            tile = (height, width)
        else:
            tile = fit_tile(height, width, self.overlap, self.budget, self._at_once)
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
            write: called with (N, h, w, K): the features of a tile's core and the margin around it (as far as there is
                an image), in the precision and on the device in force, or what ``compiled`` gives; and with the tile.
                Its to change. Called in inference mode, maybe from two threads at once for different tiles, maybe again
                for pixels already written.
            progress: called with (tiles done, tiles in total) after each tile; may raise to cancel.
            tiles: what to compute; None: all of it. Should memory not suffice, all of it is computed in smaller tiles.

        Raises:
            DeviceError: out of memory at the smallest tile, or numbers that are not finite even in fp32.
            MediaError: the input is not finite.
        """
        with torch_threads(self._threads):
            self._finish(lr, write, progress, tiles, None)

    def begin(
        self,
        lr: Tensor,
        write: Write,
        progress: Progress | None = None,
        tiles: list[Tile] | None = None,
    ) -> Callable[[], None]:
        """As a call, but returns before the end, so that the next image's tiles can follow without a pause.

        Returns:
            What waits for the end, and raises what a call raises. Where tiles take turns, and in half precision, which
            may have to be given up for an image, all is computed there.
        """
        if self._at_once == 1 or self.precision is not torch.float32:
            return lambda: self(lr, write, progress, tiles)
        plan = tiles if tiles is not None else self.plan(*lr.shape[-2:])
        running = self._side_by_side(lr, plan, write)

        def finish() -> None:
            with torch_threads(self._threads):
                self._finish(lr, write, progress, plan, running)

        return finish

    def _finish(
        self,
        lr: Tensor,
        write: Write,
        progress: Progress | None,
        tiles: list[Tile] | None,
        running: list[Future[None]] | None,
    ) -> None:
        """Compute, or wait for what is being computed; again, if memory or precision did not suffice."""
        height, width = lr.shape[-2:]
        while True:
            plan = tiles if tiles is not None else self.plan(height, width)
            if running is None and self._at_once > 1 and len(plan) > 1:
                running = self._side_by_side(lr, plan, write)
            results = self._in_turn(lr, plan, write) if running is None else _results(running)
            try:
                for done, _ in enumerate(results, 1):
                    if progress is not None:
                        progress(done, len(plan))
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(max(max(each.core.height, each.core.width) for each in plan), error)
            except NotFiniteError as error:
                # All over again, not this tile only: every pixel of an image is computed in one precision.
                self._raise_precision(lr, error)
            tiles = running = None

    def _in_turn(self, lr: Tensor, plan: list[Tile], write: Write) -> Iterator[None]:
        """One tile after the other, on all threads."""
        for tile in plan:
            self._compute(lr, tile, write)
            yield

    def _compute(self, lr: Tensor, tile: Tile, write: Write) -> None:
        wanted = tile.core.grown(self.margin, tile.context).seen_from(tile.context)
        rows, columns = wanted.slices()
        with torch.inference_mode():
            context = lr[(..., *tile.context.slices())]
            if self._compiled is not None:
                features = self._compiled(context, tile, lr.shape[-1])
            else:
                features = self._forward(context)
                if not is_finite(features):
                    raise NotFiniteError
            write(features[:, rows, columns], tile)

    def _side_by_side(self, lr: Tensor, plan: list[Tile], write: Write) -> list[Future[None]]:
        """Two tiles at once, each on half the threads: one does not wait for the other between layers."""
        if self._pool is None:
            self._pool = _pool(self._threads or torch.get_num_threads())
        return [self._pool.submit(self._compute, lr, tile, write) for tile in plan]

    def _raise_precision(self, lr: Tensor, error: BaseException) -> None:
        if not bool(torch.isfinite(lr).all()):
            raise MediaError(
                "input", "it holds values that are not numbers", "Repair or re-export the image."
            ) from error
        if self.precision is torch.float32:
            raise DeviceError(
                str(self.device),
                "the network gives values that are not finite, even in fp32",
                "The network file is damaged or does not suit this input; try another one.",
            ) from error
        self._say(f"{name_of(self.precision)} overflowed on {self.device}; going on in fp32, which is slower")
        self.precision = torch.float32
        self._placed = self._place()

    def _forward(self, lr: Tensor) -> Tensor:
        with exact(self.device, self.precision):
            placed = lr.to(self.device, self.precision, memory_format=torch.channels_last)
            features: Tensor = self._placed(placed)
            return features

    def _place(self) -> nn.Module:
        placed = copy.deepcopy(self._master).eval().requires_grad_(False)
        placed.to(device=self.device, dtype=self.precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return optimized(placed, self._engine, self.precision)

    def _measure(self) -> int:
        if self.device.type == "cpu":
            return CPU_CONTEXT_PIXELS
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
        else:
            free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        # Two layers alive, as much again for workspaces, and as much again for what follows; half of what is free.
        bytes_per_pixel = 6 * self._channels * torch.finfo(self.precision).bits // 8
        # Kernels index with 32 bits.
        return max(min(free // 2 // bytes_per_pixel, (2**31 - 1) // self._channels), 1)

    def _shrink(self, side: int, error: BaseException) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if side <= SMALLEST_TILE:
            remedy = "Free memory, or use --device cpu." if self.device.type != "cpu" else "Close other programs."
            raise DeviceError(
                str(self.device), f"out of memory at the smallest tile ({SMALLEST_TILE} pixels)", remedy
            ) from error
        self._largest = max(side // 2, SMALLEST_TILE)
        self._say(f"out of memory on {self.device}; going on with tiles of {self._largest} pixels")


def exact(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Makes fp32 mean fp32: by default cuDNN rounds its operands to ten bits."""
    if device.type == "cuda" and precision is torch.float32:
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
    return nullcontext()


def _results(running: list[Future[None]]) -> Iterator[None]:
    """Wait for tiles in turn."""
    try:
        for future in running:
            yield future.result()
    finally:
        # Whatever happens, nothing may write any more once this returns.
        for future in running:
            future.cancel()
        wait(running)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Two threads that share torch's threads between them."""
    settled, before = Barrier(3), torch.get_num_threads()

    def settle() -> None:
        # Holds for the calling thread, and for threads yet to come; those get their own back below.
        torch.set_num_threads(max(threads // 2, 1))
        settled.wait()

    pool = ThreadPoolExecutor(2, thread_name_prefix="tile", initializer=settle)
    for _ in range(2):
        pool.submit(lambda: None)
    settled.wait()
    torch.set_num_threads(before)
    return pool


def is_finite(features: Tensor) -> bool:
    """Whether every number is finite."""
    # One that is not makes the sum not finite, in a single pass; huge numbers may do so too, hence the second look.
    return bool(features.sum(dtype=torch.float32).isfinite()) or bool(features.isfinite().all())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch means that memory is short."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    # The CPU allocator, oneDNN, MPS and cuDNN raise plain RuntimeErrors.
    text = str(error).lower()
    return any(words in text for words in _NO_MEMORY)


def name_of(precision: torch.dtype) -> str:
    """The command line's word for a number format."""
    return next(name for name, dtype in PRECISIONS.items() if dtype is precision)


def thread_count(threads: int | None) -> int | None:
    """A thread count that makes sense on this machine.

    Raises:
        UsageError: not a positive number.
    """
    if threads is None:
        return None
    if threads < 1:
        raise UsageError(f"threads {threads}", "not a positive number", f"This machine has {os.cpu_count()} cores.")
    return threads
