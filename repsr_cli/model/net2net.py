"""Start a network from a trained one of another size (``grow``) or another scale (``change_scale``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repsr_cli.model.init import pass_through
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.spec import Spec


def grow(small: PlainSR, spec: Spec) -> PlainSR:
    """Widen and deepen a network without changing its output (the idea of Net2Net, arXiv 1511.05641).

    Weights from new channels to old ones, and from new channels to the tail, start at zero. New layers pass the old
    channels through: a kernel that is one in its centre, and a PReLU of slope one. All other weights are drawn as for a
    fresh network, so that no two new channels are alike.

    Args:
        small: left untouched.
        spec: same scale and colours, at least as many channels and blocks.

    Returns:
        A network of that size whose outputs equal those of ``small`` to rounding.

    Raises:
        ValueError: ``spec`` has fewer channels or blocks, or another scale or other colours.
    """
    old = small.spec
    if (spec.scale, spec.colors) != (old.scale, old.colors):
        raise ValueError(f"x{old.scale} with {old.colors} colours cannot grow into x{spec.scale} with {spec.colors}")
    if spec.channels < old.channels or spec.blocks < old.blocks:
        raise ValueError(f"{old.name} cannot grow into {spec.name}, which is smaller")
    large, c = PlainSR(spec), old.channels
    with torch.no_grad():
        for index, (layer, slope) in enumerate(zip(large.convolutions[:-1], large.activations, strict=True)):
            layer.weight[:c, c if index else spec.colors :] = 0
            if index <= old.blocks:
                _copy_into(layer, small.convolutions[index], c)
                slope.weight[:c] = small.activations[index].weight
            else:
                pass_through(layer, slice(0, c), slice(0, c))
                slope.weight[:c] = 1
        tail = large.convolutions[-1]
        tail.weight[:, c:] = 0
        _copy_into(tail, small.convolutions[-1], tail.out_channels)
    return large


def _copy_into(layer: nn.Conv2d, source: nn.Conv2d, outputs: int) -> None:
    """Copy a convolution into the first input channels and the first ``outputs`` output channels of a wider one."""
    assert layer.bias is not None
    assert source.bias is not None
    layer.weight[:outputs, : source.in_channels] = source.weight
    layer.bias[:outputs] = source.bias


def resampling_weights(scale: int, wanted: int) -> Tensor:
    """Weights that resample the ``scale`` pixels of an LR pixel, along one axis, to ``wanted`` pixels.

    Linear between two neighbours and extrapolated beyond the outermost; a single pixel is repeated.

    Returns:
        (wanted, scale) float64; each row sums to one.
    """
    if scale == 1:
        return torch.ones(wanted, 1, dtype=torch.float64)
    place = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale / wanted - 0.5
    left = place.floor().clamp(0, scale - 2).long()
    weights = torch.zeros(wanted, scale, dtype=torch.float64)
    weights[range(wanted), left] = 1 - (place - left)
    weights[range(wanted), left + 1] = place - left
    return weights


@torch.no_grad()
def change_scale(net: PlainSR, scale: int) -> PlainSR:
    """The same network with a tail for another scale, as a starting point for training.

    Args:
        net: left untouched.

    Returns:
        A network whose output approximates that of ``net``, resized; equal to it for the same scale.
    """
    old = net.spec
    other = PlainSR(Spec(scale, old.channels, old.blocks, old.colors))
    own, theirs = other.state_dict(), net.state_dict()
    taps = resampling_weights(old.scale, scale)
    for key, value in theirs.items():
        if own[key].shape != value.shape:  # the tail, whose channels are colour, row and column of a pixel
            rows = value.double().unflatten(0, (old.colors, old.scale, old.scale))
            own[key] = torch.einsum("ai,bj,cij...->cab...", taps, taps, rows).flatten(0, 2)
        else:
            own[key] = value
    other.load_state_dict(own)
    return other
