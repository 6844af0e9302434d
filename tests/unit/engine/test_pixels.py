from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.pixels import to_pixels, to_tensor


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_integer_comes_back(dtype: Any, channels: int) -> None:
    peak = np.iinfo(dtype).max
    values = np.arange(peak + 1, dtype=dtype).reshape(-1, 256, 1)
    pixels = np.concatenate([np.roll(values, shift * 11) for shift in range(channels)], axis=2)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, *pixels.shape[:2])
    assert tensor.dtype is torch.float32
    back = to_pixels(tensor, dtype, grey=channels == 1)
    assert back.dtype == dtype
    assert back.flags.c_contiguous
    assert np.array_equal(back, pixels)


def test_floats_pass_and_are_clipped_only_on_the_way_back() -> None:
    pixels = np.array([[[-0.5, 0.25, 1.5]]], np.float32)
    tensor = to_tensor(pixels)
    assert tensor.flatten().tolist() == [-0.5, 0.25, 1.5]
    assert to_pixels(tensor, np.float32, grey=False).flatten().tolist() == [0, 0.25, 1]
    assert tensor.flatten().tolist() == [-0.5, 0.25, 1.5]


def test_half_rounds_up_and_both_ends_are_clipped() -> None:
    sr = torch.tensor([-1, 0, 0.5 / 255, 1.5 / 255, 2.499 / 255, 1, 7.0]).view(1, 1, 1, 7).repeat(1, 3, 1, 1)
    assert to_pixels(sr, np.uint8, grey=True).flatten().tolist() == [0, 0, 1, 2, 2, 255, 255]


def test_views_with_strides_and_read_only_arrays_are_taken() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    view = pixels[::-1, ::2]
    view.flags.writeable = False
    assert np.array_equal(to_pixels(to_tensor(view), np.uint8, grey=False), view)


def test_grey_is_the_luma_of_colour() -> None:
    sr = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert to_pixels(sr, np.float32, grey=True).item() == pytest.approx(0.2126)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 4)])
def test_other_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        to_tensor(np.zeros(shape, np.uint8))


def test_other_kinds_of_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        to_tensor(np.zeros((2, 2, 3), np.int32))
