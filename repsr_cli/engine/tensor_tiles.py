"""Run a body over tiles of tensors: memory by device, precision, torch's threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from threading import Barrier, BrokenBarrierError

import torch
from torch import Tensor

from repsr_cli.engine.backends.backend import Backend, MakeBackend
from repsr_cli.engine.runner import NotFiniteError, TileRunner, Write
from repsr_cli.engine.settings import RunSettings, precision_name
from repsr_cli.engine.side_by_side import tiles_at_once
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.tiling import Tile
from repsr_cli.errors import DeviceError, MediaError


class TensorRunner(TileRunner):
    """Runs a body over tiles of tensors.

    Where half precision gives results that are not finite the image is computed again in fp32, and fp32 stays. A writer
    is called in inference mode.

    Args:
        make_backend: what makes the backend for a precision.
        settings: device, precision, tile and threads.
        reach: receptive radius of the body in LR pixels.
        channels: the most channels between two layers; with the size of a number it predicts memory.
        margin: pixels around its core that a writer needs of every tile; cores then begin at multiples of it.
    """

    def __init__(
        self, make_backend: MakeBackend, settings: RunSettings, reach: int, channels: int, margin: int = 0
    ) -> None:
        super().__init__(
            make_backend(settings.precision),
            settings.precision,
            reach + margin,
            margin,
            tiles_at_once(settings.thread_count) if settings.device.type == "cpu" else 1,
            settings.tile,
            str(settings.device),
            settings.notify,
        )
        self._channels = channels
        self._settings = settings
        self._make_backend = make_backend

    def noise(self, channels: int, height: int, width: int) -> Tensor:
        """As ``TileRunner.noise``."""
        return torch.from_numpy(super().noise(channels, height, width))

    def _threads(self) -> AbstractContextManager[None]:
        return torch_threads(self._settings.threads)

    def _pool(self, count: int) -> ThreadPoolExecutor | None:
        """Each with a share of torch's threads; none of one thread, or where the system allows no more."""
        if count == 1:
            return None
        threads = max(self._settings.thread_count // count, 1)
        settled, before = Barrier(count + 1), torch.get_num_threads()

        def settle() -> None:
            # A thread that torch first sees is given the number that was set last: asked for first, so that it stays.
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

    def _compute(self, backend: Backend, lr: Tensor, tile: Tile, write: Write) -> None:
        rows, columns = tile.with_margin(self.margin).seen_from(tile.context).slices()
        with torch.inference_mode():
            features = backend.run(lr[(..., *tile.context.slices())], tile)
            if features.is_floating_point() and not is_finite(features):
                raise NotFiniteError
            write(features[:, rows, columns], tile)

    def _recover(self, lr: Tensor, plan: list[Tile], error: BaseException) -> None:
        if isinstance(error, NotFiniteError):
            # The whole image, not only this tile: all of its pixels are computed in one precision.
            self._raise_precision(lr, error)
            return
        super()._recover(lr, plan, error)
        if self._settings.device.type == "cuda":
            torch.cuda.empty_cache()

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
            return super()._measure()
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
        else:
            free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        # Two layers alive, as much again for workspaces, and as much again for what follows; half of the free memory.
        bytes_per_pixel = 6 * self._channels * torch.finfo(self.precision).bits // 8
        # Kernels index with 32 bits.
        return max(min(free // 2 // bytes_per_pixel, (2**31 - 1) // self._channels), 1)


def is_finite(features: Tensor) -> bool:
    """Whether every number is finite."""
    # A single pass: a value that is not finite makes the sum not finite. So may huge values, hence the second check.
    return bool(features.sum(dtype=torch.float32).isfinite()) or bool(features.isfinite().all())
