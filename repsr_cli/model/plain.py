"""Define the network that ships: plain 3x3 convolutions, PReLU, pixel shuffle, nearest-neighbour skip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repsr_cli.model.spec import Spec

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7 2.5.1: of R, G and B, as in the benchmarks


def enlarge(features: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Turn the tail's output into pixels and add the nearest-neighbour skip.

    Args:
        features: (N, colors * scale**2, H, W).
        lr: the network's input, (N, colors, H, W).

    Returns:
        (N, colors, H * scale, W * scale), not clamped.
    """
    # Before the shuffle, the skip is the input repeated scale**2 times per channel: no second full-size image needed.
    return F.pixel_shuffle(features + lr.repeat_interleave(scale * scale, dim=1), scale)


class PlainSR(nn.Module):
    """A VGG-style network in the SRVGGNetCompact layout.

    ``body`` alternates 3x3 convolution (zero padding 1, with bias) and per-channel PReLU and ends in a convolution to
    ``colors * scale**2`` channels. Its keys (``body.0.weight``, ``body.1.weight``, ...) are those that tools for
    "Compact" models expect.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        c = spec.channels
        layers: list[nn.Module] = [nn.Conv2d(spec.colors, c, 3, padding=1), nn.PReLU(c)]
        for _ in range(spec.blocks):
            layers += [nn.Conv2d(c, c, 3, padding=1), nn.PReLU(c)]
        layers.append(nn.Conv2d(c, spec.colors * spec.scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge.

        Args:
            lr: (N, colors, H, W), floating point, RGB in [0, 1].

        Returns:
            sr: (N, colors, H * scale, W * scale), same type and device, not clamped.
        """
        return enlarge(self.body(lr), lr, self.spec.scale)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The 3x3 convolutions, head to tail."""
        return [layer for layer in self.body if isinstance(layer, nn.Conv2d)]

    @property
    def activations(self) -> list[nn.PReLU]:
        """The PReLUs, one after every convolution but the tail."""
        return [layer for layer in self.body if isinstance(layer, nn.PReLU)]


def identity_network(scale: int = 1, channels: int = 3) -> PlainSR:
    """A network that returns exactly the nearest-neighbour enlargement of its input, for tests of everything else."""
    net = PlainSR(Spec(scale=scale, channels=channels, blocks=0))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    return net
