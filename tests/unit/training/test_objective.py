"""The VGG term of the loss, on random weights in the layout of the real ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from repsr_cli.errors import RecipeError
from repsr_cli.model.plain import LUMA
from repsr_cli.training.losses import CHROMA
from repsr_cli.training.objective import Objective, Targets, uses_teacher
from repsr_cli.training.perceptual import VggFeatures, feature_distance
from repsr_cli.training.recipe import Recipe, recipe_from_dict

pytestmark = pytest.mark.usefixtures("vgg_weights")
CPU = torch.device("cpu")


def recipe(**loss: Any) -> Recipe:
    values = {
        "network": {"scale": 2, "block": "plain"},
        "data": {"train": "images"},
        "schedule": {"steps": 10},
        "loss": {"weight": 0.0, "vgg": 1.0, "vgg_layers": 5} | loss,
    }
    return recipe_from_dict(values, "a recipe")


def images() -> tuple[Tensor, Targets]:
    generator = torch.Generator().manual_seed(5)
    sr, original, teacher = (torch.rand(3, 3, 40, 32, generator=generator) for _ in range(3))
    return sr, Targets(original, teacher)


def distance(a: Tensor, b: Tensor) -> float:
    features = VggFeatures()
    return float(feature_distance(features(a), features(b)))


@pytest.mark.parametrize("target", ["original", "teacher"])
def test_vgg_compares_with_the_target_it_names(target: str) -> None:
    sr, targets = images()
    wanted = distance(sr, targets.named(target))
    assert float(Objective(recipe(vgg_target=target), CPU)(0, sr, targets)) == pytest.approx(wanted, rel=1e-4)


def test_the_luma_of_the_teacher_comes_with_the_colour_of_the_original() -> None:
    _, targets = images()
    mixed = targets.named("teacher-luma")
    luma, *colour = (torch.tensor([row])[..., None, None] for row in (LUMA, *CHROMA))
    assert torch.allclose((mixed * luma).sum(1), (targets.named("teacher") * luma).sum(1), atol=1e-6)
    for row in colour:
        assert torch.allclose((mixed * row).sum(1), (targets.original * row).sum(1), atol=1e-5)


def test_vgg_of_both_is_the_distance_to_the_mean_of_their_features() -> None:
    sr, targets = images()
    features = VggFeatures()
    both = zip(features(targets.original), features(targets.named("teacher")), strict=True)
    wanted = float(feature_distance(features(sr), [(a + b) / 2 for a, b in both]))
    assert float(Objective(recipe(vgg_target="both"), CPU)(0, sr, targets)) == pytest.approx(wanted, rel=1e-4)


def test_vgg_sees_a_part_of_the_first_crops_that_moves_over_every_phase_of_its_pooling() -> None:
    sr = torch.rand(3, 3, 64, 72, requires_grad=True)
    wide = Targets(torch.rand(3, 3, 64, 72))
    loss = Objective(recipe(vgg_crops=2, vgg_patch=8, vgg_layers=1), CPU)
    corners = set()
    for step in range(120):
        (gradient,) = torch.autograd.grad(loss(step, sr, wide), sr)
        crops, _, rows, columns = gradient.nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert (int(rows.max()) - top, int(columns.max()) - left, int(crops.max())) == (15, 15, 1)
        corners.add((top, left))
    tops, lefts = ({corner[axis] for corner in corners} for axis in (0, 1))
    assert (tops, lefts) == (set(range(16, 32)), set(range(20, 36)))


def test_a_step_of_a_resumed_run_sees_the_same_part() -> None:
    sr, targets = images()
    first, resumed = (Objective(recipe(vgg_patch=8), CPU) for _ in range(2))
    first(0, sr, targets)
    assert float(first(1, sr, targets)) == float(resumed(1, sr, targets))
    assert len({float(resumed(step, sr, targets)) for step in range(10)}) > 5


def test_vgg_teaches_the_network_in_half_precision() -> None:
    sr, targets = images()
    sr.requires_grad_()
    values = asdict(recipe(vgg_target="both"))
    Objective(recipe_from_dict(values | {"run": {"precision": "bf16"}}, "a recipe"), CPU)(0, sr, targets).backward()  # type: ignore[no-untyped-call]
    assert sr.grad is not None
    assert float(sr.grad.abs().sum()) > 0


@pytest.mark.parametrize("term", ["grid", "gradient"])
def test_patterns_and_contrast_are_looked_for_beside_the_original(term: str) -> None:
    _, targets = images()
    # As noise alike, the original and the teacher's image have the same contrast.
    targets = Targets(targets.original, targets.named("teacher") * (0.5 if term == "gradient" else 1))
    values = asdict(recipe(vgg=0.0, **{term: 1.0})) | {"data": {"train": "images", "target": "teacher"}}
    loss = Objective(recipe_from_dict(values, "a recipe"), CPU)
    assert float(loss(0, targets.original, targets)) == 0
    assert float(loss(0, targets.named("teacher"), targets)) > 0.01


@pytest.mark.parametrize(("target", "needed"), [("original", False), ("teacher", True), ("both", True)])
def test_a_vgg_target_that_needs_a_teacher_asks_for_one(target: str, needed: bool) -> None:
    assert uses_teacher(recipe(vgg_target=target)) is needed
    assert not uses_teacher(recipe(vgg_target=target, vgg=0.0))


@pytest.mark.parametrize(("target", "needed"), [("original", False), ("teacher", True), ("teacher-luma", True)])
def test_a_target_that_a_teacher_made_asks_for_one(target: str, needed: bool) -> None:
    values = asdict(recipe(vgg=0.0, weight=1.0)) | {"data": {"train": "images", "target": target}}
    assert uses_teacher(recipe_from_dict(values, "a recipe")) is needed


@pytest.mark.parametrize("name", ["vgg_crops", "vgg_patch"])
def test_negative_sizes_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"loss.{name} must not be negative"):
        recipe(**{name: -1})


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_of_warped_views_beyond_its_range_is_refused(share: float) -> None:
    with pytest.raises(RecipeError, match=r"loss\.vgg_warped must be between 0 and 1"):
        recipe(vgg_warped=share)


def test_warped_views_compare_images_seen_alike() -> None:
    sr, targets = images()
    warped = Objective(recipe(vgg_warped=1.0), CPU)
    assert float(warped(0, targets.original, targets)) == pytest.approx(0, abs=1e-9)
    assert float(warped(0, sr, targets)) != float(Objective(recipe(), CPU)(0, sr, targets))
