"""Build ONNX graphs of networks, for ONNX Runtime here and for exported files.

Written node by node: convolutions and PReLUs are nearly all that a network has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from repsr_cli.errors import UsageError, shortage

# Supported by every reader of recent years; nothing newer is needed.
OPSET, IR_VERSION = 17, 8


class Graph:
    """Nodes and constants as they are added; a node's output gets a name of its own unless one is given."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            remedy = "pip install 'repsr[onnx]'"
            raise shortage(error) or UsageError("ONNX", "the package onnx is not installed", remedy) from error
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def type(self, name: str) -> int:
        """ONNX's number of a type."""
        return int(getattr(self._onnx.TensorProto, name))

    def constant(self, name: str, numbers: Any, kind: Any = np.float32) -> str:
        """A named constant; the same name twice stands for the same numbers."""
        self._constants[name] = self._onnx.numpy_helper.from_array(np.array(numbers, kind, order="C"), name)
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node and name its output."""
        output = output or f"{operator.lower()}.{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def convolution(self, source: str, name: str, weight: NDArray[np.float32], **attributes: Any) -> str:
        """A convolution without bias."""
        return self.add("Conv", [source, self.constant(name, weight)], kernel_shape=weight.shape[2:], **attributes)

    def layers(self, body: Iterable[nn.Module], source: str) -> str:
        """The layers of a network in turn, weights under their names in the Compact layout."""
        for index, layer in enumerate(body):
            found = {key: value.cpu().numpy() for key, value in layer.state_dict().items()}
            weight, name = found["weight"], f"body.{index}.weight"
            if isinstance(layer, nn.Conv2d):
                inputs = [source, self.constant(name, weight), self.constant(f"body.{index}.bias", found["bias"])]
                source = self.add("Conv", inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            else:
                source = self.add("PRelu", [source, self.constant(name, weight.reshape(-1, 1, 1))])
        return source

    def file(
        self,
        name: str,
        inputs: Sequence[tuple[str, str, list[Any]]],
        outputs: Sequence[tuple[str, str, list[Any]]],
        metadata: dict[str, str],
    ) -> bytes:
        """The graph as a file; ports are (name, type, shape)."""
        helper = self._onnx.helper
        ports = [
            [helper.make_tensor_value_info(port, self.type(kind), shape) for port, kind, shape in side]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, name, *ports, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="repsr")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def onnx_layers(layers: nn.Sequential) -> bytes:
    """Convolutions and PReLUs as an ONNX file: ``lr`` (N, C, H, W) float32 to (N, K, H, W), of any N, H and W.

    Raises:
        UsageError: the package ``onnx`` is not installed.
    """
    graph, convolutions = Graph(), [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    out = graph.layers(layers, "lr")
    inputs = [("lr", "FLOAT", ["n", convolutions[0].in_channels, "h", "w"])]
    return graph.file("layers", inputs, [(out, "FLOAT", ["n", convolutions[-1].out_channels, "h", "w"])], {})
