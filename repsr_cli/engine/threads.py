"""Set the number of torch's CPU threads temporarily."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run the block with this many threads of torch, then restore the number there was.

    Torch keeps the number for each thread, and a new thread starts with the number that was set last in any of them.

    Args:
        count: threads, 1 or more; None changes nothing.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
