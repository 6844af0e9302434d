"""The folded network over the frames of a video: nothing full-size but the planes, and no work done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.engine.body import place
from repsr_cli.engine.colour_folding import cross, fold
from repsr_cli.engine.cuda_batches import CudaFrames, CudaQueues, PlanesNetwork, Queues
from repsr_cli.engine.runner import NotFiniteError, Progress, is_out_of_memory
from repsr_cli.engine.tiling import Box, Tile
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.video.cuda_planes import DevicePlanes, on_host
from repsr_cli.yuv.chroma import Planes, integers, rounded, samples_from_planes, shrink_chroma
from repsr_cli.yuv.formats import PlaneFormat


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame under way: what came, what goes and how to wait for it, and the precision in force."""

    planes: Planes
    finished: Callable[[], Planes | DevicePlanes]
    precision: torch.dtype


class FoldedUpscaler:
    """Enlarges planes by a network into which their meaning is folded.

    Args:
        upscaler: the network on its device.
        fmt_in: the meaning of the planes that come.
        fmt_out: the meaning of the planes that go.
        reuse: keep the output of what did not change since the frame before.
        card_format: as ``PlaneUpscaler``.

    Attributes:
        engine: what computes: ``torch``, or another's name and version.
    """

    def __init__(
        self,
        upscaler: Upscaler,
        fmt_in: PlaneFormat,
        fmt_out: PlaneFormat,
        reuse: bool,
        gpu_format: str | None = None,
    ) -> None:
        self._upscaler = upscaler
        self._fmt_in = fmt_in
        self._fmt_out = fmt_out
        self._folded = fold(upscaler.net, fmt_in, fmt_out)
        self._black = torch.tensor(self._folded.black).view(1, -1, 1, 1)
        # The chroma filter reaches two samples out, which at scale 1 is two pixels; and two is even, so that chroma
        # begins on a core's first sample at odd scales too.
        unfinished = any(any(part.unfinished) for part in self._folded.parts)
        margin = 2 if unfinished else 1 if any(part.crossing for part in self._folded.parts) else 0
        self._runner, self.engine = upscaler.folded_runner(self._folded, fmt_out, margin)
        self._queues: Queues | None = CudaQueues(upscaler.device) if upscaler.device.type == "cuda" else None
        self._gpu: tuple[tuple[int, int], torch.dtype, CudaFrames] | None = None
        self._gpu_format = gpu_format
        self._reuse = reuse
        self._last: _Frame | None = None
        self._exact: dict[tuple[int, int], bool] = {}
        self._pixels = self._computed = 0

    @property
    def reused(self) -> float:
        """The share of all pixels so far, in [0, 1], that were taken from the frame before."""
        return max(0.0, 1 - self._computed / self._pixels) if self._pixels else 0.0

    @property
    def ahead(self) -> int:
        """How many frames are worth beginning before the first of them is waited for."""
        return self._gpu[2].ahead if self._gpu is not None else 1

    def begin(
        self, planes: Sequence[NDArray[Any]] | DevicePlanes, progress: Progress | None = None
    ) -> Callable[[], Planes | DevicePlanes]:
        """Begin to enlarge one frame; as ``PlaneUpscaler.begin``."""
        gpu = self._gpu_for(*size_of(planes))
        if gpu is None:
            return self._tiled(on_host(planes), progress)
        finished = self._staying(gpu, planes) if isinstance(planes, DevicePlanes) else self._whole(gpu, planes)
        return finished if progress is None else _as_one_tile(finished, progress)

    def _gpu_for(self, height: int, width: int) -> CudaFrames | None:
        """What computes whole frames of this size on the device; None where they are cut into tiles."""
        if self._queues is None or len(self._runner.plan(height, width)) > 1:
            self._gpu = None
            return None
        precision = self._runner.precision
        if self._gpu is None or self._gpu[:2] != ((height, width), precision):
            network = PlanesNetwork(
                self._folded, self._fmt_in, self._fmt_out, precision, self._gpu_format, self._upscaler.engine
            )
            network.to(self._upscaler.device)
            try:
                made = CudaFrames(self._queues, network, (height, width), self._runner.budget)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                # The way by tiles halves them until they fit.
                self._queues = self._gpu = None
                return None
            self._gpu = ((height, width), precision, made)
        return self._gpu[2]

    def _staying(self, gpu: CudaFrames, planes: DevicePlanes) -> Callable[[], Planes | DevicePlanes]:
        """Begin a frame that the device computes whole, from planes that lie there. Whether it changed is not seen."""
        self._pixels += planes.height * planes.width
        self._computed += planes.height * planes.width
        self._last = None
        return self._or_anew(gpu.begin(planes), planes.on_host)

    def _or_anew(
        self, computed: Callable[[], Planes | DevicePlanes], planes: Callable[[], Planes]
    ) -> Callable[[], Planes | DevicePlanes]:
        """A frame from the device; if half precision cannot hold it, by tiles, which go on to fp32 and stay there."""

        def finished() -> Planes | DevicePlanes:
            try:
                return computed()
            except NotFiniteError:
                pixels, done, last = self._pixels, self._computed, self._last
                self._last = None
                result = self._tiled(planes())()
                self._pixels, self._computed, self._last = pixels, done, last
                return result

        return finished

    def _whole(self, gpu: CudaFrames, planes: Sequence[NDArray[Any]]) -> Callable[[], Planes | DevicePlanes]:
        """Begin a frame that the device computes whole."""
        height, width = planes[0].shape
        last, precision = self._comparable(planes), self._runner.precision
        self._pixels += height * width
        if last is not None and all(np.array_equal(now, then) for now, then in zip(planes, last.planes, strict=True)):
            return last.finished
        self._computed += height * width
        kept = tuple(plane.copy() for plane in planes)
        finished = self._or_anew(gpu.begin(kept), lambda: kept)
        if self._reuse:
            self._last = _Frame(kept, finished, precision)
        return finished

    def _tiled(
        self, planes: Sequence[NDArray[Any]], progress: Progress | None = None
    ) -> Callable[[], Planes | DevicePlanes]:
        height, width = planes[0].shape
        last = self._comparable(planes)
        tiles = self._runner.plan(height, width) if last is None else self._changed(planes, last)
        if last is not None and last.precision is not self._runner.precision:
            last, tiles = None, self._runner.plan(height, width)
        self._pixels += height * width
        self._computed += sum(tile.core.area for tile in tiles)
        if last is not None and not tiles:
            return last.finished
        lr = (samples_from_planes(planes, self._fmt_in) - self._black) * self._folded.gain
        if last is None or sum(tile.core.area for tile in tiles) == height * width:
            targets = self._targets(height, width)
        else:
            before = last.finished()
            assert not isinstance(before, DevicePlanes), "tiles follow whole frames in another precision"
            targets = tuple(plane.copy() for plane in before)

        finish = self._runner.begin(lr, self._writer(targets), progress, tiles)
        finished = _once(finish, targets)
        if self._reuse:
            self._last = _Frame(tuple(plane.copy() for plane in planes), finished, self._runner.precision)
        return finished

    def sample(self, lr: Tensor, pixels: int) -> tuple[Callable[[], None], float]:
        """Some of the work on a frame, to be timed.

        Args:
            lr: (1, C, H, W) float32, in place of a frame; the values do not matter.
            pixels: how many the tiles shall hold together, context included, at least.

        Returns:
            What computes some tiles, an even number, so that all threads are at work; and what share of a frame's work
            this is, maybe above 1.
        """
        height, width = lr.shape[-2:]
        plan = self._runner.plan(height, width)
        area = sum(tile.context.area for tile in plan)
        count = 2 * -(-pixels * len(plan) // (2 * area))
        tiles = list(islice(cycle(plan), max(count, 2)))
        write = self._writer(self._targets(height, width))
        return lambda: self._runner(lr, write, tiles=tiles), sum(tile.context.area for tile in tiles) / area

    def _targets(self, height: int, width: int) -> Planes:
        scale, fmt = self._upscaler.scale, self._fmt_out
        return tuple(np.empty(size, fmt.dtype) for size in fmt.plane_sizes(height * scale, width * scale))

    def _writer(self, targets: Planes) -> Callable[[Tensor, Tile], None]:
        """What puts tiles into the planes of a frame."""

        def write(found: Tensor, tile: Tile) -> None:
            if found.is_floating_point():
                self._write(found[0].float(), tile, targets)
                return
            # A compiled network gives nothing but samples, one plane's after the other's.
            counts = [part.rows * part.columns for part in self._folded.parts]
            own = [slice(stop - count, stop) for count, stop in zip(counts, accumulate(counts), strict=True)]
            self._put(found[0], own, tile, targets)

        return write

    def _write(self, samples: Tensor, tile: Tile, targets: Planes) -> None:
        """Put a tile's core into the planes.

        Args:
            samples: (h, w, K) float32, of the core and the margin around it.
            tile: the tile.
            targets: the planes of the whole frame.
        """
        fmt = self._fmt_out
        there = tile.core.grown(self._runner.margin, tile.context)
        core = tile.core.seen_from(there)
        for part, target in zip(self._folded.parts, targets, strict=True):
            if any(part.unfinished):
                full = torch.empty(there.height * part.rows, there.width * part.columns)
                place(samples[..., part.start : part.stop].cpu(), full, part.rows, part.columns)
                chroma = shrink_chroma(full, fmt, part.unfinished)
                from_, to = part.window(core), part.window(tile.core)
                target[to] = rounded(chroma[from_], fmt)
            elif part.crossing:
                cross(samples, part, there.left == 0, there.right * self._upscaler.scale == targets[0].shape[1])
        own = [part.own for part in self._folded.parts]
        self._put(integers(samples.clamp_(0, fmt.peak), fmt), own, tile, targets)

    def _put(self, whole: Tensor, samples: Sequence[slice], tile: Tile, targets: Planes) -> None:
        """Shuffle finished samples to their places.

        Args:
            whole: (h, w, K) integers, of the core and the margin around it.
            samples: the channels of each plane's.
            tile: the tile.
            targets: the planes of the whole frame.
        """
        core = tile.core.seen_from(tile.core.grown(self._runner.margin, tile.context)).slices()
        for part, own, target in zip(self._folded.parts, samples, targets, strict=True):
            if not any(part.unfinished):
                plane = torch.from_numpy(target if self._fmt_out.depth == 8 else target.view(np.int16))
                place(whole[core][..., own], plane[part.window(tile.core)], part.rows, part.columns)

    def _comparable(self, planes: Sequence[NDArray[Any]]) -> _Frame | None:
        last = self._last
        if last is None or last.precision is not self._runner.precision:
            return None
        same = all(now.shape == then.shape for now, then in zip(planes, last.planes, strict=True))
        return last if same else None

    def _changed(self, planes: Sequence[NDArray[Any]], last: _Frame) -> list[Tile]:
        """The tiles whose context changed: the usual ones, or finer ones where this is less work and as exact."""
        height, width = planes[0].shape
        differences = [now != then for now, then in zip(planes, last.planes, strict=True)]
        if not any(plane.any() for plane in differences):
            return []

        def changed(plan: list[Tile]) -> list[Tile]:
            return [tile for tile in plan if self._touches(tile.context, differences)]

        usual = changed(self._runner.plan(height, width))
        side = max(64, 6 * self._runner.overlap)
        fine = changed(self._runner.plan(height, width, side))
        if 2 * sum(tile.context.area for tile in fine) > sum(tile.context.area for tile in usual):
            return usual
        if (height, width) not in self._exact:
            self._exact[height, width] = self._is_exact(height, width, side)
        return fine if self._exact[height, width] else usual

    def _touches(self, context: Box, differences: list[NDArray[np.bool_]]) -> bool:
        down, across = self._fmt_in.subsample
        # Enlarged chroma depends on the chroma samples beside its own.
        rows = slice(max(context.top // down - 1, 0), -(-context.bottom // down) + 1)
        columns = slice(max(context.left // across - 1, 0), -(-context.right // across) + 1)
        windows = [context.slices()] + [(rows, columns)] * (len(differences) - 1)
        return any(bool(plane[at].any()) for plane, at in zip(differences, windows, strict=True))

    def _is_exact(self, height: int, width: int, side: int) -> bool:
        """Whether finer tiles give the same bits as the usual ones.

        A library may compute images of another size by another kernel, which adds in another order. So every shape of
        a fine tile is tried once, on noise, against the usual tiles around it.
        """
        # Little of it: no more than a frame would does it overflow half precision.
        noise = torch.randn(1, len(self._folded.black), height, width, generator=torch.Generator().manual_seed(0)) / 100
        shapes = {}
        for tile in self._runner.plan(height, width, side):
            shapes[tile.context.height, tile.context.width, tile.inner] = tile
        fine: dict[Tile, Tensor] = {}
        self._runner(noise, lambda found, tile: fine.__setitem__(tile, found.clone()), tiles=list(shapes.values()))
        verdicts = []

        def compare(found: Tensor, usual: Tile) -> None:
            for tile, values in fine.items():
                common = _common(usual.core, tile.core)
                if common is not None:
                    verdicts.append(torch.equal(self._within(found, usual, common), self._within(values, tile, common)))

        self._runner(noise, compare)
        return all(verdicts)

    def _within(self, features: Tensor, tile: Tile, box: Box) -> Tensor:
        rows, columns = box.seen_from(tile.core.grown(self._runner.margin, tile.context)).slices()
        return features[:, rows, columns]


def size_of(planes: Sequence[NDArray[Any]] | DevicePlanes) -> tuple[int, int]:
    """(height, width) of the luma."""
    if isinstance(planes, DevicePlanes):
        return planes.height, planes.width
    height, width = planes[0].shape
    return height, width


def _once(finish: Callable[[], None], result: Planes) -> Callable[[], Planes]:
    """A result that is waited for when it is asked for first; then what made it is let go."""
    waiting = [finish]

    def finished() -> Planes:
        if waiting:
            waiting[0]()
            waiting.clear()
        return result

    return finished


def _as_one_tile(
    finished: Callable[[], Planes | DevicePlanes], progress: Progress
) -> Callable[[], Planes | DevicePlanes]:
    """A frame that counts as one tile."""

    def reported() -> Planes | DevicePlanes:
        result = finished()
        progress(1, 1)
        return result

    return reported


def _common(a: Box, b: Box) -> Box | None:
    box = Box(max(a.top, b.top), max(a.left, b.left), min(a.bottom, b.bottom), min(a.right, b.right))
    return box if box.height > 0 and box.width > 0 else None
