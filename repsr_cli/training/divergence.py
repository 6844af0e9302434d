"""Detect a training loss that stops being finite or explodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device
DIVERGED = 4.0  # a mean loss this many times the lowest so far counts as divergence


class LossExploded(Exception):
    """The loss is not finite, or far above the lowest so far."""


def check_losses(losses: Sequence[Tensor], progress: dict[str, Any], processes: int) -> float:
    """The mean of the losses since the last check.

    Args:
        losses: scalars on the training device, one per step.
        progress: of the run; ``lowest_loss`` is updated.
        processes: that train together; all of them come to the same result.

    Raises:
        LossExploded: it is not finite, or far above the lowest so far.
    """
    if not losses:
        return progress["lowest_loss"]  # type: ignore[no-any-return]
    sums = torch.stack([torch.stack(list(losses)).mean(), losses[0]])
    if processes > 1:  # processes that decide by their own losses would disagree, and wait for each other forever
        dist.all_reduce(sums)
    mean, first = (float(value) / processes for value in sums)
    if progress["lowest_loss"] == math.inf:
        progress["lowest_loss"] = first
    if not math.isfinite(mean):
        raise LossExploded(f"the loss became {mean}")
    if mean > DIVERGED * progress["lowest_loss"]:
        raise LossExploded(f"the loss rose to {mean:.4f} from {progress['lowest_loss']:.4f}")
    if len(losses) >= CHECK_EVERY:
        progress["lowest_loss"] = min(progress["lowest_loss"], mean)
    return mean


def any_process(asked: bool, device: torch.device) -> bool:
    """Whether any of the processes that train together asked for something; the same answer in all of them."""
    flag = torch.tensor(float(asked), device=device)
    dist.all_reduce(flag)
    return bool(flag > 0)
