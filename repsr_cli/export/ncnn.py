"""Write networks as ncnn files, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.backends.ncnn_graph import NcnnGraph, load_ncnn
from repsr_cli.export.agreement import Run
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat


def ncnn_files(net: PlainSR, _planes: PlaneFormat | None, _metadata: dict[str, str]) -> tuple[bytes, bytes]:
    """Layers (.param) and float32 weights (.bin) of a network.

    Its input is ``data`` and its output ``output``, the names that the ncnn builds of Real-ESRGAN use.
    """
    graph, scale = NcnnGraph(), net.spec.scale
    graph.add("Input", "data", [], ["data"])
    graph.add("Split", "split", ["data"], ["body", "skip"])
    features = graph.layers(net.body, "body")
    graph.add("PixelShuffle", "shuffle", [features], ["residual"], f"0={scale}")
    graph.add("Interp", "nearest", ["skip"], ["enlarged"], f"0=1 1={scale} 2={scale}")
    graph.add("BinaryOp", "sum", ["residual", "enlarged"], ["output"], "0=0")
    return graph.files()


def ncnn_runner(files: tuple[bytes, ...]) -> Run:
    """Run ncnn files as a function; ImportError if ncnn is not installed."""
    import ncnn

    # In one thread: where no other can be started, its OpenMP library ends the process.
    net = load_ncnn((files[0], files[1]), threads=1)

    def run(inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        results = []
        for image in inputs[0]:
            extractor = net.create_extractor()
            extractor.input("data", ncnn.Mat(np.ascontiguousarray(image)).clone())
            results.append(np.array(extractor.extract("output")[1]))
        return [np.stack(results)]

    return run
