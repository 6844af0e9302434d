"""Test that what the container of an AVIF image crops is cropped, at every depth and before any rotation."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.image.files import open_image, read_image
from repsr_cli.image.heif import boxes

WHOLE = (64, 48)


def encoded(mode: str, bits: int, exif: bytes = b"") -> bytes:
    y, x = np.mgrid[0 : WHOLE[1], 0 : WHOLE[0]]
    pixels = np.stack([x * 4, y * 5, x + y], 2).astype(np.uint8)
    if bits > 8:
        cv2 = pytest.importorskip("cv2")
        deep = pixels.astype(np.uint16) << (bits - 8)
        settings = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 95]
        return bytes(cv2.imencode(".avif", deep, settings)[1])
    written = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(written, "AVIF", quality=95, exif=exif)
    return written.getvalue()


def with_clean_aperture(data: bytes, aperture: bytes) -> bytes:
    """The same file whose first item, the primary one, has a ``clap`` property."""
    places = {}

    def find(start: int, end: int) -> None:
        for kind, at, content, stop in boxes(io.BytesIO(data[start:end]), end - start):
            places[kind] = (start + at, start + stop)
            if kind in (b"meta", b"iprp"):
                find(start + content + (4 if kind == b"meta" else 0), start + stop)

    find(0, len(data))
    (ipco, ipco_end), ipma = places[b"ipco"], places[b"ipma"][0]
    box = struct.pack(">I4s", 8 + len(aperture), b"clap") + aperture
    number = sum(1 for _ in boxes(io.BytesIO(data[ipco + 8 : ipco_end]), ipco_end - ipco - 8)) + 1
    count = ipma + 18  # of the first item's properties
    own = data[count + 1 : count + 1 + data[count]] + bytes([0x80 | number])
    made = bytearray(data[:ipco_end] + box + data[ipma:count] + bytes([len(own)]) + own + data[count + len(own) :])
    grown = len(box) + 1
    moved = {b"ipco": 0, b"ipma": len(box), b"iprp": 0, b"meta": 0}
    for kind, by in moved.items():
        at = places[kind][0] + by
        longer = {b"ipco": len(box), b"ipma": 1}.get(kind, grown)
        struct.pack_into(">I", made, at, struct.unpack_from(">I", made, at)[0] + longer)
    at = places[b"iloc"][0] + 14
    for _ in range(struct.unpack_from(">H", made, at)[0]):  # id, reference, count of extents, offset, length
        struct.pack_into(">I", made, at + 8, struct.unpack_from(">I", made, at + 8)[0] + grown)
        at += 14
    return bytes(made)


@pytest.mark.parametrize(("mode", "bits"), [("RGB", 8), ("RGBA", 8), ("L", 8), ("RGB", 10)])
def test_the_clean_aperture_is_what_is_shown(tmp_path: Path, mode: str, bits: int) -> None:
    data = encoded(mode, bits)
    (tmp_path / "whole.avif").write_bytes(data)
    left, top, width, height = 9, 4, 31, 24
    aperture = struct.pack(">IIIIiIiI", width, 1, 2 * height, 2, 2 * left + width - 64, 2, 2 * top + height - 48, 2)
    (tmp_path / "a.avif").write_bytes(with_clean_aperture(data, aperture))
    whole = read_image(tmp_path / "whole.avif")
    found = open_image(tmp_path / "a.avif")
    assert (found.height, found.width) == (height, width)
    page = next(iter(found.pages()))
    assert any("31x24 of its 64x48" in note for note in page.notes)
    read = page.read()
    assert read.samples.dtype == (np.uint8 if bits == 8 else np.uint16)
    rows, columns = slice(top, top + height), slice(left, left + width)
    assert np.array_equal(read.samples, whole.page().read().samples[rows, columns])


def test_the_clean_aperture_comes_before_the_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    aperture = struct.pack(">IIIIiIiI", 32, 1, 24, 1, -16, 1, -12, 1)  # the corner at the top left as stored
    (tmp_path / "a.avif").write_bytes(with_clean_aperture(encoded("RGB", 8, exif.tobytes()), aperture))
    found = read_image(tmp_path / "a.avif")
    assert found.pixels.shape[:2] == (32, 24)
    assert found.pixels[0, -1].max() < 16


@pytest.mark.parametrize(
    "values",
    [(65, 1, 48, 1, 0, 1, 0, 1), (32, 1, 24, 1, 17, 1, 0, 1), (63, 2, 24, 1, 0, 1, 0, 1), (32, 0, 24, 1, 0, 1, 0, 1)],
)
def test_an_aperture_outside_the_image_is_said(tmp_path: Path, values: tuple[int, ...]) -> None:
    (tmp_path / "a.avif").write_bytes(with_clean_aperture(encoded("RGB", 8), struct.pack(">IIIIiIiI", *values)))
    found = read_image(tmp_path / "a.avif")
    assert found.pixels.shape[:2] == (48, 64)
    assert any("all of it is used" in note for note in found.notes)
