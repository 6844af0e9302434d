"""The programs that can compute the frames of clips: what they are called, which are installed. Floor 3."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

import torch

from repsr_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that computes networks on the CPU in fp32.

    Attributes:
        title: as its makers write it.
        packages: what must be installed, the program itself first.
        extra: of repsr, that installs them.
    """

    title: str
    packages: tuple[str, ...]
    extra: str

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
    "openvino": Engine("OpenVINO", ("openvino",), "openvino"),
    "onnxruntime": Engine("ONNX Runtime", ("onnxruntime", "onnx"), "onnx"),
    "ncnn": Engine("ncnn", ("ncnn",), "ncnn"),
}


def installed_engines() -> list[str]:
    """The words of the engines that can be used here, torch first."""
    return ["torch", *(word for word, engine in ENGINES.items() if engine.installed)]


def engine_name(word: str) -> str:
    """An engine's title and version; ``torch`` alone of torch.

    Args:
        word: of an engine that is installed.
    """
    return "torch" if word == "torch" else ENGINES[word].name


def pick_engine(word: str, device: torch.device, precision: torch.dtype) -> str:
    """What runs the frames of clips.

    Args:
        word: ``torch`` or of ``ENGINES``; ``auto`` takes OpenVINO where it is installed and applies, else torch.
        device: where to run; engines beside torch are used on the CPU only.
        precision: number format; they are used in fp32 only.

    Raises:
        UsageError: no such engine, or one that cannot do what else was asked for.
    """
    applies = device.type == "cpu" and precision is torch.float32
    if word == "auto":
        return "openvino" if applies and ENGINES["openvino"].installed else "torch"
    if word == "torch":
        return word
    if word not in ENGINES:
        raise UsageError(f"engine {word}", "no such engine", f"Choose auto, torch, {', '.join(ENGINES)}.")
    engine = ENGINES[word]
    if not engine.installed:
        raise UsageError(f"engine {word}", f"{engine.title} is not installed", f"pip install 'repsr[{engine.extra}]'")
    if not applies:
        raise UsageError(f"engine {word}", "is for fp32 on the CPU", "Add --device cpu --precision fp32.")
    return word
