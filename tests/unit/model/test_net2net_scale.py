"""model/net2net_scale.py: a tail for another factor gives about the same image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from repsr_cli.model.init import start_as_interpolation
from repsr_cli.model.net2net_scale import between, change_factor
from repsr_cli.model.plain import PlainSR, Spec


@pytest.mark.parametrize(("scale", "wanted"), [(1, 3), (2, 3), (2, 4), (3, 2), (4, 2), (4, 3), (8, 3)])
def test_straight_lines_are_read_exactly(scale: int, wanted: int) -> None:
    def place(count: int) -> torch.Tensor:
        return (torch.arange(count, dtype=torch.float64) + 0.5) / count

    values = 3 * place(scale) - 1
    expected = 3 * place(wanted) - 1 if scale > 1 else torch.full((wanted,), 0.5).double()
    assert torch.allclose(between(scale, wanted) @ values, expected)


def test_the_same_factor_is_the_same_network() -> None:
    net = PlainSR(Spec(3, 6, 2))
    same = change_factor(net, 3)
    for key, value in net.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)
        assert same.state_dict()[key].data_ptr() != value.data_ptr()


@pytest.mark.parametrize(("scale", "wanted"), [(2, 3), (2, 4), (3, 2), (3, 4), (4, 2), (4, 3)])
def test_another_factor_resizes_the_output(scale: int, wanted: int) -> None:
    net = PlainSR(Spec(scale, 6, 2))
    start_as_interpolation(net)
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(9.0), indexing="ij")
    lr = torch.stack([0.1 + 0.02 * x, 0.9 - 0.03 * y, 0.2 + 0.01 * x + 0.01 * y])[None]  # interpolated exactly
    with torch.no_grad():
        ours = change_factor(net, wanted)(lr)
    expected = F.interpolate(lr, scale_factor=wanted, mode="bilinear")
    inside = (..., slice(wanted, -wanted), slice(wanted, -wanted))
    assert (ours - expected)[inside].abs().max() < 1e-5


def test_one_colour_keeps_its_own() -> None:
    assert change_factor(PlainSR(Spec(4, 5, 1, colors=1)), 2).spec == Spec(2, 5, 1, colors=1)


def test_a_tail_of_equal_shape_is_no_special_case() -> None:
    net = PlainSR(Spec(2, 12, 1))  # twelve channels in the body and in the tail
    assert change_factor(net, 3).spec == Spec(3, 12, 1)
