"""The decode, network and encode stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from repsr_cli.errors import DeviceError
from repsr_cli.video.stages import ByteQueue, Stages, run_stages


def test_stages_keep_the_order_and_say_how_busy_they_were() -> None:
    taken: list[int] = []
    busy = run_stages(
        Stages(lambda: iter(range(50)), lambda n: lambda: n * n, taken.extend, lambda _: 1, lambda _: 1, limit=3)
    )
    assert taken == [n * n for n in range(50)]
    assert set(busy) == {"decode", "network", "encode", "wall"}


@pytest.mark.parametrize("stage", ["give", "work", "finish", "take"])
def test_an_error_in_any_stage_ends_all_at_once(stage: str) -> None:
    class Failed(Exception):
        pass

    def give() -> Iterator[int]:
        for n in range(10**9):
            if stage == "give" and n == 5:
                raise Failed
            yield n

    def work(n: int) -> Callable[[], int]:
        if stage == "work" and n == 5:
            raise Failed

        def finish() -> int:
            if stage == "finish" and n == 5:
                raise Failed
            return n

        return finish

    def take(items: Iterator[int]) -> None:
        for n in items:
            if stage == "take" and n == 5:
                raise Failed

    began = time.perf_counter()
    threads = threading.active_count()
    with pytest.raises(Failed):
        run_stages(Stages(give, work, take, lambda _: 1, lambda _: 1, limit=2))
    assert time.perf_counter() - began < 3
    assert threading.active_count() == threads


def test_the_next_one_is_begun_before_the_last_is_waited_for() -> None:
    calls: list[str] = []

    def work(n: int) -> Callable[[], int]:
        calls.append(f"begin {n}")

        def finish() -> int:
            calls.append(f"end {n}")
            return n

        return finish

    taken: list[int] = []
    run_stages(Stages(lambda: iter(range(3)), work, taken.extend, lambda _: 1, lambda _: 1))
    assert taken == [0, 1, 2]
    assert calls == ["begin 0", "begin 1", "end 0", "begin 2", "end 1", "end 2"]


def test_where_no_thread_can_be_started_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "taker":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(DeviceError, match="can't start new thread"):  # the giver, which could wait for ever, ends too
        run_stages(
            Stages(lambda: iter(range(50)), lambda n: lambda: n, list[int]().extend, lambda _: 1, lambda _: 1, limit=2)
        )


def test_queues_are_bounded_in_bytes_but_let_one_large_item_pass() -> None:
    stopped = threading.Event()
    queue: ByteQueue[int] = ByteQueue(10, stopped)
    queue.put(0, 1000)

    def give() -> None:
        queue.put(1, 1)
        queue.close()

    thread = threading.Thread(target=give)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    assert list(queue) == [0, 1]
    thread.join()
