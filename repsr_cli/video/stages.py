"""Run decoding, the network and encoding at the same time, in three threads.

The queues between them are bounded in bytes, so that memory does not grow with the length of a video. An exception in
any stage ends the others and is raised in the caller.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from repsr_cli.errors import DeviceError

In = TypeVar("In")
Out = TypeVar("Out")
Item = TypeVar("Item")

# A few frames of 4K, or a second of smaller ones.
QUEUE_BYTES = 32 * 2**20


class _Stopped(Exception):
    """Another stage failed, so this one ends."""


class ByteQueue(Generic[Item]):
    """A queue that holds a number of bytes, or one item if that is larger.

    Args:
        limit: bytes.
        stopped: set when all stages are to end.
    """

    def __init__(self, limit: int, stopped: threading.Event) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._limit = limit
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._stopped = stopped

    def put(self, item: Item, nbytes: int) -> None:
        """Add an item as soon as it fits."""
        with self._changed:
            while self._items and self._bytes + nbytes > self._limit:
                self._wait()
            self._raise_if_stopped()
            self._items.append((item, nbytes))
            self._bytes += nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration after the items that are in the queue."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._wait()
                self._raise_if_stopped()
                if not self._items:
                    return
                item, nbytes = self._items.popleft()
                self._bytes -= nbytes
                self._changed.notify_all()
            yield item

    def _wait(self) -> None:
        self._raise_if_stopped()
        # With a timeout, so that Ctrl-C reaches the main thread, and a stop reaches every thread.
        self._changed.wait(0.2)

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped


class Stopwatch:
    """Adds up the seconds that a stage is busy, without those it waits for another."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def over(self, items: Iterator[Item]) -> Iterator[Item]:
        """Time the making of items."""
        while True:
            with self.running():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def begun_ahead(
    items: Iterable[In], work: Callable[[In], Callable[[], Out]], watch: Stopwatch, ahead: Callable[[], int]
) -> Iterator[Out]:
    """Results in order; the next ones are started before the last is waited for.

    Args:
        ahead: as in ``Stages``.
    """
    begun: deque[Callable[[], Out]] = deque()

    def finished() -> Out:
        with watch.running():
            return begun.popleft()()

    for item in items:
        with watch.running():
            begun.append(work(item))
        while len(begun) > ahead():
            yield finished()
    while begun:
        yield finished()


@dataclass(frozen=True, slots=True)
class Stages(Generic[In, Out]):
    """Three functions that make up a pipeline, and how far each may run ahead of the next.

    Attributes:
        give: makes items, in a thread.
        work: starts to turn one item into a result and returns a function that waits for it, in the calling thread.
            The next items are started before the last is waited for, so that the device is never idle.
        take: consumes the results, in a thread.
        size_in: bytes of an item.
        size_out: bytes of a result.
        limit: bytes per queue.
        ahead: how many items to start before the first of them is waited for; asked after each.
    """

    give: Callable[[], Iterator[In]]
    work: Callable[[In], Callable[[], Out]]
    take: Callable[[Iterator[Out]], None]
    size_in: Callable[[In], int]
    size_out: Callable[[Out], int]
    limit: int = QUEUE_BYTES
    ahead: Callable[[], int] = lambda: 1


def run_stages(stages: Stages[In, Out], stopped: threading.Event | None = None) -> dict[str, float]:
    """Run three stages until the first has no more to give.

    Args:
        stopped: shared with a run on another device; both end if either fails.

    Returns:
        Seconds each stage was busy: ``decode``, ``network``, ``encode``; and ``wall``.

    Raises:
        DeviceError: the system allows no further thread.
        BaseException: whatever a stage raised first.
    """
    stopped = stopped or threading.Event()
    given: ByteQueue[In] = ByteQueue(stages.limit, stopped)
    made: ByteQueue[Out] = ByteQueue(stages.limit, stopped)
    decoding, working, waiting = Stopwatch(), Stopwatch(), Stopwatch()
    encoding = Stopwatch()
    began = time.perf_counter()

    def giver() -> None:
        for item in decoding.over(stages.give()):
            given.put(item, stages.size_in(item))
        given.close()

    def taker() -> None:
        with encoding.running():
            stages.take(waiting.over(iter(made)))

    threads = _Threads(stopped)
    try:
        threads.start(giver)
        threads.start(taker)
        for result in begun_ahead(given, stages.work, working, stages.ahead):
            made.put(result, stages.size_out(result))
        made.close()
        threads.wait()
    except _Stopped:
        pass
    except BaseException:
        stopped.set()
        raise
    finally:
        threads.join()
    if threads.errors:
        raise threads.errors[0]
    return {
        "decode": decoding.seconds,
        "network": working.seconds,
        "encode": encoding.seconds - waiting.seconds,
        "wall": time.perf_counter() - began,
    }


class _Threads:
    """Threads that stop one another when one of them fails.

    Args:
        stopped: set on the first failure.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self.errors: list[BaseException] = []
        self._stopped = stopped
        self._running: list[threading.Thread] = []

    def start(self, stage: Callable[[], None]) -> None:
        """Start a thread.

        Raises:
            DeviceError: there is no memory for it, or there are too many.
        """
        thread = threading.Thread(target=self._run, args=(stage,), name=stage.__name__)
        try:
            thread.start()
        except RuntimeError as error:
            remedy = "Free memory, or allow more processes (ulimit -u)."
            raise DeviceError("threads", f"no further one can be started ({error})", remedy) from error
        self._running.append(thread)

    def wait(self) -> None:
        """Wait for all threads; Ctrl-C interrupts this, unlike ``join``."""
        for thread in self._running:
            while thread.is_alive():
                thread.join(0.2)

    def join(self) -> None:
        """Wait for all threads."""
        for thread in self._running:
            thread.join()

    def _run(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except _Stopped:
            pass
        except BaseException as error:  # raised again in the calling thread
            self.errors.append(error)
            self._stopped.set()
