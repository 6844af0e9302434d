"""What a feature distance sees of a step's crops."""

from __future__ import annotations

import math

import pytest
import torch

from repsr_cli.training.feature_views import TURN, ZOOM, FeatureViews

STEPS = range(200)


def slopes(side: int, height: int, width: int) -> tuple[list[float], list[float]]:
    """Zoom and angle of many warped views, found in what they make of two ramps."""
    rows, columns = torch.meshgrid(torch.arange(height * 1.0), torch.arange(width * 1.0), indexing="ij")
    ramps = torch.stack([columns, rows]).expand(3, 2, height, width)
    zooms, angles = [], []
    for step in STEPS:
        seen = FeatureViews(7, side, crops=2, warped=1.0).at(step, height, width)(ramps)
        assert seen.shape == (2, 2, side, side)
        middle = seen[0, :, side // 2 - 1 : side // 2 + 2, side // 2]  # along a column of the view
        along = (middle[:, 2] - middle[:, 0]) / 2
        zooms.append(1 / float(along.norm()))
        angles.append(math.atan2(-float(along[0]), float(along[1])))
    return zooms, angles


@pytest.mark.parametrize(("height", "width"), [(96, 96), (128, 96), (72, 160)])
def test_warped_views_are_zoomed_and_turned_within_their_range_alike_on_both_axes(height: int, width: int) -> None:
    zooms, angles = slopes(24, height, width)
    assert ZOOM[0] <= min(zooms) < 0.8 < 1.2 < max(zooms) <= ZOOM[1] + 1e-3
    assert -TURN - 1e-3 <= min(angles) < -0.25 < 0.25 < max(angles) <= TURN + 1e-3


def test_warped_views_reach_every_part_of_the_crops() -> None:
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    total = sum(FeatureViews(1, 24, warped=1.0).at(step, 64, 64)(image).sum() for step in STEPS)
    (gradient,) = torch.autograd.grad(torch.as_tensor(total), image)
    assert float((gradient > 0).float().mean()) > 0.95


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_that_share_of_the_steps_is_warped_and_the_others_are_cut_out(share: float) -> None:
    image = torch.rand(2, 3, 80, 80)
    values = set(image.flatten().tolist())
    views = FeatureViews(3, 32, warped=share)
    warped = [not set(views.at(step, 80, 80)(image).flatten().tolist()) <= values for step in STEPS]
    assert sum(warped) / len(warped) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("warped", [0.0, 1.0])
def test_a_view_depends_on_step_and_seed_alone(warped: float) -> None:
    image = torch.rand(1, 3, 64, 64)
    seen = [[FeatureViews(seed, 16, warped=warped).at(step, 64, 64)(image) for step in range(8)] for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    for others in (seen[2], seen[0][1:]):
        assert not any(torch.equal(a, b) for a, b in zip(seen[0], others, strict=False))


@pytest.mark.parametrize("warped", [0.0, 1.0])
def test_without_a_side_the_whole_crop_is_the_view(warped: float) -> None:
    image = torch.rand(2, 3, 48, 40)
    seen = FeatureViews(0, warped=warped).at(5, 48, 40)(image)
    assert seen.shape == image.shape
    assert torch.equal(seen, image) is (warped == 0)
