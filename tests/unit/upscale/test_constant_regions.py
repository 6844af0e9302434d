"""Colours that stay what they are up to the border."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.upscale.api import Model, load_model
from repsr_cli.upscale.constant_regions import _one_colour, upscale_keeping_constants
from tests.conftest import textured
from tests.unit.upscale.test_image import restless


@pytest.mark.parametrize("network", ["fast", "balanced"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (13, 77, 200), (127, 128, 129)])
def test_shipped_networks_keep_constants_to_the_border(network: str, scale: int, colour: tuple[int, int, int]) -> None:
    pixels = np.broadcast_to(np.array(colour, np.uint8), (30, 41, 3))
    sr = load_model(network, scale, device="cpu").upscale(np.ascontiguousarray(pixels))
    assert np.unique(sr.reshape(-1, 3), axis=0).tolist() == [list(colour)]


def test_only_what_sees_one_colour_and_the_border_is_touched() -> None:
    upscaler = restless()
    reach, scale = upscaler.spec.reach, upscaler.scale
    pixels = textured(60, 70, 3)
    pixels[:30, :40] = (200, 10, 10)  # a corner of one colour
    pixels[30:, 60:] = (1, 2, 3)
    lr = to_tensor(pixels)
    plain, kept = upscaler(lr), upscale_keeping_constants(upscaler, lr)
    touched = (plain != kept).any(dim=1)[0].numpy().reshape(60, scale, 70, scale).any(axis=(1, 3))
    y, x = np.mgrid[0:60, 0:70]
    rim = np.minimum.reduce([y, x, 59 - y, 69 - x]) < reach
    seen = ((y < 30 - reach) & (x < 40 - reach)) | ((y >= 30 + reach) & (x >= 60 + reach))
    assert np.array_equal(touched, rim & seen)
    middle = kept[0, :, 12 * scale : 13 * scale, 12 * scale : 13 * scale]
    assert torch.allclose(kept[0, :, :scale, :scale], middle, atol=1e-5)


def test_one_colour_is_what_a_look_at_every_window_finds() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        height, width, reach = random.integers(1, 14), random.integers(1, 14), int(random.integers(0, 5))
        plane = (random.random((height, width)) < 0.06).astype(np.float32)
        windows = np.array(
            [
                [
                    np.ptp(plane[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1])
                    for x in range(width)
                ]
                for y in range(height)
            ]
        )
        assert np.array_equal(_one_colour(np.repeat(plane[None], 3, axis=0), reach), windows == 0)


def test_a_image_without_flat_parts_is_left_alone() -> None:
    upscaler = restless()
    pixels = textured(20, 30, 4)
    expected = to_pixels(upscaler(to_tensor(pixels)), np.uint8, grey=False)
    assert np.array_equal(Model(upscaler, "restless").upscale(pixels), expected)
