"""Torch's threads are set for a while, and by nothing for good."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from repsr_cli.engine.planes import PlaneUpscaler
from repsr_cli.engine.threads import torch_threads
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import identity_network
from tests.unit.engine.test_reusing_frames import LEFT, frame


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_restored() -> None:
    with torch_threads(1):
        assert torch.get_num_threads() == 1
        with torch_threads(None):
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), torch_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 4])
def test_an_upscaler_computes_with_its_threads_and_leaves_the_others_theirs(threads: Any) -> None:
    upscaler = Upscaler(identity_network(2), device="cpu", tile="off", threads=threads)
    assert torch.get_num_threads() == 2
    seen = []
    upscaler(torch.rand(1, 3, 8, 8), lambda *_: seen.append(torch.get_num_threads()))
    PlaneUpscaler(upscaler, LEFT, LEFT)(frame(LEFT), lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [threads, threads]
    assert torch.get_num_threads() == 2
