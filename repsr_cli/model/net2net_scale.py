"""A network of another factor that begins as one that is trained: its tail, read between the pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from repsr_cli.model.plain import PlainSR, Spec


def between(scale: int, wanted: int) -> Tensor:
    """Weights that read the ``scale`` pixels an LR pixel becomes, along one axis, at the places of ``wanted`` ones.

    Linear between two neighbours, and on beyond the outermost; from a single pixel its copies.

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
def change_factor(net: PlainSR, scale: int) -> PlainSR:
    """The same network with a tail for another factor, to train on from there.

    Args:
        net: the network to start from; left untouched.
        scale: the factor to reach.

    Returns:
        A network whose output is about that of ``net``, resized; equal to it where ``scale`` is the same.
    """
    old = net.spec
    other = PlainSR(Spec(scale, old.channels, old.blocks, old.colors))
    own, theirs = other.state_dict(), net.state_dict()
    taps = between(old.scale, scale)
    for key, value in theirs.items():
        if own[key].shape != value.shape:  # the tail, whose channels are colour, row and column of a pixel
            rows = value.double().unflatten(0, (old.colors, old.scale, old.scale))
            own[key] = torch.einsum("ai,bj,cij...->cab...", taps, taps, rows).flatten(0, 2)
        else:
            own[key] = value
    other.load_state_dict(own)
    return other
