"""Tell whether there may be a GPU, without importing torch."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

# Devices of GPUs: NVIDIA's, those of Jetson and of WSL, AMD's.
_GPUS = ("nvidiactl", "nvhost-ctrl", "nvmap", "dxg", "kfd")


def is_cpu(device: str) -> bool:
    """Whether a name, ``auto`` included, means the CPU for certain."""
    return device == "cpu" or (device == "auto" and not may_have_gpu())


def may_have_gpu() -> bool:
    """Whether ``auto`` might mean another device than the CPU; only torch can tell for certain."""
    if importlib.metadata.version("torch").endswith("+cpu"):
        return False
    return sys.platform != "linux" or any(Path("/dev", name).exists() for name in _GPUS)
