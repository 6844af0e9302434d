"""training/distributed.py: processes find each other, also in a store that an earlier start has used."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch.distributed as dist
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]  # public, not re-exported

from repsr_cli.training.distributed import process_group, store_of_this_start


def meet(store: Store, order: tuple[int, ...]) -> list[Store]:
    """The stores of ranks that start in ``order``, each when the one before has had time to read the store."""
    with ThreadPoolExecutor(len(order)) as pool:
        futures = {}
        for rank in order:
            futures[rank] = pool.submit(store_of_this_start, store, rank, len(order), 20.0)
            Event().wait(0.06)
        return [futures[rank].result() for rank in sorted(order)]


def test_ranks_of_one_start_share_a_part_of_the_store_in_any_order() -> None:
    store = HashStore()
    for number, order in enumerate(itertools.permutations(range(3))):
        own = meet(store, order)
        assert not own[0].check(["address"]), "what an earlier start wrote is seen"
        own[0].set("address", str(number))
        assert [each.get("address") for each in own] == [str(number).encode()] * 3


def test_a_start_that_died_half_way_is_ignored() -> None:
    store = HashStore()
    store.set("start", "old")
    store.set("old/1", "dead")
    first, second = meet(store, (1, 0))
    first.set("address", "here")
    assert second.get("address") == b"here"


@pytest.mark.parametrize("rank", [0, 1])
def test_waiting_ends_with_an_error(rank: int) -> None:
    with pytest.raises(dist.DistStoreError, match="did not start in time"):
        store_of_this_start(HashStore(), rank, 2, timeout=0.1)


def test_a_process_alone_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with process_group(on_gpu=False) as found:
        assert found == (0, 1)
        assert not dist.is_initialized()
