from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.image.resize import cubic, downscale, imresize, taps


def along_columns(pixels: NDArray[Any], target: int) -> NDArray[np.float64]:
    """The textbook sum for the last axis of a plane, one output sample at a time: slow, plain, independent."""
    height, width = pixels.shape
    factor = target / width
    stretch = min(factor, 1.0)
    out = np.zeros((height, target))
    for j in range(target):
        centre = (j + 0.5) / factor - 0.5
        reach = int(np.ceil(2 / stretch)) + 1
        total = 0.0
        for i in range(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 2):
            weight = float(cubic(np.array((centre - i) * stretch)))
            source = i
            while not 0 <= source < width:  # mirror, the edge sample repeated
                source = -1 - source if source < 0 else 2 * width - 1 - source
            out[:, j] += weight * pixels[:, source]
            total += weight
        out[:, j] /= total
    return out


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["baby", "bird", "butterfly", "head", "woman"])
def test_equals_matlab(real_data: Path, scale: int, name: str) -> None:
    benchmark = real_data / "benchmark"
    hr = np.asarray(Image.open(benchmark / "Set5" / f"{name}.png").convert("RGB"))
    wanted = np.asarray(Image.open(benchmark / "Set5_LR_matlab" / f"x{scale}" / f"{name}.png").convert("RGB"))
    height, width = (side // scale * scale for side in hr.shape[:2])
    assert np.array_equal(downscale(hr[:height, :width], scale), wanted)


@pytest.mark.parametrize("target", [1, 3, 7, 16, 17, 18, 40, 51, 130])
def test_equals_the_textbook_sum(target: int) -> None:
    plane = np.random.default_rng(1).random((5, 17))
    assert np.allclose(imresize(plane, (5, target)), along_columns(plane, target), rtol=0, atol=1e-12)
    assert np.allclose(imresize(plane.T, (target, 5)), along_columns(plane, target).T, rtol=0, atol=1e-12)


def test_integers_are_rounded_after_each_axis() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 20), np.uint8)
    rows = np.clip(np.floor(along_columns(pixels.T, 6) + 0.5), 0, 255).T
    both = np.clip(np.floor(along_columns(rows, 5) + 0.5), 0, 255)
    assert np.array_equal(imresize(pixels, (6, 5)), both)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1), (9, 14, 3)])
def test_keeps_type_and_channels_and_works_per_channel(dtype: type, shape: tuple[int, ...]) -> None:
    pixels: NDArray[Any] = (np.random.default_rng(3).random(shape) * 250).astype(dtype)
    out = imresize(pixels, (20, 5))
    assert out.dtype == dtype
    assert out.shape == (20, 5, *shape[2:])
    if len(shape) == 3:
        for c in range(shape[2]):
            assert np.array_equal(out[..., c], imresize(pixels[..., c], (20, 5)))


@pytest.mark.parametrize("value", [0, 1, 254, 255, 65535])
def test_constants_stay_constant(value: int) -> None:
    pixels = np.full((13, 11), value, np.uint16)
    for size in [(1, 1), (4, 3), (13, 40), (31, 5)]:
        assert (imresize(pixels, size) == value).all()


def test_overshoot_is_clipped_not_wrapped() -> None:
    edge = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1).repeat(4, axis=0)
    out = imresize(edge, (4, 64))
    assert out.min() == 0
    assert out.max() == 255
    assert (np.diff(out[0].astype(int)) >= 0).all()  # a wrapped overshoot would fall back from 255 to 0


def test_flipping_commutes() -> None:
    pixels = np.random.default_rng(4).integers(0, 65536, (30, 41, 3), np.uint16)
    for size in [(7, 11), (10, 82), (45, 60)]:
        assert np.array_equal(imresize(pixels[::-1, ::-1], size), imresize(pixels, size)[::-1, ::-1])


def test_same_size_is_identity() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (6, 5, 3), np.uint8)
    assert np.array_equal(imresize(pixels, (6, 5)), pixels)


def test_taps_sum_to_one_and_stay_inside() -> None:
    for length, target in [(1, 1), (1, 9), (9, 1), (2, 100), (1000, 3), (480, 321)]:
        indices, weights = taps(length, target)
        assert np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert indices.min() >= 0
        assert indices.max() < length


def test_an_empty_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        imresize(np.zeros((4, 4)), (0, 4))
