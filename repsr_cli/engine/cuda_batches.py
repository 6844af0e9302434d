"""Upscale whole frames on a CUDA device, in batches, with a captured graph from integers to integers.

Three CUDA streams work side by side: while one batch is computed, the next is uploaded and the last is downloaded.
Networks this small finish before the CPU has launched their kernels one by one, so their launches are recorded once (a
CUDA graph) and replayed. A frame of a few hundred thousand pixels does not fill a large GPU, so as many frames are
computed at once as make it faster, which is measured on the first one.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repsr_cli.engine.backends.eager import full_precision
from repsr_cli.engine.backends.torch_compile import compiled
from repsr_cli.engine.body import place
from repsr_cli.engine.colour_folding import Folded
from repsr_cli.engine.plane_folding import cross
from repsr_cli.engine.runner import NotFiniteError
from repsr_cli.engine.tile_reuse import Finish
from repsr_cli.errors import lacks_memory
from repsr_cli.yuv.chroma import enlarge_chroma, shrink_chroma
from repsr_cli.yuv.device_planes import DevicePlanes
from repsr_cli.yuv.filters import Planes
from repsr_cli.yuv.formats import PlaneFormat

LARGEST_BATCH = 16
WORTHWHILE = 0.95  # a batch of twice as many frames must take less than this share of the time of two of them
PITCH = 256  # lines for an encoder on the GPU are multiples of so many bytes
SLOTS = 2  # batches in flight: one is computed while another is uploaded and downloaded


class PlanesNetwork(nn.Module):
    """A folded network with all that surrounds it: whole frames, from a decoder's integers to an encoder's.

    Args:
        precision: number format of the convolutions; what surrounds them is fp32.
        gpu_format: ``nv12`` or ``p010le``: planes for an encoder on the device; None: for the host.
        engine: ``compile`` or ``tensorrt`` for a compiled body.
    """

    black: Tensor

    def __init__(
        self,
        folded: Folded,
        fmt_in: PlaneFormat,
        fmt_out: PlaneFormat,
        precision: torch.dtype,
        gpu_format: str | None = None,
        engine: str = "torch",
    ) -> None:
        super().__init__()
        body = copy.deepcopy(folded.body).to(dtype=precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.body = compiled(body, engine, precision)
        self.folded, self.fmt_in, self.fmt_out, self.precision = folded, fmt_in, fmt_out, precision
        self.gpu_format = gpu_format
        self.register_buffer("black", torch.tensor(folded.black).view(1, -1, 1, 1))

    def forward(self, *planes: Tensor) -> tuple[Tensor, ...]:
        """Upscale.

        Args:
            planes: Y, U, V, or R, G, B, or Y alone, each (N, h, w) uint8, or int16 at depths above 8.

        Returns:
            The planes (N, H, W) of the same kind, or one tensor from ``interleaved`` for an encoder on the device; then
            one boolean: whether all results were finite.
        """
        height, width = planes[0].shape[1:]
        samples = planes[0][:, None].float()
        if len(planes) > 1:
            chroma = torch.stack(planes[1:], 1).float()
            samples = torch.cat([samples, enlarge_chroma(chroma, self.fmt_in, height, width)], 1)
        lr = ((samples - self.black) * self.folded.gain).to(self.precision, memory_format=torch.channels_last)
        features = self.body(lr)
        finite = features.sum(dtype=torch.float32).isfinite()
        found = self._planes(features.float())
        return *(found if self.gpu_format is None else (interleaved(found, self.fmt_out.depth),)), finite

    def _planes(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (N, h, w, K) float32 as planes."""
        n, height, width, _ = features.shape
        fmt, scale = self.fmt_out, self.folded.parts[0].rows
        dtype = torch.uint8 if fmt.depth == 8 else torch.int16
        rows = features.view(n * height, width, -1)
        for part in self.folded.parts:
            if part.crossing:
                cross(rows, part, True, True)
        planes = []
        for part, size in zip(self.folded.parts, fmt.plane_sizes(height * scale, width * scale), strict=True):
            full = rows.new_empty(n * height * part.rows, width * part.columns)
            place(rows[..., part.own], full, part.rows, part.columns)
            plane = full.view(n, height * part.rows, width * part.columns)
            if any(part.unfinished):
                plane = shrink_chroma(plane, fmt, part.unfinished)
            assert plane.shape[1:] == size
            planes.append(plane.clamp(0, fmt.peak).to(dtype))
        return tuple(planes)


