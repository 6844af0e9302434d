"""Check what an interrupt leaves of the frames that were begun ahead, whatever computes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def check_frames_are_given_up(
    frames: Any, planes: Callable[[int], Sequence[NDArray[Any]]], computes: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begin 21 frames, interrupt the first, and see that few tiles of the others are computed.

    Args:
        frames: upscales frames of several tiles; has ``begin``.
        planes: those of the frame of a number.
        computes: what computes a tile by its method ``run``.
    """
    computed: list[None] = []
    tiles = 0
    interrupted, others = threading.Event(), set(threading.enumerate())
    run = computes.run  # type: ignore[attr-defined]

    def counted(this: Any, context: Any, tile: Any) -> Any:
        computed.append(None)
        if len(computed) > tiles + 4 > 4:
            interrupted.wait(60)
        return run(this, context, tile)

    def interrupt(*_: int) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(computes, "run", counted)
    whole = frames.begin(planes(0))()
    tiles = len(computed)
    finish = frames.begin(planes(0), interrupt)
    for number in range(20):
        frames.begin(planes(number))
    with pytest.raises(KeyboardInterrupt):
        finish()
    for thread in set(threading.enumerate()) - others:
        thread.join(60)
    assert len(computed) < 20 * tiles
    for one, other in zip(frames.begin(planes(0))(), whole, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
