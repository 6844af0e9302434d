"""Losses by name. Floor 3."""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601-7 2.5.1: luma from RGB.
LUMA = (0.299, 0.587, 0.114)


def _distance(difference: Tensor, name: str) -> Tensor:
    if name == "l1":
        return difference.abs().mean()
    if name == "l2":
        return difference.square().mean()
    if name == "charbonnier":
        return (difference.square() + 1e-6).sqrt().mean()
    raise ValueError(f"no loss named {name!r}")


def reconstruction_loss(sr: Tensor, hr: Tensor, name: str, luma: float) -> Tensor:
    """Distance between two pictures on RGB, plus ``luma`` times the same distance on luma.

    Args:
        sr: (N, 3, H, W) in [0, 1], not clamped.
        hr: the same shape.
        name: ``l1``, ``l2`` or ``charbonnier`` (root of square plus 1e-6).
        luma: weight of the luma term, 0 for none.

    Raises:
        ValueError: unknown name.
    """
    difference = sr - hr
    loss = _distance(difference, name)
    if luma:
        weights = torch.tensor(LUMA, dtype=difference.dtype, device=difference.device)
        loss = loss + luma * _distance(torch.einsum("nchw,c->nhw", difference, weights), name)
    return loss
