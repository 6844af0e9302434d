from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from repsr_cli.image.gif import write_gif
from repsr_cli.image.page import Metadata, Page, page_of
from tests.conftest import frame_count


def written(*pages: Page, loop: int | None = None) -> Image.Image:
    file = io.BytesIO()
    write_gif(file, pages, loop=loop)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("colours", [1, 2, 3, 200, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_up_to_256_colours_are_exact(colours: int, channels: int) -> None:
    random = np.random.default_rng(colours)
    pixels = random.integers(0, 256, (colours, channels), np.uint8)[random.integers(0, colours, (33, 21))]
    with written(page_of(pixels)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.broadcast_to(pixels, (33, 21, 3)))


def test_more_colours_come_close() -> None:
    y, x = np.mgrid[:64, :64].astype(np.uint8) * 4
    ramp = np.stack([x, y, np.full_like(x, 90)], axis=2)
    with written(page_of(ramp)) as image:
        difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - ramp)
    assert difference.mean() < 6


@pytest.mark.parametrize("colours", [4, 5000])
def test_transparency_is_split_at_one_half(colours: int) -> None:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (colours, 3), np.uint8)[random.integers(0, colours, (80, 80))]
    alpha = random.integers(0, 256, (80, 80), np.uint8)
    with written(page_of(pixels, alpha)) as image:
        found = np.asarray(image.convert("RGBA"))
    assert np.array_equal(found[..., 3], np.where(alpha < 128, 0, 255))


def test_a_image_that_hides_everything() -> None:
    with written(page_of(np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8))) as image:
        assert (np.asarray(image.convert("RGBA"))[..., 3] == 0).all()


def test_equal_frames_stay_frames_and_holes_show_nothing_old() -> None:
    pixels = np.full((8, 8, 3), 77, np.uint8)
    alphas = [np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)]
    alphas[1][:4] = alphas[2][:4] = 255
    pages = [page_of(pixels, alpha, Metadata(), Fraction(1, 10)) for alpha in alphas]
    with written(pages[1], pages[1], pages[2], pages[0], loop=0) as image:
        assert frame_count(image) == 4
        for index, alpha in enumerate((alphas[1], alphas[1], alphas[2], alphas[0])):
            image.seek(index)
            assert np.array_equal(np.asarray(image.convert("RGBA"))[..., 3], alpha)


@pytest.mark.parametrize(("loop", "repeats"), [(0, 0), (1, None), (2, 1), (100000, 65535)])
def test_loops_are_counted_as_gif_counts_them(loop: int, repeats: int | None) -> None:
    frame = page_of(
        np.zeros((2, 2, 3), np.uint8), None, Metadata(text=(("Comment", "caf\u00e9" * 100),)), Fraction(1, 2)
    )
    with written(frame, frame, loop=loop) as image:
        assert image.info.get("loop") == repeats
        assert image.info["comment"].decode() == "caf\u00e9" * 100


def test_rounded_delays_add_up() -> None:
    pages = [page_of(np.full((2, 2, 3), i, np.uint8), None, Metadata(), Fraction(1, 30)) for i in range(30)]
    with written(*pages, loop=0) as image:
        delays = []
        for index in range(frame_count(image)):
            image.seek(index)
            delays.append(image.info["duration"])
    assert set(delays) == {30, 40}
    assert sum(delays) == 1000
