"""Keep encoders from giving threads real-time priority."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Give this thread, and all threads that begin meanwhile, the scheduling that this thread has now.

    Opened by root, SVT-AV1 gives itself and the thread that opens it the highest real-time priority. All that this
    thread starts later inherits it; where as many such threads wait by spinning as there are cores, nothing else runs.
    """
    if sys.platform != "linux":
        yield
        return
    usual, known = _scheduling(0), set(_threads())
    try:
        yield
    finally:
        for thread in (0, *(set(_threads()) - known)):
            # A thread may have ended since, or the system may not allow it: then it did not allow the change either.
            with suppress(OSError):
                if _scheduling(thread) != usual:
                    os.sched_setscheduler(thread, *usual)


def _scheduling(thread: int) -> tuple[int, os.sched_param]:
    return os.sched_getscheduler(thread), os.sched_getparam(thread)


def _threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]
