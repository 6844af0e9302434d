"""A body whose convolutions another program computes: ONNX Runtime or ncnn, on the CPU in fp32.

What comes after the convolutions is torch's, as ever, so that every format of planes works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.ncnn_graph import NcnnGraph, load_ncnn
from repsr_cli.engine.backends.onnx_graph import onnx_layers
from repsr_cli.engine.body import Body, add_skip

# (N, C, H, W) to (N, K, H, W), float32; may be called from several threads at once.
Layers = Callable[[Tensor], Tensor]


class ForeignBody(nn.Module):
    """As ``Body``, by another program.

    Args:
        engine: ``onnxruntime`` or ``ncnn``.
        body: whose layers it takes over; its weights are copied.
        threads: processor threads for each of the tiles that are computed at once.

    Raises:
        ImportError: the program is not installed.
    """

    skip: Tensor

    def __init__(self, engine: str, body: Body, threads: int) -> None:
        super().__init__()
        # A function, not an object: copies of this module share what it holds.
        self._layers = LAYERS[engine](body.layers, threads)
        self.register_buffer("skip", body.skip)

    def forward(self, lr: Tensor) -> Tensor:
        """As ``Body.forward``.

        Raises:
            MemoryError: the program found none.
        """
        return add_skip(self._layers(lr.contiguous()), lr, self.skip)


def by_onnxruntime(layers: nn.Sequential, threads: int) -> Layers:
    """Convolutions and PReLUs as ONNX Runtime computes them."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

    content = onnx_layers(layers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised
    # A session has one pool of threads: two tiles that shared it would wait for each other.
    own = threading.local()

    def run(lr: Tensor) -> Tensor:
        if not hasattr(own, "session"):
            own.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        try:
            (features,) = own.session.run(None, {"lr": lr.numpy()})
        except (Fail, RuntimeException) as error:
            if "alloc" in str(error):
                raise MemoryError(str(error)) from error
            raise
        return torch.from_numpy(features)

    return run


def by_ncnn(layers: nn.Sequential, threads: int) -> Layers:
    """Convolutions and PReLUs as ncnn computes them."""
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
            if status != 0:  # these layers fail for want of memory only
                raise MemoryError(f"ncnn gave {status}")
            images.append(np.array(features, copy=False))
        return torch.from_numpy(np.stack(images))

    return run


LAYERS = {"onnxruntime": by_onnxruntime, "ncnn": by_ncnn}
