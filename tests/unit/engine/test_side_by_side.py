"""A video's frames keep all threads busy with tiles of their own, and the bytes do not depend on how many there are."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.side_by_side import frames_ahead, tiles_at_once
from repsr_cli.engine.upscaler import Upscaler
from tests.unit.engine.test_reusing_frames import LEFT, frame, network


@pytest.mark.parametrize(
    ("threads", "tiles", "ahead"), [(1, 2, 1), (2, 2, 1), (2, 1, 2), (8, 2, 4), (8, 40, 1), (32, 2, 16), (64, 32, 1)]
)
def test_so_many_frames_are_begun_that_every_thread_has_a_tile(threads: int, tiles: int, ahead: int) -> None:
    at_once = tiles_at_once(threads)
    assert frames_ahead(at_once, tiles) == ahead
    assert ahead * tiles >= at_once > (ahead - 1) * tiles


def test_four_threads_compute_four_tiles_of_two_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = PlaneUpscaler(Upscaler(network(), "cpu", "fp32", "auto:40000", threads=4), LEFT, LEFT, reuse=False)
    # Goes on only where four are there.
    together, run = threading.Barrier(4, timeout=20), TorchBackend.run

    def meets(this: Any, context: Any, tile: Any) -> Any:
        together.wait()
        assert torch.get_num_threads() == 1
        return run(this, context, tile)

    monkeypatch.setattr(TorchBackend, "run", meets)
    first, second = planes.begin(frame(LEFT)), planes.begin(frame(LEFT, seed=1))
    assert planes.ahead == 2
    first()
    second()


def test_bytes_do_not_depend_on_the_threads() -> None:
    net, frames = network(), [frame(LEFT, seed=seed) for seed in range(6)]
    frames[3] = [plane.copy() for plane in frames[2]]
    frames[3][0][20:30, 20:30] ^= 1
    found = []
    for threads in (2, 7):
        planes = PlaneUpscaler(Upscaler(net, "cpu", "fp32", "auto:9000", threads=threads), LEFT, LEFT)
        waiting, made = deque[Any](), []
        for each in frames:
            waiting.append(planes.begin(each))
            if len(waiting) > planes.ahead:
                made.append(waiting.popleft()())
        made += [finish() for finish in waiting]
        assert planes.reused > 0
        found.append(made)
    for one, other in zip(*found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("side", "threads"), [(100, 2), (40, 1)])
def test_few_tiles_of_an_image_share_the_threads(side: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, run = set(), TorchBackend.run

    def noted(this: Any, context: Any, tile: Any) -> Any:
        seen.add(torch.get_num_threads())
        return run(this, context, tile)

    monkeypatch.setattr(TorchBackend, "run", noted)
    Upscaler(network(), "cpu", tile=side, threads=4)(torch.rand(1, 3, 100, 200))
    assert seen == {threads}
