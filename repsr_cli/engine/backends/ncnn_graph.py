"""Write networks in ncnn's format (a text of layers, float32 weights), and load them in ncnn.

Source of the format: ncnn's wiki, "param and model file structure" and "operation param weight table".
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class NcnnGraph:
    """Layers as they are added, one line each, and the weights that go with them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._weights = b""
        self._blobs = 0

    def add(self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], parameters: str = "") -> None:
        """Add a layer.

        Args:
            kind: ncnn's name for the type of layer.
            name: of the layer.
            inputs: names of the blobs it reads.
            outputs: names of the blobs it writes.
            parameters: ``id=value``, separated by spaces.
        """
        ends = f"{len(inputs)} {len(outputs)} {' '.join([*inputs, *outputs])}"
        self._lines.append(f"{kind} {name} {ends} {parameters}".rstrip())
        self._blobs += len(outputs)

    def layers(self, body: Iterable[nn.Module], source: str) -> str:
        """Add the convolutions and PReLUs of a network in turn; returns the name of the last one's blob."""
        for index, layer in enumerate(body):
            out = f"features_{index}"
            if isinstance(layer, nn.Conv2d):
                sizes = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}"
                self.add("Convolution", f"convolution_{index}", [source], [out], sizes)
                # Four zeros say that float32 follows.
                self._weights += bytes(4) + _bytes(layer.weight) + _bytes(layer.bias)
            else:
                assert isinstance(layer.weight, torch.Tensor)
                self.add("PReLU", f"prelu_{index}", [source], [out], f"0={layer.weight.numel()}")
                self._weights += _bytes(layer.weight)
            source = out
        return source

    def files(self) -> tuple[bytes, bytes]:
        """The text of layers (.param) and the weights (.bin)."""
        return "\n".join(["7767517", f"{len(self._lines)} {self._blobs}", *self._lines, ""]).encode(), self._weights


def load_ncnn(files: tuple[bytes, bytes], threads: int) -> Any:
    """Load a network in ncnn, to be computed in fp32 throughout.

    Args:
        files: text of layers, weights.
        threads: processor threads of one computation.

    Raises:
        ImportError: ncnn is not installed.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    # From memory it takes weights only as a string, which cannot contain zero bytes.
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / file for file in ("net.param", "net.bin")]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        net.load_param(str(paths[0]))
        net.load_model(str(paths[1]))
    return net


def _bytes(weight: Any) -> bytes:
    return np.ascontiguousarray(weight.detach().cpu().numpy(), "<f4").tobytes()
