from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, Philox

from repsr_cli.image.resize import downscale
from repsr_cli.training.degradations import (
    Degradation,
    degrade_still,
    draw_degradation,
    letterboxed,
    moving_windows,
    softened,
)
from tests.conftest import textured

CLEAN = Degradation(0.0, "bicubic", 0.0, False, 0, "", 23, "medium")


def _random(seed: int = 0) -> Generator:
    return Generator(Philox(key=[seed, 0]))


def test_without_steps_it_is_a_bicubic_downscale() -> None:
    hr = textured(64, 48)
    ours = degrade_still(hr, 4, CLEAN, _random()).astype(int)
    assert ours.shape == (16, 12, 3)
    # Pillow treats borders and rounding in its own way.
    assert np.abs(ours - downscale(hr, 4))[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize("change", [{"blur": 1.0}, {"kernel": "box"}, {"noise": 4.0}, {"jpeg": 60}])
def test_every_step_changes_the_image_but_not_its_mean(change: dict[str, Any]) -> None:
    hr = textured(128, 128)
    plain = degrade_still(hr, 2, CLEAN, _random()).astype(float)
    changed = degrade_still(hr, 2, replace(CLEAN, **change), _random()).astype(float)
    assert np.abs(plain - changed).mean() > 0.5
    assert abs(plain.mean() - changed.mean()) < 1.5


def test_grey_noise_is_the_same_in_all_channels() -> None:
    hr = np.full((64, 64, 3), 128, np.uint8)
    lr = degrade_still(hr, 2, replace(CLEAN, noise=5.0, grey_noise=True), _random())
    assert np.ptp(lr[..., 0]) > 5
    assert np.array_equal(lr[..., 0], lr[..., 2])


def test_draws_depend_on_the_seed_and_reach_every_codec() -> None:
    draws = [draw_degradation(_random(seed)) for seed in range(60)]
    assert draws[3] == draw_degradation(_random(3))
    assert {draw.codec for draw in draws} == {"", "libx264", "libx265"}
    assert all(18 <= draw.crf <= 35 for draw in draws)


@pytest.mark.parametrize("seed", range(12))
def test_windows_pan_at_constant_speed_inside_the_image(seed: int) -> None:
    image = np.stack(np.broadcast_arrays(*np.mgrid[:90, :70], 0), axis=-1)
    windows = moving_windows(image, 40, 9, _random(seed))
    assert all(window.shape == (40, 40, 3) for window in windows)
    corners = np.array([window[0, 0, :2] for window in windows])
    steps = np.diff(corners, axis=0)
    assert (steps == steps[0]).all()
    assert np.abs(steps).max() <= 6


def test_a_window_as_large_as_the_image_stands_still() -> None:
    image = textured(40, 40)
    assert all(np.array_equal(window, image) for window in moving_windows(image, 40, 5, _random()))


def test_softened_images_keep_size_and_lose_detail() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    found = [softened(image, _random(seed)) for seed in range(40)]
    assert {each.shape for each in found} == {image.shape}
    soft = [each for each in found if not np.array_equal(each, image)]
    assert 10 < len(soft) < 38

    def detail(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())

    assert all(detail(each) < 0.95 * detail(image) for each in soft)


def test_some_shots_have_the_same_black_bars_in_every_frame() -> None:
    shot = [np.full((60, 90, 3), value, np.uint8) for value in (90, 200)]
    found = [letterboxed(shot, _random(seed)) for seed in range(60)]
    barred = [frames for frames in found if frames is not shot]
    assert 4 < len(barred) < 24
    across = set()
    for frames in barred:
        black = [frame == 0 for frame in frames]
        assert np.array_equal(*black)
        assert all(
            np.array_equal(frame[~bar], whole[~bar]) for frame, bar, whole in zip(frames, black, shot, strict=True)
        )
        # Whole lines of one direction, as many on either side.
        bar = black[0][..., 0]
        lines = bar.all(axis=1) if bar[0].all() else bar.all(axis=0)
        assert bar.mean() == lines.mean()
        assert np.array_equal(lines, lines[::-1])
        assert 4 <= lines.sum() // 2 <= len(lines) // 5
        across.add(len(lines))
    assert across == {60, 90}
