"""Test that colours described by nclx, cICP, gAMA and cHRM arrive in every format, or are named."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from repsr_cli.image.files import read_image, write_image
from repsr_cli.image.formats import format_for
from repsr_cli.image.icc import is_srgb, profile_for
from repsr_cli.image.losses import losses
from repsr_cli.image.page import Metadata, Page, page_of

P3 = ((b"cICP", bytes([12, 13, 0, 1])),)
PQ = ((b"cICP", bytes([9, 16, 0, 1])),)
LINEAR = ((b"gAMA", struct.pack(">I", 100_000)),)


def page(*colour: tuple[bytes, bytes]) -> Page:
    return page_of(np.full((16, 16, 3), 120, np.uint8), None, Metadata(colour=colour))


def avif(path: Path, primaries: int, transfer: int, mode: str = "RGB") -> None:
    file = io.BytesIO()
    Image.new(mode, (16, 16)).save(file, "AVIF")
    data = bytearray(file.getvalue())
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    path.write_bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (9, 18), (9, 14), (1, 8)])
def test_nclx_becomes_cicp_and_nclx_again(tmp_path: Path, primaries: int, transfer: int, mode: str) -> None:
    avif(tmp_path / "a.avif", primaries, transfer, mode)
    found = read_image(tmp_path / "a.avif")
    assert found.metadata.colour == ((b"cICP", bytes([primaries, transfer, 0, 1])),)
    for name in ("b.png", "b.avif"):
        write_image(tmp_path / name, [found.page()])
        assert read_image(tmp_path / name).metadata.colour == found.metadata.colour


def test_srgb_needs_no_words(tmp_path: Path) -> None:
    for primaries, transfer in ((1, 13), (2, 2)):
        avif(tmp_path / "a.avif", primaries, transfer)
        assert read_image(tmp_path / "a.avif").metadata.colour == ()


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_formats_that_know_profiles_alone_get_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, [page(*P3)])
    icc = read_image(path).metadata.icc
    assert icc is not None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(Image.new("RGB", (1, 1), (200, 30, 30)), profile, srgb)
    assert converted is not None
    # In linear light by the matrix from Display P3 to sRGB: (0.7046, -0.0108, 0.0019); green is clipped.
    assert np.allclose(np.asarray(converted)[0, 0], (218, 0, 6), atol=2)


def test_gamma_becomes_a_profile() -> None:
    icc = profile_for(LINEAR, 3)
    assert icc is not None
    profile, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(Image.new("RGB", (1, 1), (55, 55, 55)), profile, srgb)
    assert converted is not None
    assert abs(converted.getpixel((0, 0))[0] - 128) < 3  # type: ignore[index]
    grey = profile_for(LINEAR, 1)
    assert grey is not None
    assert grey[16:20] == b"GRAY"


def test_what_no_profile_can_say_is_named() -> None:
    for name in ("a.jpg", "a.tif", "a.webp"):
        assert losses(format_for(Path(name)), page(*PQ), (9, 9)) == ("its colours (cICP: primaries 9, transfer 16)",)
    for name in ("a.gif", "a.bmp", "a.jp2", "a.ppm"):
        assert "its colours (gAMA)" in losses(format_for(Path(name)), page(*LINEAR), (9, 9))
    for name in ("a.png", "a.avif"):
        assert losses(format_for(Path(name)), page(*PQ), (9, 9)) == ()
    light = (b"cLLI", bytes(8))
    assert losses(format_for(Path("a.avif")), page(*PQ, light), (9, 9)) == ("HDR metadata (mDCV, cLLI)",)


def test_srgb_is_recognized() -> None:
    primaries = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert is_srgb(((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", primaries)))
    assert is_srgb(((b"sRGB", b"\0"),))
    assert not is_srgb(LINEAR)
    assert not is_srgb(P3)
    assert profile_for(((b"cHRM", bytes(32)),), 3) is None
