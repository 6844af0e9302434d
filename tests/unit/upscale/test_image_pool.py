"""upscale/image_pool.py: images in flight, one network."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from repsr_cli.engine.runner import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import Interrupted
from repsr_cli.model.plain import identity_network
from repsr_cli.upscale.image_pool import IN_FLIGHT, Turns


def test_results_come_in_order_and_overlap() -> None:
    together = threading.Barrier(IN_FLIGHT, timeout=10)

    def work(number: int) -> int:
        together.wait()
        time.sleep(0.02 * (IN_FLIGHT - number % IN_FLIGHT))
        return number

    assert list(Turns().run(work, range(2 * IN_FLIGHT))) == list(range(2 * IN_FLIGHT))


def test_the_network_serves_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = 0
    most = 0
    real = Upscaler.__call__

    def watched(self: Upscaler, lr: torch.Tensor, progress: Progress | None = None) -> torch.Tensor:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return real(self, lr, progress)

    monkeypatch.setattr(Upscaler, "__call__", watched)
    turns, shared = Turns(), Upscaler(identity_network(2), tile=8)
    seen: list[tuple[int, int, int]] = []

    def work(number: int) -> torch.Tensor:
        lr = torch.full((1, 3, 16, 8), float(number))
        return turns.share(shared)(lr, lambda done, total: seen.append((number, done, total)))

    results = list(turns.run(work, range(6)))
    assert most == 1
    assert [float(result.mean()) for result in results] == [0, 1, 2, 3, 4, 5]
    assert sorted(seen) == [(number, done, 2) for number in range(6) for done in (1, 2)]


def test_an_error_ends_the_others_soon() -> None:
    turns, shared = Turns(), Upscaler(identity_network(2), tile=1)
    started, ended = threading.Event(), []

    def work(number: int) -> None:
        if number == 0:
            started.wait(10)
            raise ZeroDivisionError
        view = turns.share(shared)
        try:
            while True:
                view(torch.zeros(1, 3, 8, 8), lambda _done, _total: started.set())
        except Interrupted:
            ended.append(number)
            raise

    with pytest.raises(ZeroDivisionError):
        list(turns.run(work, range(100)))
    assert set(ended) <= {1, 2, 3}
    assert ended
