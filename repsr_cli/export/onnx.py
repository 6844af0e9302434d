"""Write networks as ONNX graphs, from RGB to RGB or from planes to planes, and run them with ONNX Runtime.

A network needs convolution, PReLU, pixel shuffle and a nearest-neighbour skip. Planes need chroma filters too, which
are convolutions over mirrored borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.backends.onnx_graph import Graph
from repsr_cli.engine.backends.quiet_import import quiet_import
from repsr_cli.engine.colour_folding import fold, folds
from repsr_cli.errors import UsageError
from repsr_cli.export.agreement import Run
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.filters import filter_for
from repsr_cli.yuv.formats import PlaneFormat


def onnx_files(net: PlainSR, planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes]:
    """The network as an ONNX file; errors as ``onnx_network`` and ``onnx_planes``."""
    return (onnx_network(net, metadata) if planes is None else onnx_planes(net, planes, metadata),)


def onnx_runner(files: tuple[bytes, ...]) -> Run:
    """An ONNX file as a function; ImportError if ONNX Runtime is not installed."""
    onnxruntime = quiet_import("onnxruntime")
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def onnx_network(net: PlainSR, metadata: dict[str, str]) -> bytes:
    """A network as an ONNX file: ``lr`` (N, C, H, W) float32 to ``sr``, of any N, H and W."""
    graph = _PlaneGraph()
    scale, colors = net.spec.scale, net.spec.colors
    features = graph.layers(net.body, "lr")
    residual = graph.shuffle(features, scale)
    skip = graph.add(
        "Resize",
        ["lr", "", graph.constant("scales", [1, 1, scale, scale])],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph.add("Add", [residual, skip], "sr")
    inputs = [("lr", "FLOAT", ["n", colors, "height", "width"])]
    return graph.file(net.spec.name, inputs, [("sr", "FLOAT", ["n", colors, "sr_height", "sr_width"])], metadata)


def onnx_planes(net: PlainSR, fmt: PlaneFormat, metadata: dict[str, str]) -> bytes:
    """A network with the colour conversion folded into it as an ONNX file, from a decoder's planes to an encoder's.

    Inputs ``y``, ``u``, ``v`` and outputs ``sr_y``, ``sr_u``, ``sr_v`` are (N, 1, H, W) uint8, or uint16 above 8 bit,
    of any N and any size that the chroma subsampling divides. Grey has ``y`` and ``sr_y`` only.

    Args:
        fmt: format of the planes, both ways.

    Raises:
        UsageError: a network that cannot be folded, or the package ``onnx`` is not installed.
    """
    if fmt.matrix == "rgb" or not folds(net, fmt):
        raise UsageError("planes", f"{net.spec.name} cannot read and write such planes itself", "Leave --planes out.")
    folded = fold(net, fmt, fmt, crossing=False)
    graph = _PlaneGraph()
    kind = "UINT8" if fmt.depth == 8 else "UINT16"
    names = ["y"] if fmt.matrix == "grey" else ["y", "u", "v"]
    samples = []
    for name in names:
        plane = graph.add("Cast", [name], to=graph.type("FLOAT"))
        for axis in (0, 1):
            if name != "y" and fmt.subsample[axis] == 2:
                plane = graph.enlarged(plane, axis, fmt.cosited[axis])
        samples.append(plane)
    stacked = samples[0] if len(samples) == 1 else graph.add("Concat", samples, axis=1)
    black = graph.constant("black", np.reshape(folded.black, (1, -1, 1, 1)))
    lr = graph.add("Mul", [graph.add("Sub", [stacked, black]), graph.constant("gain", folded.gain)])
    features = graph.layers(folded.body.layers, lr)
    skip = graph.convolution(lr, "skip", folded.body.skip.T[:, :, None, None].numpy())
    features = graph.add("Add", [features, skip])
    for name, part in zip(names, folded.parts, strict=True):
        bounds = [
            graph.constant(f"{name}.{end}", [at], np.int64)
            for end, at in (("start", part.start), ("stop", part.stop), ("axis", 1))
        ]
        plane = graph.add("Slice", [features, *bounds])
        plane = graph.shuffle(plane, part.rows, part.columns)
        for axis in (0, 1):
            if part.unfinished[axis]:
                plane = graph.shrunk(plane, axis, fmt.cosited[axis])
        # The folded bias includes one half: dropping the fraction rounds.
        limits = [graph.constant(f"{name}.lowest", 0.0), graph.constant(f"{name}.highest", float(fmt.peak))]
        graph.add("Cast", [graph.add("Clip", [plane, *limits])], f"sr_{name}", to=graph.type(kind))

    def ports(prefix: str) -> list[tuple[str, str, list[Any]]]:
        """Names, types and shapes of the planes."""
        sizes = {"y": [f"{prefix}height", f"{prefix}width"]}
        chroma = [f"{prefix}chroma_height", f"{prefix}chroma_width"]
        return [(f"{prefix}{name}", kind, ["n", 1, *sizes.get(name, chroma)]) for name in names]

    return graph.file(net.spec.name, ports(""), ports("sr_"), metadata)


class _PlaneGraph(Graph):
    """A graph with pixel shuffle and chroma resampling."""

    def shuffle(self, source: str, rows: int, columns: int | None = None) -> str:
        """Shuffle to ``rows`` by ``columns`` samples for each pixel, by default as many columns as rows."""
        if columns is None or rows == columns:
            # CRD is torch's order.
            return self.add("DepthToSpace", [source], blocksize=rows, mode="CRD")
        # Of one plane only: (n, rows * columns, h, w) to (n, 1, h * rows, w * columns).
        shape = self.add("Shape", [source])
        n, _, h, w = (self._item(shape, index) for index in range(4))
        size = {count: self.constant(f"size.{count}", [count], np.int64) for count in (1, rows, columns)}
        apart = self.add("Concat", [n, size[rows], size[columns], h, w], axis=0)
        turned = self.add("Transpose", [self.add("Reshape", [source, apart])], perm=[0, 3, 1, 4, 2])
        height = self.add("Mul", [h, size[rows]])
        width = self.add("Mul", [w, size[columns]])
        return self.add("Reshape", [turned, self.add("Concat", [n, size[1], height, width], axis=0)])

    def _item(self, shape: str, index: int) -> str:
        return self.add("Gather", [shape, self.constant(f"index.{index}", [index], np.int64)], axis=0)

    def enlarged(self, plane: str, axis: int, cosited: bool) -> str:
        """Chroma at twice the size along an axis, as ``repsr_cli.yuv.chroma`` does it."""
        taps = filter_for(cosited)
        weight = _along([taps.even, taps.odd], axis)
        both = self.convolution(self._padded(plane, axis, 1, 1, "edge"), f"enlarge.{axis}", weight)
        return self.shuffle(both, 2, 1) if axis == 0 else self.shuffle(both, 1, 2)

    def shrunk(self, plane: str, axis: int, cosited: bool) -> str:
        """Chroma at half the size along an axis, as ``repsr_cli.yuv.chroma`` does it."""
        taps = filter_for(cosited)
        # The size is even: the last tap reaches one position less far than the first.
        before, after = -taps.start, len(taps.down) + taps.start - 2
        if before or after:
            plane = self._padded(plane, axis, before, after, "reflect")
        strides = [2, 1] if axis == 0 else [1, 2]
        return self.convolution(plane, f"shrink.{axis}", _along([taps.down], axis), strides=strides)

    def _padded(self, plane: str, axis: int, before: int, after: int, mode: str) -> str:
        pads = np.zeros((2, 4), np.int64)
        pads[:, 2 + axis] = before, after
        return self.add("Pad", [plane, self.constant(f"pads.{axis}.{mode}", pads.ravel(), np.int64)], mode=mode)


def _along(taps: Sequence[Sequence[float]], axis: int) -> NDArray[np.float32]:
    """K kernels as the weight of a convolution along an axis: (K, 1, taps, 1) or (K, 1, 1, taps)."""
    weight = np.array(taps, np.float32)
    return weight[:, None, :, None] if axis == 0 else weight[:, None, None, :]
