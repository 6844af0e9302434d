from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from repsr_cli.training.structure import WEIGHTS, fourier_distance, gradient_distance, grid_pattern, ms_ssim, ssim
from tests.conftest import textured


def pair(side: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(textured(side, side, seed)).permute(2, 0, 1)[None].double() / 255
    generator = torch.Generator().manual_seed(seed)
    return image, image + noise * torch.randn(image.shape, generator=generator, dtype=torch.float64)


def scikit_ssim(a: Tensor, b: Tensor) -> np.ndarray:
    """Scikit-image's SSIM of every window that lies inside, (height, width, channels)."""
    from skimage.metrics import structural_similarity  # which takes a second

    _mean, whole = structural_similarity(  # type: ignore[no-untyped-call]
        *(each[0].permute(1, 2, 0).numpy() for each in (a, b)),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(whole[5:-5, 5:-5])


def test_one_scale_is_ssim_as_scikit_image_gives_it() -> None:
    a, b = pair(20, 0.1)  # so small that one scale fits
    ours = float(ms_ssim(a, b))
    inside = np.clip(scikit_ssim(a, b).mean((0, 1)), 1e-6, None).mean()
    assert ours == pytest.approx(inside, abs=1e-3)


def test_the_finest_scale_is_ssim_at_any_size() -> None:
    a, b = pair(96, 0.05)
    assert float(ssim(a, b)) == pytest.approx(scikit_ssim(a, b).mean(), abs=1e-6)
    with pytest.raises(ValueError, match="11 px or more"):
        ssim(*(each[..., :10, :10] for each in (a, b)))


def test_ssim_wants_the_contrast_of_what_it_only_partly_resembles() -> None:
    """Of texture that correlates by half, L1 is least far from half the contrast, SSIM from nearly all of it."""
    generator = torch.Generator().manual_seed(0)
    wanted, other = (torch.randn(1, 1, 64, 64, generator=generator) * 0.1 for _ in range(2))
    found = (wanted + 3**0.5 * other) / 2
    gains = torch.linspace(0.1, 1.5, 29)
    nearest = min(gains, key=lambda gain: float((0.5 + gain * found - (0.5 + wanted)).abs().mean()))
    likest = max(gains, key=lambda gain: float(ssim(0.5 + gain * found, 0.5 + wanted)))
    assert float(nearest) == pytest.approx(0.5, abs=0.15)
    assert float(likest) > 0.8


def test_five_scales_weigh_as_published() -> None:
    a, b = pair(192, 0.05)
    terms = []
    from repsr_cli.training.structure import _similarities, _window

    for scale in range(5):
        whole, contrast = _similarities(a, b, _window(3, a))
        terms.append(whole if scale == 4 else contrast)
        a, b = (torch.nn.functional.avg_pool2d(each, 2) for each in (a, b))
    expected = torch.stack([t.clamp(min=1e-6) ** w for t, w in zip(terms, WEIGHTS, strict=True)]).prod(0).mean()
    assert float(ms_ssim(*pair(192, 0.05))) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("side", [16, 64, 192])
def test_equal_images_are_at_no_distance_and_noise_moves_them_apart(side: int) -> None:
    a, _ = pair(side, 0)
    assert float(ms_ssim(a, a)) == pytest.approx(1)
    assert float(fourier_distance(a, a)) == pytest.approx(0, abs=1e-6)
    likeness = [float(ms_ssim(*pair(side, noise))) for noise in (0.02, 0.1, 0.3)]
    assert likeness == sorted(likeness, reverse=True)
    distance = [float(fourier_distance(*pair(side, noise))) for noise in (0.02, 0.1, 0.3)]
    assert distance == sorted(distance)


@pytest.mark.parametrize("measure", [ms_ssim, fourier_distance])
def test_gradients_are_finite_where_images_are_flat(measure) -> None:  # type: ignore[no-untyped-def]
    a = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    measure(a, torch.full((1, 3, 64, 64), 0.5)).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_smaller_than_the_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 px or more"):
        ms_ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


def test_what_repeats_on_the_grid_is_found_and_texture_is_not() -> None:
    generator = torch.Generator().manual_seed(3)
    wanted = torch.rand(2, 3, 96, 80, generator=generator)
    square = torch.randn(3, 4, 4, generator=generator)
    hatch = 0.1 * (square - square.mean((1, 2), keepdim=True)).tile(24, 20)
    texture = 0.1 * torch.randn(2, 3, 96, 80, generator=generator)
    locked = float(grid_pattern(wanted + hatch, wanted, 4))
    assert locked == pytest.approx(float(hatch.abs().mean()), rel=1e-4)
    assert float(grid_pattern(wanted + texture, wanted, 4)) < locked / 4
    # Another period, another brightness, a slow gradient: nothing that sits on this grid.
    assert float(grid_pattern(wanted + 0.1 * torch.linspace(0, 1, 80), wanted, 4)) < 0.002
    assert float(grid_pattern(wanted + 0.2, wanted, 4)) == pytest.approx(0, abs=1e-6)


def test_crops_smaller_than_a_square_have_a_pattern_too() -> None:
    wanted = torch.zeros(1, 3, 8, 8)
    hatch = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).tile(4, 4).expand(1, 3, 8, 8)
    assert float(grid_pattern(hatch, wanted, 2)) == pytest.approx(0.1)


def test_gradient_distance_counts_contrast_wherever_it_is() -> None:
    """A texture moved by a few pixels is as far from the original as a flat image in L1, but not in mean gradients."""
    torch.manual_seed(0)
    texture = torch.nn.functional.interpolate(torch.rand(1, 1, 32, 32), scale_factor=2, mode="bilinear")
    wanted = texture.expand(1, 3, 64, 64).contiguous()
    moved, flat = wanted.roll((2, 2), (2, 3)), torch.full_like(wanted, float(wanted.mean()))
    assert float((moved - wanted).abs().mean()) > float((flat - wanted).abs().mean())
    assert float(gradient_distance(moved, wanted)) < float(gradient_distance(flat, wanted)) / 5
    assert float(gradient_distance(wanted + 0.1, wanted)) == pytest.approx(0, abs=1e-6)


def test_gradient_distance_gives_nothing_for_a_checkerboard() -> None:
    """Of one pixel's size, it has the largest gradient that a change of so few code values can make."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    flat = torch.full((1, 3, 64, 64), 0.5)
    board = flat + 0.05 * (1 - 2 * ((x + y) % 2))
    edge = flat + 0.05 * (x > 31)
    assert float(gradient_distance(board, flat)) < 1e-6
    assert float(gradient_distance(edge, flat)) > 1e-3


def test_gradient_distance_of_images_smaller_than_a_window() -> None:
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert float(gradient_distance(noise, torch.zeros_like(noise))) > 0.01
    assert float(gradient_distance(noise[..., :4, :4], torch.zeros(1, 3, 4, 4))) > 0.01
    with pytest.raises(ValueError, match=r"4 px or more, not \(3, 8\)"):
        gradient_distance(noise[..., :3, :], noise[..., :3, :])
