"""A plain network as an ONNX file, written only if it gives what torch gives. Floor 4.

The graph is written node by node: convolution, PReLU, DepthToSpace and a nearest-neighbour skip are all there is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from repsr_cli.errors import CheckpointError, UsageError
from repsr_cli.model.plain import PlainSR

# What every reader of the last years knows; nothing newer is needed.
OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-5
PROBE_SIZES = ((24, 33), (1, 1), (3, 40))  # LR px; small ones are all border


def export_onnx(net: PlainSR, target: Path, metadata: dict[str, str]) -> float | None:
    """Write a network as ONNX: ``lr`` (N, C, H, W) float32 in [0, 1] to ``sr``, not clamped, of any N, H and W.

    Args:
        net: the network.
        target: the file to write.
        metadata: strings for the file.

    Returns:
        The largest difference to torch, computed by ONNX Runtime on seeded noise, values in [0, 1]; None where that is
        not installed.

    Raises:
        UsageError: the package ``onnx`` is not installed, or the file cannot be written.
        CheckpointError: ONNX Runtime computes other numbers; then nothing is written.
    """
    model = onnx_model(net, metadata)
    difference = largest_difference(net, model)
    if difference is not None and not difference <= TOLERANCE:
        happened = f"ONNX Runtime and torch differ by {difference:.2e}, more than {TOLERANCE:.0e}"
        raise CheckpointError(target, happened, "Nothing was written; try another version of onnxruntime.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(model)
        partial.replace(target)
    except OSError as error:
        raise UsageError(target, f"cannot be written ({error.strerror})", "Choose another path.") from error
    finally:
        partial.unlink(missing_ok=True)
    return difference


def onnx_model(net: PlainSR, metadata: dict[str, str]) -> bytes:
    """The network as the bytes of an ONNX file.

    Raises:
        UsageError: the package ``onnx`` is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise UsageError("--onnx", "the package onnx is not installed", "pip install 'repsr[onnx]'") from error

    nodes, weights = [], []

    def constant(name: str, numbers: Any) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(numbers, dtype=np.float32), name))
        return name

    features = "lr"
    for index, layer in enumerate(net.body):
        names = {key: f"body.{index}.{key}" for key in layer.state_dict()}
        found = {key: value.detach().cpu().numpy() for key, value in layer.state_dict().items()}
        if isinstance(layer, nn.Conv2d):
            inputs = [features, *(constant(names[key], found[key]) for key in ("weight", "bias"))]
            node = helper.make_node("Conv", inputs, [f"features.{index}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            inputs = [features, constant(names["weight"], found["weight"].reshape(-1, 1, 1))]
            node = helper.make_node("PRelu", inputs, [f"features.{index}"])
        nodes.append(node)
        features = f"features.{index}"
    scale = net.spec.scale
    nodes += [
        # CRD is the order of pixel shuffle.
        helper.make_node("DepthToSpace", [features], ["residual"], blocksize=scale, mode="CRD"),
        helper.make_node(
            "Resize",
            ["lr", "", constant("scales", [1, 1, scale, scale])],
            ["skip"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Add", ["residual", "skip"], ["sr"]),
    ]
    colors = net.spec.colors
    graph = helper.make_graph(
        nodes,
        net.spec.name,
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", colors, "height", "width"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", colors, "sr_height", "sr_width"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="repsr")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def largest_difference(net: PlainSR, model: bytes) -> float | None:
    """The largest difference between ONNX Runtime's output and torch's on seeded noise; None: not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for height, width in PROBE_SIZES:
        lr = torch.rand(2, net.spec.colors, height, width, generator=random)
        with torch.inference_mode():
            expected = net(lr).numpy()
        found = session.run(["sr"], {"lr": lr.numpy()})[0]
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
