"""Interpolate between the weights of two networks of one size."""

from __future__ import annotations

import torch

from repsr_cli.model.arrays import mixed
from repsr_cli.model.plain import PlainSR


def blended(first: PlainSR, second: PlainSR, share: float) -> PlainSR:
    """A network whose weights lie between those of two others.

    NumPy multiplies and adds in float64, one after the other, so the result is the same on every machine.

    Args:
        first: left untouched, and so is ``second``.
        second: of the same size.
        share: of the second; 0 gives exactly the first, 1 the second.
    """
    if first.spec != second.spec:
        raise ValueError(f"{first.spec} and {second.spec} cannot be mixed")
    others, made = second.state_dict(), {}
    for name, weights in first.state_dict().items():
        made[name] = torch.from_numpy(mixed(weights.numpy(), others[name].numpy(), share))
    net = PlainSR(first.spec)
    net.load_state_dict(made)
    return net.eval()
