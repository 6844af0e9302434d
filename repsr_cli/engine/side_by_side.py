"""Compute tiles side by side: how many, and how to wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait

# Each has features of some tens of megabytes under way.
_MOST = 32


def tiles_at_once(threads: int) -> int:
    """How many tiles of a video's frames are computed at once on so many threads: one a thread.

    Several threads on one tile wait for one another after every layer, and for what only one of them does.
    docs/speed.md has the figures.
    """
    return min(threads, _MOST)


def frames_ahead(at_once: int, tiles: int) -> int:
    """How many frames to begin before the first of them is waited for, so that so many tiles are always there.

    Args:
        at_once: tiles that are computed at once.
        tiles: of a frame.
    """
    return 1 + (at_once - 1) // tiles


def results(running: list[Future[None]]) -> Iterator[None]:
    """Wait for tiles one after the other; nothing writes any more once this ends, whatever happened."""
    try:
        for future in running:
            yield future.result()
    finally:
        abandon(running)


def abandon(running: list[Future[None]]) -> None:
    """Leave out the tiles that have not begun, and wait for the others."""
    wait([future for future in running if not future.cancel()])
