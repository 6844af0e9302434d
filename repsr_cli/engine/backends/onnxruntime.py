"""Run the layers of a body with ONNX Runtime, on the CPU in fp32."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.backend import Layers
from repsr_cli.engine.backends.onnx_graph import onnx_layers
from repsr_cli.engine.backends.quiet_import import quiet_import


def onnxruntime_layers(layers: nn.Sequential, threads: int) -> Layers:
    """Convolutions and PReLUs as ONNX Runtime computes them.

    Args:
        layers: copied.
        threads: CPU threads for each of the tiles that are computed at once.

    Returns:
        A function that raises MemoryError where ONNX Runtime runs out of memory.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    onnxruntime = quiet_import("onnxruntime")
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

    content = onnx_layers(layers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised
    # A session has one thread pool: two tiles that shared it would wait for each other.
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
