"""image/opencv.py: depth and formats that OpenCV knows, and what happens where it cannot be imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import MediaError
from repsr_cli.image.files import open_image, read_image, roomier_suffix
from repsr_cli.image.formats import is_image
from repsr_cli.model.plain import identity_network
from repsr_cli.reporting import Reporter
from repsr_cli.upscale.request import Request
from tests.upscaling import upscale_image


def ramps(bits: int, channels: int) -> NDArray[np.uint16]:
    """(40, 56, channels) from 0 to the largest code of so many bits."""
    y, x = np.mgrid[:40, :56]
    planes = [x / 55, y / 39, (x + y) / 94, np.minimum(x, y) / 39][:channels]
    return np.asarray(np.rint(np.stack(planes, axis=-1) * (2**bits - 1)), np.uint16)


def write(path: Path, bits: int, channels: int) -> NDArray[np.uint16]:
    """Write without loss by OpenCV, whose channels are blue, green, red; returns what was meant."""
    samples = ramps(bits, channels)
    options = (
        [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
        if path.suffix == ".avif"
        else [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    )
    stored = samples if channels == 1 else samples[..., [2, 1, 0, 3][:channels]]
    path.write_bytes(cv2.imencode(path.suffix, stored, options)[1].tobytes())
    return samples


@pytest.mark.parametrize(
    ("suffix", "bits", "channels"),
    [(".avif", 10, 3), (".avif", 12, 4), (".avif", 12, 1), (".jp2", 16, 3), (".jp2", 16, 1), (".jp2", 12, 3)],
)
def test_depth_is_kept(tmp_path: Path, suffix: str, bits: int, channels: int) -> None:
    path = tmp_path / f"a{suffix}"
    samples = write(path, 16 if suffix == ".jp2" else bits, channels)
    if suffix == ".jp2" and bits == 12:
        samples = as_12_bit(path)
    image = read_image(path)
    expected = np.floor(samples * (65535 / (2**bits - 1)) + 0.5)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels, expected[..., :3] if channels == 4 else expected)
    assert (image.alpha is not None) == (channels == 4)
    if image.alpha is not None:
        assert np.array_equal(image.alpha, expected[..., 3])
    assert image.notes == ()
    assert roomier_suffix(path) == (".png" if suffix == ".avif" else None)


def test_depth_of_heif_is_kept(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    samples = ramps(10, 3)
    image = heif.from_bytes("RGB;16", (56, 40), (samples << 6).tobytes())
    image.save(tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0)  # no loss: RGB as it is
    found = read_image(tmp_path / "a.heic")
    assert found.pixels.dtype == np.uint16
    assert np.abs(found.pixels - samples * (65535 / 1023)).max() < 65
    assert roomier_suffix(tmp_path / "a.heic") == ".png"


def as_12_bit(path: Path) -> NDArray[np.uint16]:
    """Rewrite a JPEG 2000 of 16 bit as one of 12, by its samples' middle and its headers; returns the samples."""
    samples = ramps(12, 3)
    # Samples are stored as differences to the middle code.
    stored = (samples[..., ::-1].astype(int) + (1 << 15) - (1 << 11)).astype(np.uint16)
    data = bytearray(cv2.imencode(".jp2", stored, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1].tobytes())
    size = data.find(b"\xff\x51")  # the marker SIZ; each component's depth less one begins 40 bytes on
    for component in range(3):
        data[size + 40 + 3 * component] = 11
    data[data.find(b"ihdr") + 14] = 11
    path.write_bytes(data)
    return samples


def test_where_opencv_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = write(tmp_path / "a.avif", 10, 3)
    (tmp_path / "a.hdr").write_bytes(cv2.imencode(".hdr", np.ones((4, 5, 3), np.float32))[1].tobytes())
    monkeypatch.setitem(sys.modules, "cv2", None)
    image = read_image(tmp_path / "a.avif")
    assert np.abs(image.pixels.astype(float) - samples / 4.0117).max() <= 2
    assert "10 bits per channel are decoded as 8: it needs OpenCV" in image.notes[0]
    with pytest.raises(MediaError, match=r"needs OpenCV.*opencv-python-headless"):
        read_image(tmp_path / "a.hdr")


def test_hdr_images_are_floats_and_become_tiff(tmp_path: Path) -> None:
    light = np.random.default_rng(0).random((9, 7, 3), np.float32) * 40
    path = tmp_path / "a.hdr"
    path.write_bytes(cv2.imencode(".hdr", light[..., ::-1])[1].tobytes())
    assert is_image(path)
    image = read_image(path)
    # A pixel's three mantissas of 8 bit share the exponent of the largest.
    assert (np.abs(image.pixels - light) <= light.max(axis=2, keepdims=True) / 128).all()
    assert roomier_suffix(path) == ".tif"
    upscale_image(path, tmp_path / "b.tif", Upscaler(identity_network(2), "cpu"), Request(), Reporter())
    assert np.allclose(read_image(tmp_path / "b.tif").pixels, image.pixels.repeat(2, 0).repeat(2, 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n+X 4 -Y 4\n" + bytes(64), "gives no size"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n", "cannot be decoded"),
        (b"#?RGBE\n\n-Y 99999999 +X 99999999\n" + bytes(64), "more than the limit"),
    ],
)
def test_damaged_hdr(tmp_path: Path, data: bytes, text: str, capfd: Any) -> None:
    (tmp_path / "a.hdr").write_bytes(data)
    with pytest.raises(MediaError, match=text):
        read_image(tmp_path / "a.hdr")
    assert capfd.readouterr().err == ""


def test_depth_beyond_opencv_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.avif", 10, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    for page in open_image(tmp_path / "a.avif").pages():
        assert page.dtype == np.uint8
        assert "does not know this kind of AVIF" in page.notes[0]


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("full", [False, True])
def test_limited_range_of_grey_avif_is_expanded(tmp_path: Path, bits: int, full: bool) -> None:
    ramp = np.tile(np.linspace(0, 2**bits - 1, 64), (48, 1)).astype(np.uint16)
    path = tmp_path / "a.avif"
    cv2.imwrite(str(path), ramp, [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100])
    data = bytearray(path.read_bytes())
    at = data.index(b"colrnclx") + 14
    assert data[at] == 0x80
    data[at] = 0x80 if full else 0
    path.write_bytes(data)
    found = read_image(path).pixels[..., 0].astype(float) / 65535
    unit = 2 ** (bits - 8)
    stored = ramp / (2**bits - 1) if full else (ramp - 16.0 * unit) / (219 * unit)
    assert np.abs(found - np.clip(stored, 0, 1)).max() < 0.01
