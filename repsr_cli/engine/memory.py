"""Decide what to do where memory is short: smaller tiles, as long as there are any."""

from __future__ import annotations

from collections.abc import Callable

from repsr_cli.engine.tiling import SMALLEST_TILE
from repsr_cli.errors import DeviceError

_NO_MEMORY = ("out of memory", "can't allocate memory", "could not create a primitive", "cudnn_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch or a backend means that memory is short."""
    # By its name: torch, whose CUDA raises it, need not be imported.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # The CPU allocator, oneDNN, MPS and cuDNN raise plain RuntimeErrors.
    text = str(error).lower()
    return any(words in text for words in _NO_MEMORY)


def smaller(side: int, device: str, notify: Callable[[str], None], error: BaseException) -> int:
    """The largest side of a core from now on.

    Args:
        side: of the tiles that did not fit.
        device: where.
        notify: reports the change.
        error: what was raised.

    Raises:
        DeviceError: there are no smaller tiles.
    """
    if side <= SMALLEST_TILE:
        remedy = "Close other programs." if device == "cpu" else "Free memory, or use --device cpu."
        raise DeviceError(device, f"out of memory at the smallest tile ({SMALLEST_TILE} pixels)", remedy) from error
    largest = max(side // 2, SMALLEST_TILE)
    notify(f"out of memory on {device}; going on with tiles of {largest} pixels")
    return largest
