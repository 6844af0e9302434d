"""Measure how far the output of another program is from that of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repsr_cli.model.plain import PlainSR

TOLERANCE = 5e-5  # 1/80 of an 8-bit code value; Winograd convolutions in float32 need it
PROBE_SIZES = ((24, 33), (1, 1), (3, 40))  # LR px; small ones are all border

# Inputs in the order of the file to outputs in the order of the file, each (N, C, H, W).
Run = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]


def largest_difference(net: PlainSR, run: Run, clamped: bool = False) -> float:
    """The largest difference between another program's output and torch's on seeded noise.

    Networks have hardly seen noise, and some return values far beyond 1 for it, with larger rounding errors. So the
    difference is relative to the largest value, or to 1 if that is larger.

    Args:
        clamped: whether it clamps its output to [0, 1]; torch's is then clamped too.
    """
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for height, width in PROBE_SIZES:
        lr = torch.rand(2, net.spec.colors, height, width, generator=random)
        with torch.inference_mode():
            expected = net(lr).clamp(0, 1).numpy() if clamped else net(lr).numpy()
        (found,) = run([lr.numpy()])
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    return worst
