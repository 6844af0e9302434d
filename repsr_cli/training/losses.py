"""Compute losses by name."""

from __future__ import annotations

import torch
from torch import Tensor

from repsr_cli.model.plain import LUMA

# ITU-R BT.601-7 2.5.1: the two colour differences, from RGB.
CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def luma_of(rgb: Tensor) -> Tensor:
    """Luma (BT.601) of images (N, 3, H, W): (N, 1, H, W)."""
    weights = torch.tensor(LUMA, dtype=rgb.dtype, device=rgb.device)
    return torch.einsum("nchw,c->nhw", rgb, weights)[:, None]


def _distance(difference: Tensor, name: str) -> Tensor:
    if name == "l1":
        return difference.abs().mean()
    if name == "l2":
        return difference.square().mean()
    if name == "charbonnier":
        return (difference.square() + 1e-6).sqrt().mean()
    raise ValueError(f"no loss named {name!r}")


def reconstruction_loss(sr: Tensor, hr: Tensor, name: str, luma: float, chroma: float = 0.0) -> Tensor:
    """Distance between two images on RGB, plus weighted distances on luma and on chroma.

    On RGB alone, a small network learns luma first and leaves colour to its nearest-neighbour skip for very long, since
    most of an image's detail is common to its channels.

    Args:
        sr: (N, 3, H, W) in [0, 1], not clamped.
        hr: the same shape.
        name: ``l1``, ``l2`` or ``charbonnier`` (root of square plus 1e-6).
        luma: weight of the same distance on luma, 0 for none.
        chroma: weight of the same distance on both colour differences, 0 for none.
    """
    difference = sr - hr
    loss = _distance(difference, name)
    for weight, rows in ((luma, (LUMA,)), (chroma, CHROMA)):
        if weight:
            matrix = torch.tensor(rows, dtype=difference.dtype, device=difference.device)
            loss = loss + weight * _distance(torch.einsum("nchw,dc->ndhw", difference, matrix), name)
    return loss
