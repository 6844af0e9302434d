"""Decide what to do where memory is short: smaller tiles, as long as there are any."""

from __future__ import annotations

from collections.abc import Callable

from repsr_cli.engine.tiling import SMALLEST_TILE
from repsr_cli.errors import DeviceError


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
