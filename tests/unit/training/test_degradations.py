from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator, Philox

from repsr_cli.image.resize import downscale
from repsr_cli.training.degradations import (
    Degradation,
    degrade_shot,
    draw_degradation,
    letterboxed,
    moving_windows,
    shrunk,
    softened,
    with_text,
)
from repsr_cli.training.metrics import Pixels
from repsr_cli.training.mix import Mix, load_mix
from tests.conftest import ROOT, textured

CLEAN = Degradation()
REAL = load_mix(ROOT / "train" / "mixes" / "real.toml")


def degrade_still(hr: Pixels, scale: int, degradation: Degradation, random: Generator) -> Pixels:
    return degrade_shot([hr], scale, degradation, random)[0]


def _random(seed: int = 0) -> Generator:
    return Generator(Philox(key=[seed, 0]))


def test_without_steps_it_is_a_bicubic_downscale() -> None:
    hr = textured(64, 48)
    ours = degrade_still(hr, 4, CLEAN, _random()).astype(int)
    assert ours.shape == (16, 12, 3)
    # Pillow treats borders and rounding in its own way.
    assert np.abs(ours - downscale(hr, 4))[2:-2, 2:-2].max() <= 2


@pytest.mark.parametrize(
    "change",
    [
        {"blur": (1.0, 0.5)},
        {"sharpen": (1.5, 1.0)},
        {"kernel": "box"},
        {"between": ("bicubic", 0.6, 0.8)},
        {"deinterlace": "double"},
        {"noise": 4.0},
        {"jpeg": (60,)},
        {"jpeg": (60, 50)},
    ],
)
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
    draws = [draw_degradation(REAL, _random(seed)) for seed in range(200)]
    assert draws[3] == draw_degradation(REAL, _random(3))
    drawn = [encoding for draw in draws for encoding in draw.encodings]
    assert {encoding.codec for encoding in drawn} == {codec.name for codec in REAL.video.codecs}
    bounds = {codec.name: codec.quality for codec in REAL.video.codecs}
    assert all(bounds[each.codec][0] <= each.quality <= bounds[each.codec][1] for each in drawn)
    assert {len(draw.encodings) for draw in draws} == {0, 1, 2}
    assert {draw.deinterlace for draw in draws} == {"", "comb", "double"}
    assert any(draw.between and draw.between[1] != draw.between[2] for draw in draws)


def test_an_empty_mix_leaves_everything_out() -> None:
    assert {draw_degradation(Mix(), _random(seed)) for seed in range(20)} == {CLEAN}


def test_combed_frames_show_two_moments() -> None:
    shot = [np.full((64, 64, 3), value, np.uint8) for value in (40, 200)]
    lr = degrade_shot(shot, 1, replace(CLEAN, deinterlace="comb"), _random())
    assert (lr[0][::2] == 40).all()
    assert (lr[0][1::2] == 200).all()


def test_text_is_drawn_into_some_images() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    assert with_text(image, 0.0, _random()) is image
    found = [with_text(image, 1.0, _random(seed)) for seed in range(5)]
    assert all(0.001 < (each != image).any(axis=2).mean() < 0.9 for each in found)


@pytest.mark.parametrize("seed", range(12))
def test_windows_pan_at_constant_speed_inside_the_image(seed: int) -> None:
    image = np.stack(np.broadcast_arrays(*np.mgrid[:90, :70], 0), axis=-1)
    windows = moving_windows(image, 40, 9, 0.3, _random(seed))
    assert all(window.shape == (40, 40, 3) for window in windows)
    corners = np.array([window[0, 0, :2] for window in windows])
    steps = np.diff(corners, axis=0)
    assert (steps == steps[0]).all()
    assert np.abs(steps).max() <= 6


def test_a_window_as_large_as_the_image_stands_still() -> None:
    image = textured(40, 40)
    assert all(np.array_equal(window, image) for window in moving_windows(image, 40, 5, 0.3, _random()))


@pytest.mark.parametrize("factors", [(1.3, 2.5), (1.0, 1.0), (3.0, 3.0)])
def test_shrunk_images_keep_size_and_mirror_a_smaller_one(factors: tuple[float, float]) -> None:
    image = textured(60, 90)
    small = shrunk(image, 1.0, factors, _random(3))
    assert small.shape == image.shape
    if factors[0] == 3:
        assert np.array_equal(small[:20, :30], small[39:19:-1, :30])
        assert np.array_equal(small[:20, :30], small[:20, 59:29:-1])
        assert abs(float(small[:20, :30].mean()) - float(image.mean())) < 2


def test_an_image_is_shrunk_as_often_as_asked() -> None:
    image = textured(60, 90)
    drawn = [shrunk(image, 0.5, (1.5, 2.0), _random(seed)) is image for seed in range(60)]
    assert 15 < sum(drawn) < 45


def test_no_shrinking_draws_nothing() -> None:
    random = _random(5)
    image = textured(60, 90)
    assert shrunk(image, 0.0, (1.5, 2.0), random) is image
    assert random.random() == _random(5).random()


def test_softened_images_keep_size_and_lose_detail() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    found = [softened(image, 0.85, (1.2, 5.0), _random(seed)) for seed in range(40)]
    assert {each.shape for each in found} == {image.shape}
    soft = [each for each in found if not np.array_equal(each, image)]
    assert 10 < len(soft) < 38

    def detail(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())

    assert all(detail(each) < 0.95 * detail(image) for each in soft)


def test_some_shots_have_the_same_black_bars_in_every_frame() -> None:
    shot = [np.full((60, 90, 3), value, np.uint8) for value in (90, 200)]
    found = [letterboxed(shot, 0.2, _random(seed)) for seed in range(60)]
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
