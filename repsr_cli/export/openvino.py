"""Write networks in OpenVINO's intermediate representation, and run them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from repsr_cli.engine.backends.quiet_import import quiet_import
from repsr_cli.errors import UsageError, shortage
from repsr_cli.export.agreement import Run
from repsr_cli.export.onnx import onnx_files
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat


def openvino_files(net: PlainSR, planes: PlaneFormat | None, metadata: dict[str, str]) -> tuple[bytes, bytes]:
    """Graph (.xml) and float32 weights (.bin) of a network, converted from its ONNX graph."""
    try:
        openvino = quiet_import("openvino")
    except ImportError as error:
        happened, remedy = "the package openvino is not installed", "pip install 'repsr[openvino]'"
        raise shortage(error) or UsageError("OpenVINO", happened, remedy) from error

    model = openvino.Core().read_model(onnx_files(net, planes, {})[0])
    for key, value in metadata.items():
        model.set_rt_info(value, key)
    with tempfile.TemporaryDirectory() as name:
        graph = Path(name) / "net.xml"
        openvino.save_model(model, graph, compress_to_fp16=False)
        return graph.read_bytes(), graph.with_suffix(".bin").read_bytes()


def openvino_runner(files: tuple[bytes, ...]) -> Run:
    """OpenVINO files as a function; ImportError if OpenVINO is not installed."""
    openvino = quiet_import("openvino")
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(files[0], openvino.Tensor(np.frombuffer(files[1], np.uint8))),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    return lambda inputs: [np.array(output) for output in compiled(list(inputs)).values()]
