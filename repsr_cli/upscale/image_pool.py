"""Several images in flight at once.

Small ones on a CPU go side by side, each on one core with a network of its own: cores that share a small image wait
for each other more than they compute. All others take turns at one network: one is read and one written while it works
on a third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Event, Lock
from typing import TypeVar

from torch import Tensor

from repsr_cli.engine.runner import Progress
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import Interrupted

Job = TypeVar("Job")
Result = TypeVar("Result")

IN_FLIGHT = 3


class Turns:
    """Threads that work on one image each, and all end soon once ``stop`` is set.

    Args:
        at_once: how many images are in flight.
        apart: each thread has a network of its own; False: they take turns at one.
    """

    def __init__(self, at_once: int = IN_FLIGHT, *, apart: bool = False) -> None:
        self.at_once = at_once
        self.apart = apart
        self.lock = nullcontext() if apart else Lock()
        self.stop = Event()

    def share(self, upscaler: Upscaler) -> Upscaler:
        """A view of an upscaler for one image: its calls wait for their turn, and end once ``stop`` is set."""
        return _Sharing(upscaler, self)

    def run(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Results of ``work`` in the order of the jobs.

        Whatever ends the caller's loop early (Ctrl-C, a bug) ends the work in flight as well, before it goes on up.
        """
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="image") as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in futures:
                    yield future.result()
            finally:
                self.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)


class _Sharing(Upscaler):
    def __init__(self, shared: Upscaler, turns: Turns) -> None:
        vars(self).update(vars(shared))
        self._turns = turns

    def __call__(self, lr: Tensor, progress: Progress | None = None) -> Tensor:
        def go_on(done: int, total: int) -> None:
            self._go_on()
            if progress is not None:
                progress(done, total)

        with self._turns.lock:
            self._go_on()
            return super().__call__(lr, go_on)

    def _go_on(self) -> None:
        if self._turns.stop.is_set():
            raise Interrupted("stopped", "another image in flight ended the run")
