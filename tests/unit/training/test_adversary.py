"""What the discriminator of a run sees, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from repsr_cli.errors import RecipeError
from repsr_cli.training.objective import Adversary, Targets
from repsr_cli.training.recipe import Recipe, recipe_from_dict

CPU = torch.device("cpu")


def recipe(patch: int = 16, scale: int = 4, **gan: Any) -> Recipe:
    values = {
        "network": {"scale": scale, "block": "plain"},
        "data": {"train": "images"},
        "schedule": {"steps": 10},
        "batch": {"patch": patch, "late_patch": patch},
        "gan": {"weight": 1.0, "channels": 4, "real": "original", "warmup": 0} | gan,
    }
    return recipe_from_dict(values, "a recipe")


def seen(adversary: Adversary, step: int, sr: Tensor) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what decides a step's adversarial term."""
    (gradient,) = torch.autograd.grad(adversary.generator_term(step, sr), sr)
    _, _, rows, columns = gradient.nonzero().unbind(1)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 72)])
def test_borders_are_never_seen_and_the_rest_is_within_a_few_steps(height: int, width: int) -> None:
    adversary = Adversary(recipe(scale=2), CPU)
    sr = torch.rand(1, 3, height, width, requires_grad=True)
    parts = [seen(adversary, step, sr) for step in range(150)]
    assert {(bottom - top, right - left) for top, left, bottom, right in parts} == {(height - 32, width - 32)}
    assert (min(part[0] for part in parts), max(part[2] for part in parts)) == (8, height - 8)
    assert (min(part[1] for part in parts), max(part[3] for part in parts)) == (8, width - 8)


@pytest.mark.parametrize("side", [8, 12, 16, 32, 40])
def test_small_crops_are_seen_as_far_as_they_go(side: int) -> None:
    adversary = Adversary(recipe(), CPU)
    top, left, bottom, right = seen(adversary, 3, torch.rand(2, 3, side, side, requires_grad=True))
    assert 0 <= top < bottom <= side
    assert (bottom - top) % 8 == (right - left) % 8 == 0


def test_a_resumed_run_sees_the_same() -> None:
    sr = torch.rand(1, 3, 128, 128, requires_grad=True)
    first, resumed = (Adversary(recipe(), CPU) for _ in range(2))
    for step in range(3):
        seen(first, step, sr)
    assert seen(first, 3, sr) == seen(resumed, 3, sr)


def test_a_discriminator_learns_to_tell_images_apart_where_both_are_seen() -> None:
    torch.manual_seed(0)
    adversary = Adversary(recipe(learning_rate=1e-2), CPU)
    dark, light = torch.full((2, 3, 128, 128), 0.2), torch.full((2, 3, 128, 128), 0.8)
    before = float(adversary.generator_term(0, dark))
    for step in range(20):
        adversary.learn(step, dark, Targets(light))
    assert float(adversary.generator_term(20, dark)) > before + 0.3
    assert float(adversary.generator_term(20, light)) < before


@pytest.mark.parametrize(("patch", "scale"), [(3, 2), (1, 4), (2, 3)])
def test_crops_too_small_for_a_discriminator_are_refused(patch: int, scale: int) -> None:
    with pytest.raises(RecipeError, match=f"crops of {patch * scale} px are too small for a discriminator"):
        recipe(patch, scale)
    assert recipe(patch, scale, weight=0.0)
