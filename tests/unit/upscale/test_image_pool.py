"""Images in flight share one network, and end soon when one of them fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import Interrupted
from repsr_cli.image.files import open_image, write_image
from repsr_cli.image.page import page_of
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Progress, Reporter
from repsr_cli.upscale.executors.local import Local
from repsr_cli.upscale.image_pool import IN_FLIGHT, run_at_once
from repsr_cli.upscale.image_sinks import sink_for
from repsr_cli.upscale.models import ModelCache
from repsr_cli.upscale.plan_image import ImagePlan, plan_image
from repsr_cli.upscale.request import Request
from tests.upscaling import weight


def plans(folder: Path, count: int) -> list[ImagePlan]:
    """Images of two tiles, each of one colour."""
    request = Request.of(scale=2.0, tile="8", device="cpu", overwrite=True)
    made = []
    for number in range(count):
        source = folder / f"{number}.png"
        write_image(source, [page_of(np.full((16, 8, 3), number, np.uint8))])
        made.append(plan_image(source, folder / f"{number}_x2.png", request, weight(2)))
    return made


def executor() -> Local:
    models = ModelCache()
    models.network(weight(2), lambda _model: identity_network(2))
    return Local(models)


def test_results_come_in_order_and_overlap() -> None:
    together = threading.Barrier(IN_FLIGHT, timeout=10)

    def work(number: int, _stop: threading.Event) -> int:
        together.wait()
        time.sleep(0.02 * (IN_FLIGHT - number % IN_FLIGHT))
        return number

    assert list(run_at_once(work, range(2 * IN_FLIGHT))) == list(range(2 * IN_FLIGHT))


def test_the_network_serves_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inside = 0
    most = 0
    real = Upscaler.__call__

    def watched(self: Upscaler, lr: torch.Tensor, *more: Any) -> torch.Tensor:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return real(self, lr, *more)

    monkeypatch.setattr(Upscaler, "__call__", watched)
    shared, seen = executor(), list[tuple[str, int, int | None]]()

    def work(plan: ImagePlan, stop: threading.Event) -> None:
        def progress(step: Progress) -> None:
            seen.append((plan.source.stem, step.done, step.total))

        shared.run(plan, sink_for(plan), Reporter(progress), stop)

    several = plans(tmp_path, 6)
    list(run_at_once(work, several))
    assert most == 1
    for number, plan in enumerate(several):
        (page,) = open_image(plan.target).pages()
        assert (page.read().pixels == number).all()
    assert sorted(seen) == [(str(number), done, 2) for number in range(6) for done in (1, 2)]


def test_an_error_ends_the_others_soon(tmp_path: Path) -> None:
    shared = executor()
    started, ended = threading.Event(), list[str]()

    def work(plan: ImagePlan, stop: threading.Event) -> None:
        if plan.source.stem == "0":
            started.wait(10)
            raise ZeroDivisionError
        try:
            while True:
                shared.run(plan, sink_for(plan), Reporter(lambda _step: started.set()), stop)
        except Interrupted:
            ended.append(plan.source.stem)
            raise

    with pytest.raises(ZeroDivisionError):
        list(run_at_once(work, plans(tmp_path, 20)))
    assert set(ended) <= {"1", "2", "3"}
    assert ended


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_fewer_threads_where_the_system_allows_no_more(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    alive = list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        alive[:] = [each for each in alive if each.is_alive()]
        if len(alive) >= allowed:
            raise RuntimeError("can't start new thread")
        start(thread)
        alive.append(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    assert list(run_at_once(lambda number, _stop: number * 2, range(9), 4)) == [number * 2 for number in range(9)]
