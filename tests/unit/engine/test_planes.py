from typing import Any

import numpy as np
import pytest
import torch

from repsr_cli.engine.planes import (
    PlaneUpscaler,
    planes_from_rgb,
    rgb_from_planes,
)
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.plain import identity_network
from repsr_cli.yuv.chroma import enlarge_chroma, shrink_chroma
from repsr_cli.yuv.formats import PlaneFormat

YUV420 = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2))


def flat(fmt: PlaneFormat, height: int, width: int, *samples: Any) -> Any:
    dtype = np.uint8 if fmt.depth == 8 else np.uint16
    sizes = [(height, width), fmt.chroma_size(height, width), fmt.chroma_size(height, width)]
    return tuple(np.full(size, code, dtype) for size, code in zip(sizes, samples, strict=False))


@pytest.mark.parametrize(
    ("fmt", "samples", "colour"),
    [
        # ITU-R BT.709 and BT.601: black, white, and pure red at 8 bit video range; JPEG's red; 10-bit white.
        (YUV420, (16, 128, 128), (0, 0, 0)),
        (YUV420, (235, 128, 128), (1, 1, 1)),
        (YUV420, (63, 102, 240), (1, 0, 0)),
        (PlaneFormat("bt601", full_range=False, depth=8, subsample=(2, 2)), (81, 90, 240), (1, 0, 0)),
        (PlaneFormat("bt601", full_range=True, depth=8, subsample=(2, 2)), (76, 85, 255), (1, 0, 0)),
        (PlaneFormat("bt2020", full_range=False, depth=10, subsample=(2, 2)), (940, 512, 512), (1, 1, 1)),
        (PlaneFormat("rgb", full_range=True, depth=8), (255, 0, 51), (1, 0, 0.2)),
        (PlaneFormat("grey", full_range=True, depth=8), (51,), (0.2, 0.2, 0.2)),
        (PlaneFormat("grey", full_range=False, depth=8), (16,), (0, 0, 0)),
    ],
)
def test_known_colours(fmt: PlaneFormat, samples: Any, colour: Any) -> None:
    rgb = rgb_from_planes(flat(fmt, 4, 6, *samples), fmt)
    assert rgb.shape == (1, 3, 4, 6)
    assert torch.allclose(rgb, torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1), atol=0.006)


def test_samples_beyond_the_nominal_range_are_not_clipped() -> None:
    rgb = rgb_from_planes(flat(YUV420, 2, 2, 255, 255, 0), YUV420)
    assert rgb.max() > 1.2
    assert rgb.min() < 0.6
    assert [plane.flat[0] for plane in planes_from_rgb(rgb, YUV420)] == [255, 255, 0]


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
def test_chroma_sits_where_the_siting_says(siting: Any) -> None:
    """A ramp of chroma lies on the ramp of luma positions that the siting gives it."""
    fmt = PlaneFormat("bt709", full_range=False, depth=8, subsample=(2, 2), siting=siting)
    down, across = (0.0 if cosited else 0.5 for cosited in fmt.cosited)
    rows, columns = torch.arange(6.0) * 2 + down, torch.arange(8.0) * 2 + across
    chroma = rows[:, None] * 100 + columns
    luma_sized = enlarge_chroma(chroma[None, None], fmt, 12, 16)[0, 0]
    expected = torch.arange(12.0)[:, None] * 100 + torch.arange(16.0)
    assert torch.allclose(luma_sized[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-3)
    assert torch.allclose(shrink_chroma(expected[None, None], fmt)[0, 0, 1:-1, 1:-1], chroma[1:-1, 1:-1], atol=1e-3)


def test_planes_of_the_wrong_number_or_size_are_refused() -> None:
    with pytest.raises(ValueError, match="3 planes"):
        rgb_from_planes(flat(YUV420, 4, 4, 16), YUV420)
    luma = np.zeros((5, 5), np.uint8)
    with pytest.raises(ValueError, match="chroma"):
        rgb_from_planes((luma, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)), YUV420)


def test_planes_are_enlarged_into_contiguous_planes_of_the_other_format() -> None:
    out = PlaneFormat("bt2020", full_range=True, depth=10, subsample=(1, 2))
    upscaler = PlaneUpscaler(Upscaler(identity_network(3), device="cpu"), YUV420, out)
    y, u, v = upscaler(flat(YUV420, 5, 7, 235, 128, 128))
    assert (y.shape, u.shape, v.shape) == ((15, 21), (15, 11), (15, 11))
    assert y.dtype == u.dtype == np.uint16
    assert all(plane.flags.c_contiguous for plane in (y, u, v))
    assert (int(y.min()), int(y.max()), int(u.max()), int(v.min())) == (1023, 1023, 512, 512)


def test_a_size_of_its_own_is_met_and_a_flat_colour_survives_it() -> None:
    upscaler = PlaneUpscaler(Upscaler(identity_network(2), device="cpu"), YUV420, YUV420, size=(9, 13))
    y, u, v = upscaler(flat(YUV420, 6, 8, 81, 90, 240))
    assert (y.shape, u.shape) == ((9, 13), (5, 7))
    assert set(y.flat) | set(u.flat) | set(v.flat) == {81, 90, 240}


def test_views_with_strides_are_taken() -> None:
    rng = np.random.default_rng(0)
    wide = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((6, 32), (3, 16), (3, 16))]
    planes = [wide[0][:, :10], wide[1][:, :5], wide[2][:, :5]]
    back = PlaneUpscaler(Upscaler(identity_network(1), device="cpu"), YUV420, YUV420)(planes)
    assert all(np.array_equal(a, b) for a, b in zip(planes, back, strict=True))
