"""Wait for tiles that are computed side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait


def results(running: list[Future[None]]) -> Iterator[None]:
    """Wait for tiles one after the other; nothing writes any more once this ends, whatever happened."""
    try:
        for future in running:
            yield future.result()
    finally:
        abandon(running)


def abandon(running: list[Future[None]]) -> None:
    """Leave out the tiles that have not begun, and wait for the others."""
    for future in running:
        future.cancel()
    wait(running)
