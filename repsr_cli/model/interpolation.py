"""Initial weights that interpolate: a fresh network enlarges smoothly, colour included, before its first step. Floor 1.

Most of a picture's detail is common to its channels, so a small network drawn at random learns one residual for all of
them and leaves colour to the nearest-neighbour skip, from where it hardly ever gets away. So the first channels carry
the picture itself through the network, and the tail makes an interpolation of it; the others are drawn at random and
are heard as soon as the tail has learned to listen to them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import ExpandSqueeze, RepSR


def interpolation_kernels(scale: int) -> Tensor:
    """Quadratic interpolation by 3x3 neighbours, one kernel for each of the scale**2 pixels that an LR pixel becomes.

    Returns:
        (scale**2, 3, 3) float64, in the order of a pixel shuffle; each sums to one.

    Source: Lagrange's polynomial through three samples.
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
            _pass(layer, colors)
    else:
        head, tail = net.head, net.tail
        activations = [layer for layer in net.activations if isinstance(layer, nn.PReLU)]
        for path in net.modules():
            if isinstance(path, ExpandSqueeze):
                _silence(path.squeeze, colors)  # the block's identity path does the rest
    _pass(head, colors)
    for activation in activations:
        activation.weight[:colors] = 1
    _silence(tail, None)
    kernels = interpolation_kernels(scale)
    kernels[:, 1, 1] -= 1  # the skip's share
    for color in range(colors):
        tail.weight[color * scale * scale : (color + 1) * scale * scale, color] = kernels.to(tail.weight)


def _silence(layer: nn.Conv2d, channels: int | None) -> None:
    """Let the first output channels (None: all) of a layer be zero."""
    assert layer.bias is not None
    layer.weight[:channels] = 0
    layer.bias[:channels] = 0


def _pass(layer: nn.Conv2d, channels: int) -> None:
    """Let the first output channels of a 3x3 convolution be its first input channels."""
    _silence(layer, channels)
    layer.weight[range(channels), range(channels), 1, 1] = 1
