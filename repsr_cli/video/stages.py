"""Three stages at once: a thread that gives, the caller's that works, a thread that takes.

Between them are queues bounded in bytes, so that memory does not grow with the length of a video. An exception in any
stage ends the others and is raised in the caller.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from repsr_cli.errors import DeviceError

In = TypeVar("In")
Out = TypeVar("Out")
Item = TypeVar("Item")

# A few frames of 4K, a second or more of anything smaller.
QUEUE_BYTES = 32 * 2**20


class _Stopped(Exception):
    """Another stage failed; this one ends quietly."""


class ByteQueue(Generic[Item]):
    """A queue that holds so many bytes, or one item if that is larger.

    Args:
        limit: bytes.
        stopped: set when all shall end.
    """

    def __init__(self, limit: int, stopped: threading.Event) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._limit = limit
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._stopped = stopped

    def put(self, item: Item, nbytes: int) -> None:
        """Add an item when there is room."""
        with self._changed:
            while self._items and self._bytes + nbytes > self._limit:
                self._wait()
            self._raise_if_stopped()
            self._items.append((item, nbytes))
            self._bytes += nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will come."""
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
        # With a limit, so that Ctrl-C reaches the main thread, and a stop every thread.
        self._changed.wait(0.2)

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped


class Stopwatch:
    """Adds up the seconds that a stage is at work, not waiting for its neighbours."""

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
    """Results in order, the next ones begun before the last is waited for.

    Args:
        items: what to work on.
        work: as in ``run_stages``.
        watch: times the work.
        ahead: as in ``run_stages``.
    """
    begun: deque[Callable[[], Out]] = deque()
    for item in items:
        with watch.running():
            begun.append(work(item))
        while len(begun) > ahead():
            with watch.running():
                result = begun.popleft()()
            yield result
    for finish in begun:
        with watch.running():
            result = finish()
        yield result


def run_stages(
    give: Callable[[], Iterator[In]],
    work: Callable[[In], Callable[[], Out]],
    take: Callable[[Iterator[Out]], None],
    size_in: Callable[[In], int],
    size_out: Callable[[Out], int],
    limit: int = QUEUE_BYTES,
    stopped: threading.Event | None = None,
    ahead: Callable[[], int] = lambda: 1,
) -> dict[str, float]:
    """Run three stages until the first has no more to give.

    Args:
        give: makes items, in a thread.
        work: begins to turn one into another, and returns what waits for the end, in the calling thread. The next
            ones are begun before the end of the last is waited for, so that nothing rests between them.
        take: consumes the results, in a thread.
        size_in: bytes of an item.
        size_out: bytes of a result.
        limit: bytes per queue.
        stopped: of a run beside this one, which ends with it if either fails.
        ahead: how many items to begin before the first of them is waited for; asked after each.

    Returns:
        Seconds each stage was at work: ``decode``, ``network``, ``encode``; and ``wall``.

    Raises:
        DeviceError: the system allows no further thread.
        BaseException: whatever a stage raised first.
    """
    stopped = stopped or threading.Event()
    errors: list[BaseException] = []
    given: ByteQueue[In] = ByteQueue(limit, stopped)
    made: ByteQueue[Out] = ByteQueue(limit, stopped)
    watches = {name: Stopwatch() for name in ("decode", "network")}
    taking = [0.0]
    began = time.perf_counter()

    def giver() -> None:
        for item in watches["decode"].over(give()):
            given.put(item, size_in(item))
        given.close()

    def taker() -> None:
        idle = Stopwatch()
        start = time.perf_counter()
        take(idle.over(iter(made)))
        taking[0] = time.perf_counter() - start - idle.seconds

    def guarded(stage: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                stage()
            except _Stopped:
                pass
            except BaseException as error:  # carried over to the caller, whatever it is
                errors.append(error)
                stopped.set()

        return run

    threads = [threading.Thread(target=guarded(stage), name=stage.__name__) for stage in (giver, taker)]
    running = []
    try:
        for thread in threads:
            _start(thread)
            running.append(thread)
        for result in begun_ahead(given, work, watches["network"], ahead):
            made.put(result, size_out(result))
        made.close()
        while threads[1].is_alive():
            threads[1].join(0.2)
    except _Stopped:
        pass
    except BaseException:
        stopped.set()
        raise
    finally:
        for thread in running:
            thread.join()
    if errors:
        raise errors[0]
    return {
        "decode": watches["decode"].seconds,
        "network": watches["network"].seconds,
        "encode": taking[0],
        "wall": time.perf_counter() - began,
    }


def _start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        DeviceError: there is no memory for it, or there are too many.
    """
    try:
        thread.start()
    except RuntimeError as error:
        remedy = "Free memory, or allow more processes (ulimit -u)."
        raise DeviceError("threads", f"no further one can be started ({error})", remedy) from error
