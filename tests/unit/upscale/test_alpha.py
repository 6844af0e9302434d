from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from repsr_cli.image.resize import rows_needed
from repsr_cli.upscale.alpha import bleed, enlarge_alpha, spread


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_visible_colours_are_untouched_and_extended(dtype: type) -> None:
    pixels: NDArray[Any] = np.zeros((20, 30, 3), dtype)
    pixels[:, 10:20] = (200, 100, 50) if dtype != np.float32 else (0.75, 0.5, 0.25)
    alpha: NDArray[Any] = np.zeros((20, 30), dtype)
    alpha[:, 10:20] = 1
    out = bleed(pixels, alpha, 4)
    assert out.dtype == dtype
    assert np.array_equal(out[:, 10:20], pixels[:, 10:20])
    assert (out[:, 6:24] == pixels[0, 12]).all()
    assert (out[:, :6] == 0).all()
    assert (out[:, 24:] == 0).all()


def test_nothing_hidden_or_everything_hidden_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    assert np.array_equal(bleed(pixels, np.ones((5, 6), np.uint8), 9), pixels)
    assert np.array_equal(bleed(pixels, np.zeros((5, 6), np.uint8), 9), pixels)


@pytest.mark.parametrize("reach", [1, 2, 6, 18])
def test_bleeding_depends_on_its_spread_alone(reach: int) -> None:
    random = np.random.default_rng(reach)
    pixels = random.integers(0, 65536, (150, 12, 3), np.uint16)
    alpha = (random.random((150, 12)) < 0.02).astype(np.uint16)
    whole = bleed(pixels, alpha, reach)
    start, stop, around = 60, 90, spread(reach)
    part = slice(start - around, stop + around)
    assert np.array_equal(bleed(pixels[part], alpha[part], reach)[around:-around], whole[start:stop])
    assert spread(reach) == reach


@pytest.mark.parametrize(("dtype", "peak"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_opaque_and_hidden_stay_exact(dtype: type, peak: float) -> None:
    alpha: NDArray[Any] = np.zeros((16, 16), dtype)
    alpha[4:12, 4:12] = peak
    out = enlarge_alpha(alpha, 0, 16, (64, 64), (0, 64))
    assert out.dtype == dtype
    assert (out[20:44, 20:44] == peak).all()
    assert (out[:12] == 0).all()
    assert (out[:, 52:] == 0).all()
    assert 0 < out[17, 32] < peak


def test_no_halo_beside_an_edge() -> None:
    alpha = np.full((8, 12), 128, np.uint8)
    alpha[:, 6:] = 255
    out = enlarge_alpha(alpha, 0, 8, (32, 48), (0, 32))
    assert out.min() == 128
    assert (np.diff(out.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("size", [(60, 45), (47, 100), (20, 15), (9, 90)])
def test_rows_apart_equal_the_whole(size: tuple[int, int]) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (20, 15), np.uint8)
    whole = enlarge_alpha(alpha, 0, 20, size, (0, size[0]))
    for rows in [(0, 1), (size[0] // 3, size[0] // 2), (size[0] - 2, size[0])]:
        low, high = rows_needed(20, size[0], rows)
        part = alpha[max(0, low - 1) : high + 1]
        assert np.array_equal(enlarge_alpha(part, max(0, low - 1), 20, size, rows), whole[slice(*rows)])
