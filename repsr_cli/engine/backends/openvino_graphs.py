"""Run a folded network with OpenVINO, from samples to rounded samples, without torch.

Torch runs a network layer by layer; adding the skip, filtering chroma, clipping and converting to integers each pass
over memory again. OpenVINO's graph compiler does most of that while a convolution's results are in registers
(docs/speed.md has the figures). The arithmetic is the same, and results agree to within rounding.
"""

from __future__ import annotations

from dataclasses import replace
from threading import Lock, get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.backends.quiet_import import quiet_import
from repsr_cli.engine.plane_folding import FoldedArrays, Part, Weights, cross
from repsr_cli.engine.side_by_side import tiles_at_once
from repsr_cli.engine.tiling import Tile
from repsr_cli.yuv.formats import PlaneFormat

# Bytes that must be free before a graph is compiled. Where memory ends within, OpenVINO crashes or waits forever.
_MEMORY = 128 << 20


def compiles(parts: tuple[Part, ...]) -> bool:
    """Whether OpenVINO can compute finished samples of every plane."""
    return not any(any(part.unfinished) for part in parts)


class OpenVinoGraphs:
    """A folded network up to the pixel shuffle, compiled for the CPU.

    Args:
        folded: the network; every part finished or crossing.
        precision: of convolutions, ``fp32`` or ``bf16``.

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, folded: FoldedArrays, fmt: PlaneFormat, threads: int, precision: str) -> None:
        self._openvino = quiet_import("openvino")
        self._folded = folded
        self._fmt = fmt
        self._crossing = any(part.crossing for part in folded.parts)
        self._core = self._openvino.Core()
        # As many streams as the runner has tiles under way: one does not wait for the other between layers.
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": tiles_at_once(threads),
            # Pinned threads of two processes would share the first cores, and leave none to the decoder and encoder.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
        }
        # Compiling for one size takes hundredths of a second, and a plan has few sizes. Each thread has its requests.
        self._compiled: dict[tuple[int, int], Any] = {}
        self._requests: dict[tuple[int, tuple[int, int]], Any] = {}
        self._compiling = Lock()

    def run(self, context: NDArray[np.float32], tile: Tile) -> NDArray[Any]:
        """Compute what the pixels of a tile's context become.

        Args:
            context: (1, C, h, w).
            tile: where the context lies in its image.

        Returns:
            (1, h, w, K) finished samples, uint8, or uint16 at depths above 8: of luma, then of each chroma plane. Valid
            until the calling thread's next call.
        """
        size = (context.shape[-2], context.shape[-1])
        key = (get_ident(), size)
        with self._compiling:
            if size not in self._compiled:
                np.empty(_MEMORY, np.uint8)
                self._compiled[size] = self._core.compile_model(self._model(*size), "CPU", self._settings)
            if key not in self._requests:
                self._requests[key] = self._compiled[size].create_infer_request()
        # The results lie in the request's memory until it is used again.
        found = self._requests[key].infer([np.ascontiguousarray(context)], share_inputs=True, share_outputs=True)
        if not self._crossing:
            samples: NDArray[Any] = found[0]
            return samples
        luma, chroma = found[0], found[1]
        # The filter mirrors at the image's borders; a convolution does not.
        at_left, at_right = tile.context.left == 0, tile.context.right == tile.image.right
        if at_left:
            chroma[:, :, 0] = self._border(found[2], True, at_right and size[1] == 1)[:, 0]
        if at_right and size[1] > 1:
            chroma[:, :, -1] = self._border(found[3], False, True)[:, -1]
        return np.concatenate([luma, chroma], -1)

    def _border(self, sums: NDArray[np.float32], at_left: bool, at_right: bool) -> NDArray[Any]:
        """Finished chroma of two columns, (h, 2, K), from the network's sums for them, (1, K, h, 2)."""
        samples = sums[0].transpose(1, 2, 0).copy()
        parts = [replace(part, start=part.start - self._folded.parts[0].stop) for part in self._folded.parts[1:]]
        for part in parts:
            cross(samples, part, at_left, at_right)
        finished = np.concatenate([samples[..., part.own] for part in parts], -1)
        return finished.clip(0, self._fmt.peak).astype(self._fmt.dtype)

    def _model(self, height: int, width: int) -> Any:
        """The graph for contexts of one size."""
        from openvino import opset13 as ops

        *convolutions, (weight, bias) = self._folded.convolutions
        skip = self._folded.skip.T[:, :, None, None]
        lr = ops.parameter([1, skip.shape[1], height, width], np.float32)
        features = lr
        for each, slopes in zip(convolutions, self._folded.slopes, strict=True):
            features = ops.prelu(_convolution(features, *each), ops.constant(slopes))

        def samples(channels: slice) -> Any:
            added = _convolution(lr, skip[channels])
            return ops.add(_convolution(features, weight[channels], bias[channels]), added)

        def finished(samples: Any) -> Any:
            nhwc = ops.transpose(ops.clamp(samples, 0.0, float(self._fmt.peak)), ops.constant(np.array([0, 2, 3, 1])))
            # One half was added to samples: the fraction is dropped here.
            return ops.convert(nhwc, "u8" if self._fmt.depth == 8 else "u16")

        if not self._crossing:
            return self._openvino.Model([finished(samples(slice(None)))], [lr])
        first = self._folded.parts[0].stop
        chroma = samples(slice(first, None))
        columns = [ops.slice(chroma, [start], [stop], [1], [3]) for start, stop in ((0, 2), (-2, 2**31 - 1))]
        gathered = _convolution(chroma, _crossing(self._folded.parts))
        return self._openvino.Model([finished(samples(slice(first))), finished(gathered), *columns], [lr])


def _crossing(parts: tuple[Part, ...]) -> Weights:
    """What ``cross`` does away from borders, of all parts after the first, as a convolution: (samples, K, 1, 3)."""
    chroma = parts[1:]
    samples = sum(part.rows * part.columns for part in chroma)
    weight = np.zeros((samples, parts[-1].stop - parts[0].stop, 1, 3), np.float32)
    row = 0
    for part in chroma:
        start = part.start - parts[0].stop
        count = part.rows * part.columns
        for sample in range(count):
            weight[row + sample, start + sample, 0, 1] = 1
        for line in range(part.rows):
            weight[row + line * part.columns, start + count + line, 0, 0] = 1
            weight[row + (line + 1) * part.columns - 1, start + count + part.rows + line, 0, 2] = 1
        row += count
    return weight


def _convolution(source: Any, weight: Weights, bias: Weights | None = None) -> Any:
    """A convolution that keeps the size."""
    from openvino import opset13 as ops

    padding = [side // 2 for side in weight.shape[2:]]
    found = ops.convolution(source, ops.constant(np.ascontiguousarray(weight)), [1, 1], padding, padding, [1, 1])
    return found if bias is None else ops.add(found, ops.constant(bias.reshape(1, -1, 1, 1)))
