"""Compute what depends on the step number: learning rate, batch shape, loss, decay of the average.

Steps count from 0. All functions are pure, so a resumed run repeats them.
"""

from __future__ import annotations

import math

from repsr_cli.training.recipe import Recipe


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine from ``learning_rate`` to ``final_learning_rate`` at the last step."""
    schedule = recipe.schedule
    warmup = min(schedule.warmup, schedule.steps)
    if step < warmup:
        return schedule.learning_rate * (step + 1) / warmup
    passed = (step - warmup) / max(1, schedule.steps - warmup)
    wave = 0.5 * (1 + math.cos(math.pi * passed))
    return schedule.final_learning_rate + (schedule.learning_rate - schedule.final_learning_rate) * wave


def freeze_step(recipe: Recipe) -> int:
    """The first step that uses population statistics; ``steps`` if none does."""
    return round(recipe.schedule.bn_freeze * recipe.schedule.steps)


def _is_late(step: int, share: float, recipe: Recipe) -> bool:
    return step >= round((1 - share) * recipe.schedule.steps)


def batch_shape(step: int, recipe: Recipe) -> tuple[int, int]:
    """(crops, side of a crop in LR px) of a step."""
    batch = recipe.batch
    if _is_late(step, batch.late, recipe):
        return batch.late_size, batch.late_patch
    return batch.size, batch.patch


def loss_name(step: int, recipe: Recipe) -> str:
    """The name of the loss of a step."""
    loss = recipe.loss
    return loss.late_name if loss.late_name and _is_late(step, loss.late, recipe) else loss.name


def ema_decay(updates: int, recipe: Recipe) -> float:
    """Decay of the average after ``updates`` updates: small at first, to forget the random start."""
    return min(recipe.ema.decay, (1 + updates) / (10 + updates))
