"""Resolve how to run a network: device, precision, tiles, engine, threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from repsr_cli.errors import DeviceError, UsageError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Called with one line for the user about a decision or a change of plan.
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How to run a network, resolved.

    Attributes:
        precision: number format to begin with; an overflow of a half precision leads to fp32.
        tile: ``auto``, ``auto:N``, ``off`` or the side of a core in LR pixels, as ``pick_tile`` gives it.
        engine: ``torch`` or a name in ``registry.ENGINES``; applies to planes, RGB images always run by torch.
        threads: CPU threads to compute with; None: as many as torch has set when it computes.
        notify: called with each decision or change of plan.
    """

    device: torch.device
    precision: torch.dtype
    tile: str | int = "auto"
    engine: str = "torch"
    threads: int | None = None
    notify: Notify = lambda _line: None

    @property
    def thread_count(self) -> int:
        """CPU threads to compute with, now."""
        return self.threads or torch.get_num_threads()


def pick_device(name: str) -> torch.device:
    """The device of a name.

    Args:
        name: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        UsageError: no such kind of device.
        DeviceError: this machine or this build of torch has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise UsageError(f"device {name}", "no such device", "Choose auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            found = f"{count} CUDA device{'s' * (count != 1)} found" if count else "no CUDA device found"
            built = ", and this torch is built without CUDA" if torch.version.cuda is None else ""
            raise DeviceError(name, found + built, "Use --device cpu, or install a torch with CUDA.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "this machine or this torch has no MPS", "Use --device cpu.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a name; ``auto`` is fp32 on CPU and fp16 elsewhere.

    Raises:
        UsageError: no such precision.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UsageError(f"precision {name}", "no such precision", "Choose auto, fp32, fp16 or bf16.")
    return DTYPES[name]


def precision_name(precision: torch.dtype) -> str:
    """The name of a number format, as ``--precision`` takes it."""
    return next(name for name, dtype in DTYPES.items() if dtype is precision)
