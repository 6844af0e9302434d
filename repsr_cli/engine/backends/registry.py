"""List the engines that can run networks: which are installed, which one to use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from repsr_cli.errors import DeviceError, UsageError

# Number formats, as --precision takes them.
PRECISIONS = ("fp32", "fp16", "bf16")
_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True, slots=True)
class Engine:
    """A library that runs networks.

    Attributes:
        title: as its authors write it.
        packages: Python packages it needs, its own first.
        install: what to ask pip for.
        devices: kinds of devices it runs on here.
        precisions: number formats it runs in here.
    """

    title: str
    packages: tuple[str, ...]
    install: str
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("fp32",)

    @property
    def installed(self) -> bool:
        """Whether all packages are installed."""
        return all(importlib.util.find_spec(package) is not None for package in self.packages)

    @property
    def name(self) -> str:
        """Title and version."""
        return f"{self.title} {importlib.metadata.version(self.packages[0])}"


# By the values of --engine, except torch, which is always installed.
ENGINES = {
    "openvino": Engine("OpenVINO", ("openvino",), "'repsr[openvino]'", precisions=("fp32", "bf16")),
    "onnxruntime": Engine("ONNX Runtime", ("onnxruntime", "onnx"), "'repsr[onnx]'"),
    "ncnn": Engine("ncnn", ("ncnn",), "'repsr[ncnn]'"),
    "compile": Engine("torch.compile", ("torch",), "torch", ("cpu", "cuda"), PRECISIONS),
    "tensorrt": Engine("Torch-TensorRT", ("torch_tensorrt",), "torch-tensorrt", ("cuda",), ("fp32", "fp16")),
}


def installed_engines(precision: str = "fp32") -> list[str]:
    """The engines that run on this CPU and start without compiling for minutes, torch first.

    Args:
        precision: number format that they support.
    """
    at_once = (
        word
        for word, engine in ENGINES.items()
        if engine.devices == ("cpu",) and precision in engine.precisions and engine.installed
    )
    return ["torch", *at_once]


def computes_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX-512 BF16, AMX, Arm's BF16), as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import torch

        # Absent from older torch.
        ask: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
        return any(ask().get(name) for name in _BF16)
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return not flags.isdisjoint(_BF16)


def engine_name(word: str) -> str:
    """An engine's title and version; ``torch`` without a version.

    Args:
        word: an engine that is installed.
    """
    return "torch" if word == "torch" else ENGINES[word].name


def pick_engine(word: str, device: str, precision: str) -> str:
    """The engine that runs the frames of videos.

    Args:
        word: ``torch``, a key of ``ENGINES``, or ``auto``: OpenVINO where it is installed and applies, else torch.
        device: kind of device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UsageError: no such engine, not installed, or not for this device and precision.
        DeviceError: a C++ compiler is needed and missing.
    """
    if word == "auto":
        applies = device == "cpu" and precision in ENGINES["openvino"].precisions
        return "openvino" if applies and ENGINES["openvino"].installed else "torch"
    if word == "torch":
        return word
    if word not in ENGINES:
        raise UsageError(f"engine {word}", "no such engine", f"Choose auto, torch, {', '.join(ENGINES)}.")
    engine = ENGINES[word]
    if device not in engine.devices or precision not in engine.precisions:
        formats = " or ".join(name for name in PRECISIONS if name in engine.precisions)
        where = " or ".join(engine.devices)
        remedy = f"Add --device {engine.devices[0]} --precision {formats.split()[0]}, or leave it out."
        raise UsageError(f"engine {word}", f"is for {formats} on {where}", remedy)
    if not engine.installed:
        raise UsageError(f"engine {word}", f"{engine.title} is not installed", f"pip install {engine.install}")
    if word == "compile" and device == "cpu" and not any(map(shutil.which, _cpp_compilers())):
        raise DeviceError("engine compile", "needs a C++ compiler, and none is found", "Install one, or set CXX to it.")
    return word


def _cpp_compilers() -> list[str]:
    return [os.environ.get("CXX") or "c++", "g++", "clang++", "cl"]
