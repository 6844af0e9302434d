"""Join the processes that torchrun started to train together."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]  # public, not re-exported

_POLL = 0.02  # seconds between two looks at the store


@contextlib.contextmanager
def process_group(on_gpu: bool) -> Iterator[tuple[int, int]]:
    """Join the processes of a ``torchrun`` for the duration of the block; without one, this process is alone.

    Args:
        on_gpu: communicate over NCCL rather than gloo.

    Yields:
        (rank, processes).
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    store, rank, processes = next(rendezvous("env://"))
    store = store_of_this_start(store, rank, processes)
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=processes)
    try:
        yield rank, processes
    finally:
        dist.destroy_process_group()


def store_of_this_start(store: Store, rank: int, processes: int, timeout: float = 600.0) -> Store:
    """The part of a store that only the processes of one start write to.

    torchrun gives restarted processes the store of the processes that died. It still holds their addresses, and a
    process that reads an address before the new one is written waits forever. (torch's prefix per restart was removed
    in pytorch/pytorch#135957; the new store per start that replaced it now survives restarts.) The number of the
    restart cannot serve as a prefix, because each machine counts its own. So rank 0 publishes a random name, the others
    answer with random names of their own, and rank 0 lists the answers. A process that finds its own name in a list
    knows that the list is not an old one.

    Args:
        store: shared by ``processes`` processes, perhaps used before.
        timeout: seconds to wait for the others.

    Raises:
        torch.distributed.DistStoreError: the others did not come in time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    if rank == 0:
        store.set("start", own)
        keys = [f"{own}/{other}" for other in range(1, processes)]
        _wait(store, keys, deadline)
        store.set(f"{own}/all", " ".join(store.get(key).decode() for key in keys))
        return PrefixStore(own, store)
    while True:
        _wait(store, ["start"], deadline)
        start = store.get("start").decode()
        store.set(f"{start}/{rank}", own)
        while store.get("start").decode() == start:
            if store.check([f"{start}/all"]) and own in store.get(f"{start}/all").decode().split():
                return PrefixStore(start, store)
            _pause(deadline)


def _wait(store: Store, keys: list[str], deadline: float) -> None:
    while keys and not store.check(keys):
        _pause(deadline)


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise dist.DistStoreError("the other processes of this run did not start in time")
    time.sleep(_POLL)
