"""Test Netpbm and PFM files at their full depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsr_cli.errors import MediaError
from repsr_cli.image.files import read_image
from repsr_cli.image.page import Image


def read(tmp_path: Path, data: bytes) -> Image:
    (tmp_path / "a.pnm").write_bytes(data)
    return read_image(tmp_path / "a.pnm")


@pytest.mark.parametrize(("magic", "channels"), [(b"P5", 1), (b"P6", 3)])
@pytest.mark.parametrize("peak", [1, 100, 255, 1023, 4095, 65535])
def test_binary_samples_span_the_whole_range(tmp_path: Path, magic: bytes, channels: int, peak: int) -> None:
    values = np.linspace(0, peak, 6 * 4 * channels).astype(int)
    stored = values.astype(">u2" if peak > 255 else "u1").tobytes()
    found = read(tmp_path, magic + b" # a comment\n6 4\n%d\n" % peak + stored)
    top = 65535 if peak > 255 else 255
    assert found.pixels.dtype == (np.uint16 if peak > 255 else np.uint8)
    assert np.array_equal(found.pixels.ravel(), (values * top + peak // 2) // peak)


def test_text_and_bitmaps(tmp_path: Path) -> None:
    assert read(tmp_path, b"P2\n2 2\n15\n0 5 # x\n10 15\n").pixels.ravel().tolist() == [0, 85, 170, 255]
    assert read(tmp_path, b"P3 1 1 65535\n1 256 65535\n").pixels.ravel().tolist() == [1, 256, 65535]
    assert read(tmp_path, b"P1\n3 1\n0 1 0\n").pixels.ravel().tolist() == [255, 0, 255]
    assert read(tmp_path, b"P1\n3 1\n010").pixels.ravel().tolist() == [255, 0, 255]
    assert read(tmp_path, b"P4\n3 2\n\x40\xa0").pixels.ravel().tolist() == [255, 0, 255, 0, 255, 0]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("peak", [255, 65535])
def test_pam(tmp_path: Path, depth: int, peak: int) -> None:
    samples = np.arange(12 * depth).reshape(3, 4, depth) * (peak // (12 * depth))
    head = b"P7\nWIDTH 4\nHEIGHT 3\n# c\nDEPTH %d\nMAXVAL %d\nTUPLTYPE X\nENDHDR\n" % (depth, peak)
    found = read(tmp_path, head + samples.astype(">u2" if peak > 255 else "u1").tobytes())
    colour = depth - (depth in (2, 4))
    assert np.array_equal(found.pixels, samples[..., :colour])
    assert (found.alpha is not None) == (depth in (2, 4))
    if found.alpha is not None:
        assert np.array_equal(found.alpha, samples[..., -1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm_is_read_from_the_bottom_up(tmp_path: Path, order: str, channels: int) -> None:
    floats = np.random.default_rng(1).random((3, 5, channels)).astype(np.float32) * 7
    head = b"%s\n5 3\n%s1.0\n" % (b"PF" if channels == 3 else b"Pf", b"-" if order == "<" else b"")
    found = read(tmp_path, head + floats[::-1].astype(f"{order}f4").tobytes())
    assert np.array_equal(found.pixels, floats)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"P6\n4 4\n255\n" + bytes(47), "ends early"),
        (b"P6\n4 4\n", "no size"),
        (b"P6\n0 4\n255\n", "no size"),
        (b"P5\n2 1\n100\n\x01\x80", "beyond its largest"),
        (b"P2\n2 1\n255\n1", "ends early"),
        (b"P6\n4 4\n70000\n" + bytes(99), "largest value"),
        (b"P7\nWIDTH 4\n", "no end"),
        (b"P7\nWIDTH 4\nHEIGHT x\nENDHDR\n", "lacks"),
        (b"Pf\n1 1\n-1\n" + np.float32(np.nan).tobytes(), "not numbers"),
        (b"P6\n99999 99999\n255\n", "ends early"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.pnm").write_bytes(data)
    with pytest.raises(MediaError, match=says):
        read_image(tmp_path / "a.pnm", max_pixels=1 << 40)
