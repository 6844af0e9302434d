"""Set initial weights so that a network interpolates before its first training step.

Most of an image's detail is common to its channels, so a small network with random weights learns one residual for all
of them, leaves colour to the nearest-neighbour skip, and hardly ever improves on that. Here the first channels carry
the image through the network, and the tail interpolates it. The other channels are random; the tail's weights for them
start at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repsr_cli.model.plain import LUMA, PlainSR
from repsr_cli.model.repsr import ExpandSqueeze, RepSR


def interpolation_kernels(scale: int) -> Tensor:
    """Quadratic interpolation from 3x3 neighbours, one kernel for each of the scale**2 pixels of an LR pixel.

    Returns:
        (scale**2, 3, 3) float64, in the order of a pixel shuffle; each sums to one.

    Source: the Lagrange polynomial through three samples.
    """
    offset = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = torch.stack([offset * (offset - 1) / 2, 1 - offset.square(), offset * (offset + 1) / 2], dim=1)
    return torch.einsum("iy,jx->ijyx", taps, taps).reshape(scale * scale, 3, 3)


@torch.no_grad()
def start_as_interpolation(net: PlainSR | RepSR) -> None:
    """Set the weights of a fresh network so that it interpolates.

    Args:
        net: with at least as many channels as colours; changed in place.

    Raises:
        ValueError: too few channels.
    """
    colors, scale = net.spec.colors, net.spec.scale
    if net.spec.channels < colors:
        raise ValueError(f"{net.spec.name} has too few channels to carry {colors} colours")
    if isinstance(net, PlainSR):
        head, *body, tail = net.convolutions
        activations = net.activations
        for layer in body:
            pass_through(layer, slice(0, colors), slice(0, colors))
    else:
        head, tail = net.head, net.tail
        activations = [layer for layer in net.activations if isinstance(layer, nn.PReLU)]
        for path in net.modules():
            if isinstance(path, ExpandSqueeze):
                _zero(path.squeeze, slice(0, colors))  # leaves the block's identity path
    pass_through(head, slice(0, colors), slice(0, colors))
    for activation in activations:
        activation.weight[:colors] = 1
    _zero(tail, slice(None))
    kernels = _residual_kernels(tail, scale)
    for color in range(colors):
        tail.weight[color * scale * scale : (color + 1) * scale * scale, color] = kernels


@torch.no_grad()
def colour_by_interpolation(net: PlainSR, first: int) -> None:
    """Keep a network's luma, and interpolate its colour from three new channels that carry the image.

    For a network grown from one that improves luma only, whose colour comes from the nearest-neighbour skip: it starts
    with smooth colour edges instead of blocky ones.

    Args:
        net: of three colours; changed in place.
        first: the first of the three channels that carry the image; no other layer may read them yet.

    Raises:
        ValueError: too few channels, or colours other than RGB.
    """
    colors, scale = net.spec.colors, net.spec.scale
    if colors != len(LUMA) or net.spec.channels < first + colors:
        raise ValueError(f"{net.spec.name} has too few channels for three colours from channel {first} on")
    head, *body, tail = net.convolutions
    assert tail.bias is not None
    carriers = slice(first, first + colors)
    pass_through(head, carriers, slice(0, colors))
    for layer in body:
        pass_through(layer, carriers, carriers)
    for activation in net.activations:
        activation.weight[carriers] = 1
    by_color, bias = tail.weight.view(colors, scale * scale, -1, 3, 3), tail.bias.view(colors, -1)
    luma = torch.tensor(LUMA).to(tail.weight)
    by_color.copy_(torch.einsum("k,kpcyx->pcyx", luma, by_color).expand_as(by_color))
    bias.copy_((luma @ bias).expand_as(bias))
    chroma = torch.eye(colors).to(luma) - luma  # a colour less the luma of all three
    by_color[:, :, carriers] = torch.einsum("ok,pyx->opkyx", chroma, _residual_kernels(tail, scale))


def _residual_kernels(tail: nn.Conv2d, scale: int) -> Tensor:
    """Tail weights that, added to the nearest-neighbour skip, interpolate: (scale**2, 3, 3), of the tail's type."""
    kernels = interpolation_kernels(scale)
    kernels[:, 1, 1] -= 1
    return kernels.to(tail.weight)


def _zero(layer: nn.Conv2d, channels: slice) -> None:
    """Make output channels of a layer zero."""
    assert layer.bias is not None
    layer.weight[channels] = 0
    layer.bias[channels] = 0


def pass_through(layer: nn.Conv2d, channels: slice, sources: slice) -> None:
    """Make output channels of a 3x3 convolution copies of input channels."""
    _zero(layer, channels)
    outputs, inputs = (range(part.start, part.stop) for part in (channels, sources))
    layer.weight[outputs, inputs, 1, 1] = 1
