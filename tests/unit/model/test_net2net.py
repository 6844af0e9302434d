"""model/net2net.py: a grown network computes the same, and all of it can learn."""

from __future__ import annotations

import pytest
import torch

from repsr_cli.model.net2net import grow
from repsr_cli.model.plain import PlainSR, Spec


def random_network(spec: Spec) -> PlainSR:
    net = PlainSR(spec)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return net


@pytest.mark.parametrize("spec", [Spec(2, 5, 3), Spec(2, 9, 3), Spec(2, 5, 7), Spec(2, 8, 6)])
def test_a_grown_network_gives_the_same(spec: Spec) -> None:
    small = random_network(Spec(2, 5, 3))
    large = grow(small, spec).double()
    small = small.double()
    assert large.spec == spec
    lr = torch.rand(2, 3, 11, 13, dtype=torch.float64)
    with torch.no_grad():
        assert (large(lr) - small(lr)).abs().max() < 1e-10


def test_everything_new_learns() -> None:
    large = grow(random_network(Spec(2, 5, 1)), Spec(2, 8, 3))
    optimizer = torch.optim.SGD(large.parameters(), lr=1e-3)
    before = [parameter.detach().clone() for parameter in large.parameters()]
    lr, hr = torch.rand(1, 3, 9, 9), torch.rand(1, 3, 18, 18)
    for _ in range(3):  # the new channels learn from the second step on, when the tail begins to listen
        optimizer.zero_grad()
        (large(lr) - hr).square().mean().backward()
        optimizer.step()
    for was, now in zip(before, large.parameters(), strict=True):
        assert (was != now).flatten(1).any(1).all() if now.ndim == 4 else (was != now).any()


@pytest.mark.parametrize("spec", [Spec(3, 8, 3), Spec(2, 4, 3), Spec(2, 8, 2), Spec(2, 8, 3, colors=1)])
def test_what_cannot_be_reached_by_growing(spec: Spec) -> None:
    with pytest.raises(ValueError, match="cannot grow into"):
        grow(PlainSR(Spec(2, 5, 3)), spec)
