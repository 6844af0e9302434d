"""Upscale several images at once.

Small ones on a CPU go side by side, each on one core with a network of its own: cores that share a small image wait
for each other more than they compute. All others share one network: one is read and one written while it computes a
third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

IN_FLIGHT = 3


def threads_allowed(wanted: int) -> int:
    """How many of so many threads the system allows at a time."""
    over, started = Event(), list[Thread]()
    try:
        for _ in range(wanted):
            thread = Thread(target=over.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:  # a limit of the user, or of a container
        pass
    finally:
        over.set()
        for thread in started:
            thread.join()
    return len(started)


def run_at_once(
    work: Callable[[Job, Event], Result], jobs: Iterable[Job], at_once: int = IN_FLIGHT
) -> Iterator[Result]:
    """Results of ``work`` in the order of the jobs, several of which are worked on at once.

    Whatever ends the caller's loop early (Ctrl-C, a bug) ends the work in flight as well, before it is raised.

    Args:
        work: gets a job and an event that is set when its result is not wanted any more.
    """
    stop = Event()
    at_once = min(at_once, threads_allowed(at_once))
    if at_once < 2:
        yield from (work(job, stop) for job in jobs)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="image") as pool:
        futures = [pool.submit(work, job, stop) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
