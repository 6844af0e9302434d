"""repsr: train, fuse and run VGG-style super-resolution networks (RepSR, arXiv 2205.05671).

From Python::

    import repsr_cli

    upscaler = repsr_cli.load("balanced", scale=4)
    big = repsr_cli.upscale_image(small, upscaler)

Importing the package loads nothing; the first use of a name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repsr_cli.version import __version__

__all__ = ["__version__", "load", "upscale_frames", "upscale_image"]

if TYPE_CHECKING:
    from repsr_cli.upscale.api import load, upscale_frames, upscale_image


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from repsr_cli.upscale import api as arrays

    return getattr(arrays, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