def interleaved(planes: tuple[Tensor, ...], depth: int) -> Tensor:
    """Planes of 4:2:0 in the layout of NV12 or P010: lines of Y, then lines of U and V alternating.

    Args:
        planes: Y (N, H, W), U and V (N, H / 2, W / 2), uint8 or int16; H and W even.
        depth: bits of a sample; above 8 they are the upper ones of 16.

    Returns:
        (N, H * 3 / 2, pitch), same type, lines padded to a multiple of ``PITCH`` bytes.
    """
    luma, u, v = planes
    n, height, width = luma.shape
    unit = PITCH // luma.element_size()
    lines = luma.new_zeros(n, height * 3 // 2, -(-width // unit) * unit)
    lines[:, :height, :width] = luma
    lines[:, height:, 0:width:2] = u
    lines[:, height:, 1:width:2] = v
    return lines if depth == 8 else lines << (16 - depth)


class CudaQueues:
    """The work of a CUDA device beside the CPU, in three streams."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._work, self._down = (torch.cuda.Stream(device) for _ in range(3))  # type: ignore[no-untyped-call]

    def pinned(self, like: Tensor) -> Tensor:
        """Host memory for asynchronous copies. Torch reuses it once copies and tensors have released it."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def capture(
        self, network: PlanesNetwork, planes: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """A network over given memory as a CUDA graph: what computes it again, and where the results are then."""
        with torch.cuda.device(self._device), torch.inference_mode(), full_precision(self._device, network.precision):
            self._work.wait_stream(torch.cuda.current_stream(self._device))
            # Libraries choose kernels and allocate workspaces in the first calls, which a capture does not allow.
            with torch.cuda.stream(self._work):
                for _ in range(2):
                    network(*planes)
            self._work.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Threads of other devices may work meanwhile.
            with torch.cuda.graph(graph, stream=self._work, capture_error_mode="thread_local"):
                results = network(*planes)
        return graph.replay, results

    def submit(
        self, up: Callable[[], None], compute: Callable[[], None], down: Callable[[], None]
    ) -> Callable[[], None]:
        """Queue a batch's three steps; returns what waits for the last."""
        for stream, before, step in (
            # A decoder on the GPU writes in the default stream.
            (self._up, torch.cuda.default_stream(self._device), up),
            (self._work, self._up, compute),
            (self._down, self._work, down),
        ):
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                step()
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._down)
        return done.synchronize


def queues_for(device: torch.device) -> CudaQueues | None:
    """The queues of a device that can compute whole frames; None for devices other than CUDA's."""
    return CudaQueues(device) if device.type == "cuda" else None


class _Slot:
    """The memory of one batch, and the graph over it."""

    def __init__(
        self, queues: CudaQueues, network: PlanesNetwork, shapes: Sequence[tuple[int, ...]], size: int
    ) -> None:
        device = network.black.device
        dtype = torch.uint8 if network.fmt_in.depth == 8 else torch.int16
        self.size = size
        self.queues = queues
        self.inputs = [torch.zeros(size, *shape, dtype=dtype, device=device) for shape in shapes]
        self.host = [queues.pinned(plane) for plane in self.inputs]
        self.compute, self.results = queues.capture(network, self.inputs)
        self._stays = network.gpu_format is not None
        self.wait: Callable[[], None] = lambda: None

    def submit(self, sources: Sequence[Sequence[Tensor] | DevicePlanes]) -> tuple[Tensor, ...]:
        """Queue a batch.

        Args:
            sources: the planes of each frame, parts of ``host`` or on the device.

        Returns:
            Memory in which the results lie once ``wait`` has returned.
        """
        # New memory for every batch: the caller may keep the frames.
        *planes, finite = self.results
        fetched = (
            *(torch.empty_like(plane) if self._stays else self.queues.pinned(plane) for plane in planes),
            self.queues.pinned(finite),
        )

        def up() -> None:
            for frame, source in enumerate(sources):
                parts = source.separated() if isinstance(source, DevicePlanes) else source
                for there, here in zip(self.inputs, parts, strict=True):
                    there[frame].copy_(here, non_blocking=True)

        def down() -> None:
            for here, there in zip(fetched, self.results, strict=True):
                here.copy_(there, non_blocking=True)

        self.wait = self.queues.submit(up, self.compute, down)
        return fetched


