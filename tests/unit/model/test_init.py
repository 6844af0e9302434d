"""model/init.py: a fresh network interpolates, in every form, and all of it can learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from repsr_cli.model.init import colour_by_interpolation, interpolation_kernels, start_as_interpolation
from repsr_cli.model.net2net import grow
from repsr_cli.model.plain import LUMA, PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.model.spec import Spec


def form(kind: str, spec: Spec) -> PlainSR | RepSR:
    net = PlainSR(spec) if kind == "plain" else RepSR(spec, norm=kind == "repsr")
    start_as_interpolation(net)
    return net.double()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["plain", "rep", "repsr"])
def test_ramps_and_parabolas_come_out_exactly(kind: str, scale: int) -> None:
    net = form(kind, Spec(scale, 6, 2))
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(9.0), indexing="ij")
    colors = [0.1 + 0.02 * x, 0.9 - 0.03 * y, 0.004 * x * x - 0.002 * y * y]
    lr = torch.stack(colors)[None].double()
    at_y, at_x = torch.meshgrid(
        (torch.arange(12.0 * scale) + 0.5) / scale - 0.5, (torch.arange(9.0 * scale) + 0.5) / scale - 0.5, indexing="ij"
    )
    hr = torch.stack([0.1 + 0.02 * at_x, 0.9 - 0.03 * at_y, 0.004 * at_x**2 - 0.002 * at_y**2])[None].double()
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    with torch.no_grad():
        assert (net(lr) - hr)[inside].abs().max() < 1e-6
        if isinstance(net, RepSR):
            assert (fuse(net)(lr) - hr)[inside].abs().max() < 1e-6


def test_it_is_nearer_than_the_skip_alone() -> None:
    hr = F.interpolate(
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), scale_factor=8, mode="bicubic"
    )
    lr = F.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True)
    with torch.no_grad():
        ours = form("plain", Spec(2, 8, 3)).float()(lr)
    skip = F.interpolate(lr, scale_factor=2, mode="nearest")
    inside = (..., slice(4, -4), slice(4, -4))
    assert (ours - hr)[inside].abs().mean() < 0.3 * (skip - hr)[inside].abs().mean()


def test_kernels_sum_to_one() -> None:
    for scale in (1, 2, 3, 4, 8):
        assert torch.allclose(interpolation_kernels(scale).sum((1, 2)), torch.ones(scale * scale).double())


@pytest.mark.parametrize("kind", ["plain", "rep", "repsr"])
def test_every_convolution_learns(kind: str) -> None:
    net = form(kind, Spec(2, 6, 2)).float().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    lr, hr = torch.randn(2, 3, 9, 9), torch.rand(2, 3, 18, 18)  # below zero too, where PReLU has its slope
    for _ in range(3):
        optimizer.zero_grad()
        (net(lr) - hr).square().mean().backward()
        optimizer.step()
    for name, now in net.named_parameters():
        assert (before[name] != now).any(), name


def test_too_few_channels() -> None:
    with pytest.raises(ValueError, match="too few channels"):
        start_as_interpolation(PlainSR(Spec(2, 2, 1)))


def test_colour_by_interpolation_keeps_luma_and_smooths_colour() -> None:
    small = PlainSR(Spec(2, 5, 2)).double()
    large = grow(small.float(), Spec(2, 9, 4)).double()
    colour_by_interpolation(large, 5)
    luma = torch.tensor(LUMA).double()
    lr = torch.rand(1, 3, 12, 11, dtype=torch.float64)
    with torch.no_grad():
        sr, before, smooth = large(lr), small.double()(lr), form("plain", Spec(2, 6, 1))(lr)
    inside = (..., slice(2, -2), slice(2, -2))  # an image's border is padded with zeros once or five times
    ours, theirs, colour = (torch.einsum("c,nchw->nhw", luma, image)[:, None] for image in (sr, before, smooth))
    assert (ours - theirs)[inside].abs().max() < 1e-6
    assert ((sr - ours) - (smooth - colour))[inside].abs().max() < 1e-6


@pytest.mark.parametrize(("spec", "first"), [(Spec(2, 7, 2), 5), (Spec(2, 8, 2, colors=1), 5)])
def test_colour_needs_three_channels_of_its_own(spec: Spec, first: int) -> None:
    with pytest.raises(ValueError, match="too few channels for three colours"):
        colour_by_interpolation(PlainSR(spec), first)
