from __future__ import annotations

import numpy as np
import pytest

from repsr_cli.training.metrics import luma, psnr_rgb, psnr_y, ssim_y
from tests.conftest import textured


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    hr = textured(48, 57)
    noise = np.random.default_rng(1).integers(-12, 13, hr.shape)
    return np.clip(hr + noise, 0, 255).astype(np.uint8), hr


def test_luma_of_black_white_and_grey() -> None:
    assert luma(np.zeros((1, 1, 3), np.uint8))[0, 0] == pytest.approx(16)
    assert luma(np.full((1, 1, 3), 255, np.uint8))[0, 0] == pytest.approx(235, abs=2e-3)
    grey = np.full((2, 2, 1), 100, np.uint8)
    assert np.array_equal(luma(grey), luma(np.repeat(grey, 3, 2)))


def test_psnr_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    color = pytest.importorskip("skimage.color")
    sr, hr = pair
    inner = (slice(3, -3), slice(3, -3))
    theirs = metrics.peak_signal_noise_ratio(
        color.rgb2ycbcr(hr)[..., 0][inner], color.rgb2ycbcr(sr)[..., 0][inner], data_range=255
    )
    assert psnr_y(sr, hr, 3) == pytest.approx(theirs, abs=1e-3)
    assert psnr_rgb(sr, hr, 3) == pytest.approx(
        metrics.peak_signal_noise_ratio(hr[inner], sr[inner], data_range=255), abs=1e-9
    )


def test_ssim_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    sr, hr = pair
    _, full = metrics.structural_similarity(
        luma(hr)[4:-4, 4:-4],
        luma(sr)[4:-4, 4:-4],
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # The authors' code counts only windows that lie inside the image.
    assert ssim_y(sr, hr, 4) == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=1e-6)


def test_equal_images() -> None:
    hr = textured(20, 20)
    assert psnr_y(hr, hr, 2) == float("inf")
    assert ssim_y(hr, hr, 2) == pytest.approx(1)
    assert np.isnan(ssim_y(hr[:12], hr[:12], 2))
