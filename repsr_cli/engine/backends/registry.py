"""The programs that can compute the frames of videos: what they are called, which are installed.

Some take a network's place on the CPU (``openvino`` and ``onnxruntime`` beside this file), some make a faster one of it
that torch calls as ever (``optimized``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from repsr_cli.errors import DeviceError, UsageError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that computes networks.

    Attributes:
        title: as its makers write it.
        packages: what must be installed, the program itself first.
        install: what pip installs for it.
        devices: kinds of devices that it is for.
        precisions: number formats.
    """

    title: str
    packages: tuple[str, ...]
    install: str
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[torch.dtype, ...] = (torch.float32,)

    @property
    def installed(self) -> bool:
        """Whether all it needs is there."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    @property
    def name(self) -> str:
        """Title and version."""
        return f"{self.title} {importlib.metadata.version(self.packages[0])}"


# By the words of --engine; beside torch, which is always there.
ENGINES = {
    "openvino": Engine("OpenVINO", ("openvino",), "'repsr[openvino]'"),
    "onnxruntime": Engine("ONNX Runtime", ("onnxruntime", "onnx"), "'repsr[onnx]'"),
    "ncnn": Engine("ncnn", ("ncnn",), "'repsr[ncnn]'"),
    "compile": Engine(
        "torch.compile", ("torch",), "torch", ("cpu", "cuda"), (torch.float32, torch.float16, torch.bfloat16)
    ),
    "tensorrt": Engine(
        "Torch-TensorRT", ("torch_tensorrt",), "torch-tensorrt", ("cuda",), (torch.float32, torch.float16)
    ),
}
# Sizes that one network may be compiled for: tiles at borders and corners have sizes of their own.
_SIZES = 64


def installed_engines() -> list[str]:
    """The words of the engines that start at once and can be used on this CPU, torch first."""
    at_once = (word for word, engine in ENGINES.items() if engine.devices == ("cpu",) and engine.installed)
    return ["torch", *at_once]


def engine_name(word: str) -> str:
    """An engine's title and version; ``torch`` alone of torch.

    Args:
        word: of an engine that is installed.
    """
    return "torch" if word == "torch" else ENGINES[word].name


def pick_engine(word: str, device: torch.device, precision: torch.dtype) -> str:
    """What runs the frames of videos.

    Args:
        word: ``torch`` or of ``ENGINES``; ``auto`` takes OpenVINO where it is installed and applies, else torch.
        device: where to run.
        precision: number format.

    Raises:
        UsageError: no such engine, or one that cannot do what else was asked for.
        DeviceError: what it needs beside packages is missing.
    """
    if word == "auto":
        applies = device.type == "cpu" and precision is torch.float32
        return "openvino" if applies and ENGINES["openvino"].installed else "torch"
    if word == "torch":
        return word
    if word not in ENGINES:
        raise UsageError(f"engine {word}", "no such engine", f"Choose auto, torch, {', '.join(ENGINES)}.")
    engine = ENGINES[word]
    if device.type not in engine.devices or precision not in engine.precisions:
        formats = " or ".join(name for name, dtype in PRECISIONS.items() if dtype in engine.precisions)
        where = " or ".join(engine.devices)
        remedy = f"Add --device {engine.devices[0]} --precision {formats.split()[0]}, or leave it out."
        raise UsageError(f"engine {word}", f"is for {formats} on {where}", remedy)
    if not engine.installed:
        raise UsageError(f"engine {word}", f"{engine.title} is not installed", f"pip install {engine.install}")
    if word == "compile" and device.type == "cpu" and not any(map(shutil.which, _cpp_compilers())):
        raise DeviceError("engine compile", "needs a C++ compiler, and none is found", "Install one, or set CXX to it.")
    return word


def optimized(net: nn.Module, word: str, precision: torch.dtype) -> nn.Module:
    """A network as a compiler of torch runs it; the network itself for engines that are none.

    It is compiled when it first sees images of a size, which takes seconds to minutes.

    Args:
        net: on its device, in its precision.
        word: the engine.
        precision: of ``net``.
    """
    if word not in ("compile", "tensorrt"):
        return net
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _SIZES
    settings: dict[str, Any] = {}
    if word == "tensorrt":
        settings = {"backend": "torch_tensorrt", "options": {"enabled_precisions": {precision}}}
    compiled: nn.Module = torch.compile(net, dynamic=False, **settings)  # type: ignore[assignment]
    return compiled


def _cpp_compilers() -> list[str]:
    return [os.environ.get("CXX") or "c++", "g++", "clang++", "cl"]
