"""Train, fuse and run VGG-style super-resolution networks (RepSR, arXiv 2205.05671).

From Python::

    import repsr_cli

    model = repsr_cli.load_model("balanced", scale=4)
    big = model.upscale(small)  # a PIL image, an array or a tensor
    repsr_cli.upscale_file("clip.mp4", "clip_x4.mp4", scale=4)

Importing the package loads nothing heavy; the first use of a name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repsr_cli.errors import (
    CheckpointError,
    DeviceError,
    Interrupted,
    MediaError,
    RepsrError,
    UsageError,
)
from repsr_cli.version import __version__

__all__ = [
    "CheckpointError",
    "DeviceError",
    "Interrupted",
    "MediaError",
    "Model",
    "Outcome",
    "Progress",
    "RepsrError",
    "UsageError",
    "__version__",
    "load_model",
    "upscale_file",
    "upscale_frames",
]

if TYPE_CHECKING:
    from repsr_cli.reporting import Outcome, Progress
    from repsr_cli.upscale.api import Model, load_model, upscale_file, upscale_frames


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from repsr_cli.upscale import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