class _Batch:
    """Frames that are computed together."""

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self._sources: list[Sequence[Tensor] | DevicePlanes] = []
        self._fetched: tuple[Tensor, ...] | None = None
        self._wait: Callable[[], None] = lambda: None

    def add(self, planes: Sequence[NDArray[Any]] | DevicePlanes) -> int:
        """Put a frame into the batch; its number there."""
        frame = len(self._sources)
        if isinstance(planes, DevicePlanes):
            self._sources.append(planes)
        else:
            lent = [host[frame] for host in self.slot.host]
            for host, plane in zip(lent, planes, strict=True):
                host.numpy()[...] = plane.view(np.int16) if plane.dtype == np.uint16 else plane
            self._sources.append(lent)
        return frame

    @property
    def full(self) -> bool:
        """Whether it has no space for another frame."""
        return len(self._sources) == self.slot.size

    def submit(self) -> None:
        """Submit it, once. The results for unused places of a batch that is not full are ignored."""
        if self._fetched is None:
            self._fetched = self.slot.submit(self._sources)
            self._wait = self.slot.wait

    def results(self, frame: int) -> list[Tensor]:
        """Wait for a frame's results.

        Raises:
            NotFiniteError: results of the batch are not finite.
        """
        self.submit()
        self._wait()
        self._sources.clear()  # releases a decoder's memory on the GPU
        assert self._fetched is not None
        *planes, finite = self._fetched
        if not bool(finite):
            raise NotFiniteError
        return [plane[frame] for plane in planes]


class CudaBatches:
    """Batches of frames of one size on a device.

    Args:
        size: (height, width) of the LR luma.
        pixels: how many luma pixels may be computed at once, limited by memory.

    Raises:
        RuntimeError: no memory for a single frame.
    """

    def __init__(self, queues: CudaQueues, network: PlanesNetwork, size: tuple[int, int], pixels: int) -> None:
        self._network = network
        self._shapes = network.fmt_in.plane_sizes(*size)
        self.batch = 1
        self._slots = self._made(queues, 1)
        seconds = _seconds(self._slots[0])
        while 2 * self.batch <= min(LARGEST_BATCH, pixels // (size[0] * size[1] * SLOTS)):
            try:
                larger = self._made(queues, 2 * self.batch)
                taken = _seconds(larger[0])
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                break
            if taken > WORTHWHILE * 2 * seconds:
                break
            self._slots, seconds, self.batch = larger, taken, 2 * self.batch
        self._filling: _Batch | None = None

    @property
    def ahead(self) -> int:
        """How many frames to begin before waiting for the first of them, so that the device is never idle."""
        return SLOTS * self.batch

    def begin(self, planes: Sequence[NDArray[Any]] | DevicePlanes) -> Finish:
        """Begin to upscale one frame.

        Args:
            planes: in memory, or on the device.

        Returns:
            What waits for the frame and returns it, in memory or, with ``gpu_format``, on the device; or raises
            ``NotFiniteError``.
        """
        batch = self._filling
        if batch is None:
            slot = self._slots[0]
            self._slots.rotate(-1)
            slot.wait()  # its last results are in memory of their own by then
            batch = self._filling = _Batch(slot)
        frame = batch.add(planes)
        if batch.full:
            batch.submit()
            self._filling = None

        def finished() -> Planes | DevicePlanes:
            if self._filling is batch:
                self._filling = None
            return self._handed_out(batch.results(frame))

        return finished

    def _handed_out(self, results: Sequence[Tensor]) -> Planes | DevicePlanes:
        network, fmt = self._network, self._network.fmt_out
        if network.gpu_format is None:
            return tuple(plane.numpy().view(fmt.dtype) for plane in results)
        height, width = (side * network.folded.parts[0].rows for side in self._shapes[0])
        lines = results[0] if fmt.depth == 8 else results[0].view(torch.uint16)
        luma, chroma = lines[:height, :width], lines[height:, :width]
        planes = (luma, chroma.view(height // 2, width // 2, 2))
        return DevicePlanes(planes, network.gpu_format, height, width, 0 if fmt.depth == 8 else 16 - fmt.depth)

    def _made(self, queues: CudaQueues, size: int) -> deque[_Slot]:
        return deque(_Slot(queues, self._network, self._shapes, size) for _ in range(SLOTS))


def _seconds(slot: _Slot) -> float:
    """Seconds for a batch, upload and download included: the best of three."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        slot.submit([[host[frame] for host in slot.host] for frame in range(slot.size)])
        slot.wait()
        taken.append(time.perf_counter() - began)
    return min(taken)
