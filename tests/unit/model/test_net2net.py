"""model/net2net.py: a grown network computes the same and trains everywhere; another scale resizes the output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from repsr_cli.model.init import start_as_interpolation
from repsr_cli.model.net2net import change_scale, grow, resampling_weights
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec


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
    for _ in range(
        3
    ):  # the new channels get gradients from the second step on, when the tail's weights for them are not zero
        optimizer.zero_grad()
        (large(lr) - hr).square().mean().backward()
        optimizer.step()
    for was, now in zip(before, large.parameters(), strict=True):
        assert (was != now).flatten(1).any(1).all() if now.ndim == 4 else (was != now).any()


@pytest.mark.parametrize("spec", [Spec(3, 8, 3), Spec(2, 4, 3), Spec(2, 8, 2), Spec(2, 8, 3, colors=1)])
def test_what_cannot_be_reached_by_growing(spec: Spec) -> None:
    with pytest.raises(ValueError, match="cannot grow into"):
        grow(PlainSR(Spec(2, 5, 3)), spec)


@pytest.mark.parametrize(("scale", "wanted"), [(1, 3), (2, 3), (2, 4), (3, 2), (4, 2), (4, 3), (8, 3)])
def test_straight_lines_are_read_exactly(scale: int, wanted: int) -> None:
    def place(count: int) -> torch.Tensor:
        return (torch.arange(count, dtype=torch.float64) + 0.5) / count

    values = 3 * place(scale) - 1
    expected = 3 * place(wanted) - 1 if scale > 1 else torch.full((wanted,), 0.5).double()
    assert torch.allclose(resampling_weights(scale, wanted) @ values, expected)


def test_the_same_scale_is_the_same_network() -> None:
    net = PlainSR(Spec(3, 6, 2))
    same = change_scale(net, 3)
    for key, value in net.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)
        assert same.state_dict()[key].data_ptr() != value.data_ptr()


@pytest.mark.parametrize(("scale", "wanted"), [(2, 3), (2, 4), (3, 2), (3, 4), (4, 2), (4, 3)])
def test_another_scale_resizes_the_output(scale: int, wanted: int) -> None:
    net = PlainSR(Spec(scale, 6, 2))
    start_as_interpolation(net)
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(9.0), indexing="ij")
    lr = torch.stack([0.1 + 0.02 * x, 0.9 - 0.03 * y, 0.2 + 0.01 * x + 0.01 * y])[None]  # interpolated exactly
    with torch.no_grad():
        ours = change_scale(net, wanted)(lr)
    expected = F.interpolate(lr, scale_factor=wanted, mode="bilinear")
    inside = (..., slice(wanted, -wanted), slice(wanted, -wanted))
    assert (ours - expected)[inside].abs().max() < 1e-5


def test_one_colour_keeps_its_own() -> None:
    assert change_scale(PlainSR(Spec(4, 5, 1, colors=1)), 2).spec == Spec(2, 5, 1, colors=1)


def test_a_tail_of_equal_shape_is_resampled_too() -> None:
    net = PlainSR(Spec(2, 12, 1))  # twelve channels in the body and in the tail
    assert change_scale(net, 3).spec == Spec(3, 12, 1)
