"""Upscale frames from planes to planes by OpenVINO alone: torch is not imported, so that short videos start sooner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.backends.openvino_graphs import OpenVinoGraphs
from repsr_cli.engine.backends.registry import engine_name
from repsr_cli.engine.plane_folding import FoldedArrays, fold_arrays
from repsr_cli.engine.reusing_frames import ReusingFrames
from repsr_cli.engine.runner import TileRunner, Write
from repsr_cli.engine.side_by_side import tiles_at_once
from repsr_cli.engine.tile_reuse import Finish, ReuseCache
from repsr_cli.engine.tiling import Progress, Tile
from repsr_cli.model.arrays import NetworkArrays
from repsr_cli.yuv.device_planes import DevicePlanes, on_host
from repsr_cli.yuv.filters import Planes
from repsr_cli.yuv.formats import PlaneFormat


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU, as torch describes devices."""

    type: str = "cpu"
    index: int | None = None

    def __str__(self) -> str:
        return self.type


@dataclass(frozen=True, slots=True)
class ArrayCompute:
    """How OpenVINO computes a network on this CPU; what ``Upscaler`` says of itself, in the same words.

    Attributes:
        precision: ``fp32`` or ``bf16``.
        tile: ``auto`` or ``auto:N``.
        notify: called with one line for the user about each change of plan.
    """

    network: NetworkArrays
    precision: str
    tile: str
    threads: int
    notify: Callable[[str], None] = lambda _line: None
    device: Cpu = Cpu()

    @property
    def name(self) -> str:
        """The network's size and factor, e.g. ``M4C16 x4``."""
        return f"{self.network.spec.name} x{self.network.spec.scale}"

    @property
    def engine_name(self) -> str:
        """OpenVINO and its version."""
        return engine_name("openvino")

    def describe(self) -> str:
        """As ``Upscaler.describe``."""
        where = f"cpu ({self.threads} threads), {self.precision}, tile {self.tile}, videos by {self.engine_name}"
        return f"{self.name} on {where}"

    def digest(self) -> str:
        """As ``weights_digest``."""
        return self.network.digest()

    def fold(self, fmt_in: PlaneFormat, fmt_out: PlaneFormat) -> FoldedArrays:
        """The network with plane formats folded in."""
        network = self.network
        return fold_arrays(network.convolutions, network.slopes, network.spec.scale, (fmt_in, fmt_out))

    def frames(self, fmt_in: PlaneFormat, fmt_out: PlaneFormat, reuse: bool) -> ArrayFrames:
        """What upscales frames with it, where OpenVINO ``compiles`` every plane to write."""
        return ArrayFrames(self, fmt_in, fmt_out, reuse)


class ArrayRunner(TileRunner):
    """Runs tiles of arrays, all of them on threads of their own."""

    def _pool(self, count: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(count, thread_name_prefix="tile")

    def _compute(self, backend: OpenVinoGraphs, lr: NDArray[np.float32], tile: Tile, write: Write) -> None:
        rows, columns = tile.with_margin(self.margin).seen_from(tile.context).slices()
        write(backend.run(lr[(..., *tile.context.slices())], tile)[:, rows, columns], tile)


class ArrayFrames(ReusingFrames):
    """Upscales frames by OpenVINO; gives the bytes that ``PlaneUpscaler`` gives with this engine.

    Args:
        reuse: keep the output of what did not change since the frame before.
    """

    def __init__(self, compute: ArrayCompute, fmt_in: PlaneFormat, fmt_out: PlaneFormat, reuse: bool) -> None:
        self.upscaler = compute
        folded = compute.fold(fmt_in, fmt_out)
        graphs = OpenVinoGraphs(folded, fmt_out, compute.threads, compute.precision)
        runner = ArrayRunner(
            graphs,
            compute.precision,
            compute.network.spec.reach + folded.margin,
            folded.margin,
            tiles_at_once(compute.threads),
            compute.tile,
            str(compute.device),
            compute.notify,
        )
        super().__init__(runner, folded, (fmt_in, fmt_out), compute.network.spec.scale, ReuseCache(reuse))

    @property
    def engine(self) -> str:
        """What computes."""
        return self.upscaler.engine_name

    def begin(self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None) -> Finish:
        """As ``PlaneUpscaler.begin``."""
        return super().begin(on_host(planes), progress)

    def _begin(
        self, lr: NDArray[np.float32], targets: Planes, tiles: list[Tile], progress: Progress | None
    ) -> Callable[[], None]:
        def write(found: NDArray[Any], tile: Tile) -> None:
            for at, target, part in self._places(tile, self._finished, targets):
                place(found[0][at], target, part.rows, part.columns)

        return self._runner.begin(lr, write, progress, tiles)


def place(samples: NDArray[Any], target: NDArray[Any], rows: int, columns: int) -> None:
    """Shuffle the finished samples of one plane to their place.

    Args:
        samples: (h, w, rows * columns): the samples of every LR pixel, row by row; may be a window.
        target: (h * rows, w * columns), same type; written. May be a window of a larger plane.
        rows: samples per LR pixel, down.
        columns: samples per LR pixel, across.
    """
    h, w = samples.shape[:2]
    # Samples side by side are copied as one wide number.
    wide = {2: np.uint16, 4: np.uint32, 8: np.uint64}.get(columns * samples.itemsize)
    if wide is not None:
        target.view(wide).reshape(h, rows, w)[...] = samples.view(wide).transpose(0, 2, 1)
    else:
        target.reshape(h, rows, w, columns)[...] = samples.reshape(h, w, rows, columns).transpose(0, 2, 1, 3)
