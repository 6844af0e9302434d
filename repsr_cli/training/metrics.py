"""Compute PSNR and SSIM as super-resolution papers do: 8-bit images, BT.601 luma, border cropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def luma(pixels: Pixels) -> NDArray[np.float64]:
    """Luma (H, W) of an RGB image (H, W, 3) in 16 .. 235, not rounded; MATLAB's rgb2ycbcr before rounding.

    A grey image (H, W, 1) counts as RGB of equal channels.
    """
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float64)
    return np.asarray(16 + rgb @ (np.array([65.481, 128.553, 24.966]) / 255))


def _cropped(image: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def _psnr(difference: NDArray[np.float64]) -> float:
    error = float(np.mean(np.square(difference)))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def psnr_y(sr: Pixels, hr: Pixels, border: int) -> float:
    """PSNR in dB on luma of two images (H, W, C) without ``border`` px on each side."""
    return _psnr(_cropped(luma(sr) - luma(hr), border))


def psnr_rgb(sr: Pixels, hr: Pixels, border: int) -> float:
    """PSNR in dB over all channels of two images (H, W, C) without ``border`` px on each side."""
    return _psnr(_cropped(sr.astype(np.float64) - hr.astype(np.float64), border))


def ssim_y(sr: Pixels, hr: Pixels, border: int) -> float:
    """SSIM on luma without ``border`` px on each side; 0 to 1, NaN where fewer than 11 px remain.

    Source: Wang et al. 2004: Gaussian window 11x11 of sigma 1.5, K = (0.01, 0.03), only full windows, as the authors'
    MATLAB code and BasicSR compute it.
    """
    x, y = _cropped(luma(sr), border), _cropped(luma(hr), border)
    if min(x.shape) < 11:
        return float("nan")
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = image.shape[0] - 10
        image = sum(window[k] * image[k : k + rows] for k in range(11))
        columns = image.shape[1] - 10
        return np.asarray(sum(window[k] * image[:, k : k + columns] for k in range(11)))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    ratio = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(ratio.mean())
