"""Run the layers of a body with ncnn, on the CPU in fp32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.backend import Layers
from repsr_cli.engine.backends.ncnn_graph import NcnnGraph, load_ncnn


def ncnn_layers(layers: nn.Sequential, threads: int) -> Layers:
    """Convolutions and PReLUs as ncnn computes them.

    Args:
        layers: copied.
        threads: CPU threads for each of the tiles that are computed at once.

    Returns:
        A function that raises MemoryError where ncnn runs out of memory.

    Raises:
        ImportError: ncnn is not installed.
    """
    import ncnn

    graph = NcnnGraph()
    graph.add("Input", "lr", [], ["lr"])
    out = graph.layers(layers, "lr")
    net = load_ncnn(graph.files(), threads)

    def run(lr: Tensor) -> Tensor:
        images = []
        for image in lr.numpy():
            extractor = net.create_extractor()
            extractor.input("lr", ncnn.Mat(image).clone())
            status, features = extractor.extract(out)
            if status != 0:  # for these layers, always a lack of memory
                raise MemoryError(f"ncnn gave {status}")
            images.append(np.array(features, copy=False))
        return torch.from_numpy(np.stack(images))

    return run
