"""Compare the structure of images: SSIM, MS-SSIM, Fourier spectra and patterns of the LR grid, as losses.

Source: Wang, Simoncelli and Bovik 2003, "Multiscale structural similarity for image quality assessment"; the weights of
the scales are those of its table 1. Fourier loss: Fuoli, Van Gool and Timofte 2021 (arXiv 2106.00783).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from repsr_cli.training.losses import luma_of
from repsr_cli.training.recipe import SMALLEST_GRADIENT
from repsr_cli.training.recipe import SSIM_WINDOW as WINDOW

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA = 1.5
# Side of the squares, in LR px, over which an error counts as repeating.
_CELLS = 6
# Side of the windows whose mean gradients are compared, HR px.
_GRADIENT_WINDOW = 16
_C1, _C2 = 0.01**2, 0.03**2


def _window(channels: int, like: Tensor) -> Tensor:
    """Taps of a Gaussian, (channels, 1, 1, WINDOW)."""
    place = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    taps = torch.exp(-place.square() / (2 * SIGMA**2))
    return (taps / taps.sum()).expand(channels, 1, 1, WINDOW)


def _blurred(images: Tensor, taps: Tensor) -> Tensor:
    groups = images.shape[1]
    across = F.conv2d(images, taps, groups=groups)
    return F.conv2d(across, taps.transpose(2, 3), groups=groups)


def _similarities(first: Tensor, second: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term of each image and channel, (N, C)."""
    mean_a, mean_b = _blurred(first, taps), _blurred(second, taps)
    variance_a = _blurred(first * first, taps) - mean_a**2
    variance_b = _blurred(second * second, taps) - mean_b**2
    covariance = _blurred(first * second, taps) - mean_a * mean_b
    contrast = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    whole = contrast * (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return whole.mean((2, 3)), contrast.mean((2, 3))


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Multi-scale structural similarity, in the mean over images and channels.

    Args:
        first: (N, C, H, W) in [0, 1].
        second: the same shape.

    Returns:
        A scalar, 1 where both are equal. Images below 176 px use as many scales as fit, whose weights are
        renormalised.

    Raises:
        ValueError: images smaller than the window of 11 px.
    """
    if min(first.shape[-2:]) < WINDOW:
        raise ValueError(f"MS-SSIM needs images of {WINDOW} px or more, not {tuple(first.shape[-2:])}")
    scales = 1
    while scales < len(WEIGHTS) and min(first.shape[-2:]) >> scales >= WINDOW:
        scales += 1
    weights = torch.tensor(WEIGHTS[:scales], dtype=first.dtype, device=first.device)
    weights = weights / weights.sum()
    taps = _window(first.shape[1], first)
    product: Tensor | float = 1.0
    for scale in range(scales):
        whole, contrast = _similarities(first, second, taps)
        term = whole if scale == scales - 1 else contrast
        # Negative structure has no real power; images that differ so much are as unlike as can be.
        product = product * term.clamp(min=1e-6) ** weights[scale]
        if scale < scales - 1:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return torch.as_tensor(product).mean()


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity at the finest scale alone, in the mean over images, channels and positions.

    Where two images correlate at all, it is largest when both have the same local contrast. So as a loss it keeps
    texture that absolute differences would average away.

    Args:
        first: (N, C, H, W) in [0, 1].
        second: the same shape.

    Returns:
        A scalar, 1 where both are equal.

    Raises:
        ValueError: images smaller than the window of 11 px.
    """
    if min(first.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW} px or more, not {tuple(first.shape[-2:])}")
    return _similarities(first, second, _window(first.shape[1], first))[0].mean()


def fourier_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of amplitude and of phase of the spectra, halved: (N, C, H, W) in [0, 1] to a scalar.

    A Hann window suppresses the jump between opposite borders.
    """
    height, width = first.shape[-2:]
    down, across = (
        torch.hann_window(side, periodic=False, dtype=first.dtype, device=first.device) for side in (height, width)
    )
    hann = down[:, None] * across
    a, b = (torch.fft.rfft2(images * hann, norm="ortho") for images in (first, second))
    # The angle of nearly nothing is noise without a gradient worth following.
    amplitude = (a.abs() - b.abs()).abs().mean()
    turned = a * b.conj()
    phase = (torch.atan2(turned.imag, turned.real + 1e-8).abs() * (b.abs() > 1e-3)).mean()
    distance: Tensor = (amplitude + phase) / 2
    return distance


def grid_pattern(sr: Tensor, wanted: Tensor, scale: int) -> Tensor:
    """How much of an error repeats from one LR pixel to the next: a scalar, in the units of the images.

    Where the LR image is smooth, a network gives every LR pixel the same square of output pixels. A perceptual term
    rewards contrast in these squares, and the eye sees it as a cross-hatch. Errors that differ from one LR pixel to the
    next, as those of texture do, average out here.

    Args:
        sr: (N, C, H, W), H and W multiples of ``scale``.
        wanted: the same shape.
        scale: output pixels along an LR pixel.
    """
    by_place: Tensor = F.pixel_unshuffle(sr - wanted, scale)  # (N, C * scale**2, H / scale, W / scale)
    cells = min(_CELLS, *by_place.shape[-2:])
    means = F.avg_pool2d(by_place, cells, stride=max(1, cells // 2))
    means = means.reshape(len(means), sr.shape[1], scale**2, *means.shape[-2:])
    pattern: Tensor = (means - means.mean(2, keepdim=True)).abs().mean()
    return pattern


def gradient_distance(sr: Tensor, wanted: Tensor) -> Tensor:
    """Difference of the mean luma gradients of small windows: a scalar, in the units of the images per pixel.

    The place of a detail often cannot be known from the LR image, but how much of it there is can. Absolute differences
    favour the mean of all that is possible, which is flat. This one counts how much contrast a window has, wherever in
    the window that is. Images are smoothed first: contrast would cost least as a checkerboard.

    Args:
        sr: (N, 3, H, W).
        wanted: the same shape.

    Raises:
        ValueError: images smaller than 4 px.
    """
    if min(sr.shape[-2:]) < SMALLEST_GRADIENT:
        raise ValueError(f"mean gradients need images of {SMALLEST_GRADIENT} px or more, not {tuple(sr.shape[-2:])}")
    found, expected = _mean_gradients(sr), _mean_gradients(wanted)
    distance: Tensor = (found - expected).abs().mean()
    return distance


def _mean_gradients(rgb: Tensor) -> Tensor:
    """The mean absolute differences of neighbours, down plus across, of overlapping windows: (N, 1, h, w)."""
    smooth = torch.tensor((0.25, 0.5, 0.25), dtype=rgb.dtype, device=rgb.device)
    luma = F.conv2d(luma_of(rgb), (smooth[:, None] * smooth)[None, None])
    here = luma[..., :-1, :-1]
    steps = (luma[..., 1:, :-1] - here).abs() + (luma[..., :-1, 1:] - here).abs()
    side = min(_GRADIENT_WINDOW, *steps.shape[-2:])
    return F.avg_pool2d(steps, side, stride=max(1, side // 2))
