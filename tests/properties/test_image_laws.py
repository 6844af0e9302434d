"""Laws of image files: what is written is read, whatever its shape; strips are only a way of reading."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from repsr_cli.image.exif import Directory, Entry, read_directory, write_directory
from repsr_cli.image.files import open_image, read_image, write_image
from repsr_cli.image.page import Page, Strip
from repsr_cli.image.resize import imresize, imresize_rows, rows_needed
from repsr_cli.upscale.alpha import bleed

SIDES = st.integers(1, 40)


@st.composite
def samples(draw: st.DrawFn, floats: bool = False) -> NDArray[Any]:
    """(H, W, C) of any type: noise, which no predictor likes, or stairs, which all do."""
    dtype = np.dtype(draw(st.sampled_from(["u1", "u2", "f4"] if floats else ["u1", "u2"])))
    shape = (draw(SIDES), draw(SIDES), draw(st.sampled_from([1, 2, 3, 4])))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.random(shape)
    if draw(st.booleans()):
        values = np.floor(np.cumsum(values, axis=draw(st.sampled_from([0, 1]))) / shape[0] * 4) / 4 % 1
    if dtype.kind == "f":
        return values.astype(np.float32)
    return (values * (255 if dtype == np.uint8 else 65535)).astype(dtype)


def page_from(values: NDArray[Any], cut: int) -> Page:
    """Channels 2 and 4 have transparency; rows come in strips of ``cut``."""
    alpha = values.shape[2] % 2 == 0
    colour, hidden = (values[..., :-1], values[..., -1]) if alpha else (values, None)
    strips = [
        Strip(colour[top : top + cut], None if hidden is None else hidden[top : top + cut])
        for top in range(0, len(values), cut)
    ]
    height, width, channels = colour.shape
    return Page(height, width, channels, values.dtype, alpha, lambda: iter(strips))


@settings(max_examples=60, deadline=None)
@given(samples(), st.integers(1, 40))
def test_png_returns_what_it_was_given(values: NDArray[Any], cut: int) -> None:
    returned(values, cut, ".png")


@settings(max_examples=60, deadline=None)
@given(samples(floats=True), st.integers(1, 40))
def test_tiff_returns_what_it_was_given(values: NDArray[Any], cut: int) -> None:
    returned(values, cut, ".tif")


def returned(values: NDArray[Any], cut: int, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_image(path, [page_from(values, cut)])
        found = read_image(path)
        (page,) = open_image(path).pages()
        assert sum(len(strip.pixels) for strip in page.strips()) == len(values)
    parts = [found.pixels] if found.alpha is None else [found.pixels, found.alpha[..., None]]
    assert found.pixels.dtype == values.dtype
    assert np.array_equal(np.concatenate(parts, axis=2), values)


ENTRIES = st.builds(Entry, st.sampled_from([1, 2, 7]), st.binary(min_size=1, max_size=30)) | st.builds(
    Entry, st.sampled_from([3, 4, 5, 9, 11, 12, 16]), st.binary(min_size=1, max_size=4).map(lambda data: data * 8)
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 30000), ENTRIES, max_size=12),
    st.dictionaries(st.integers(0, 30000), ENTRIES, min_size=1, max_size=5),
    st.booleans(),
)
def test_directories_are_read_as_written(tags: dict[int, Entry], nested: dict[int, Entry], big: bool) -> None:
    directory: Directory = {**tags, 34665: dict(nested)}
    data = bytes(16) + write_directory(directory, 16, big=big)
    assert read_directory(io.BytesIO(data), 16, "<", big=big) == (directory, 0)


@settings(max_examples=60, deadline=None)
@given(samples(floats=True), st.tuples(SIDES, SIDES), st.data())
def test_rows_of_a_resize_are_rows_of_the_whole(
    values: NDArray[Any], size: tuple[int, int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, size[0] - 1))
    rows = (start, data.draw(st.integers(start + 1, size[0])))
    low, high = rows_needed(len(values), size[0], rows)
    part = imresize_rows(values[low:high], low, len(values), size, rows)
    whole = imresize(values, size)[slice(*rows)]
    assert np.allclose(part, whole, rtol=0, atol=0 if values.dtype.kind == "u" else 1e-6)


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(0, 20))
def test_bleeding_never_touches_what_shows_and_stays_in_range(values: NDArray[Any], reach: int) -> None:
    alpha = values[..., 0] // (np.iinfo(values.dtype).max // 2 + 1)
    out = bleed(values, alpha, reach)
    assert np.array_equal(out[alpha > 0], values[alpha > 0])
    assert out.min() >= values.min()
    assert out.max() <= values.max()
