"""EXIF: read, written, and patched without touching what is not understood."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from repsr_cli.image.exif import (
    EXIF,
    ORIENTATION,
    Directory,
    DirectoryError,
    Entry,
    build_exif,
    exif_for,
    parse_exif,
    read_directory,
    shorts,
    stored_orientation,
    write_directory,
)


def pillow_exif(order: str = "<") -> bytes:
    """What a camera would write: orientation, sizes, a maker's note, and a thumbnail's directory."""
    exif = Image.Exif()
    exif.endian = order
    exif[ORIENTATION] = 6
    exif[0x010F] = "maker"
    exif.get_ifd(EXIF).update({0xA002: 4000, 0xA003: 3000, 0x927C: b"note" * 5, 0x829A: 0.004})
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_patching_changes_orientation_and_size_alone(order: str) -> None:
    before = pillow_exif(order)
    after = exif_for(before, 1234, 70000)
    assert len(after) == len(before)
    assert stored_orientation(before) == 6
    assert stored_orientation(after) == 1
    read = Image.Exif()
    read.load(after)
    nested = read.get_ifd(EXIF)
    assert (nested[0xA002], nested[0xA003]) == (70000, 1234)
    assert (read[0x010F], nested[0x927C], float(nested[0x829A])) == ("maker", b"note" * 5, 0.004)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 12


def test_thumbnail_of_the_old_image_is_unhooked() -> None:
    exif = build_exif({271: Entry(2, b"maker\0")})
    at = 8 + 2 + 12
    hooked = exif[:at] + struct.pack("<I", 8) + exif[at + 4 :]
    assert exif_for(hooked, 1, 1) == exif


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"nonsense" * 9, pillow_exif()[:30], b"II\x2a\0\xff\xff\xff\xff" + bytes(40)]
)
def test_damaged_exif_is_left_alone(exif: bytes) -> None:
    assert stored_orientation(exif) is None
    assert len(exif_for(exif, 3, 4)) == len(exif)


@pytest.mark.parametrize("big", [False, True])
def test_directories_are_read_as_written(big: bool) -> None:
    tags: Directory = {
        256: shorts(7),
        258: shorts(8, 8, 8, 8, 8),
        270: Entry(2, b"odd"),
        282: Entry(5, struct.pack("<II", 3, 2)),
        EXIF: {33434: Entry(5, struct.pack("<II", 1, 3)), 36864: Entry(7, b"0232")},
    }
    data = bytes(10) + write_directory(tags, 10, big=big)
    assert read_directory(io.BytesIO(data), 10, "<", big=big) == (tags, 0)


def test_the_other_byte_order_is_read_as_numbers() -> None:
    tags = parse_exif(pillow_exif(">"))
    entry = tags[ORIENTATION]
    assert isinstance(entry, Entry)
    assert entry.numbers == (6,)


def test_what_reaches_outside_is_an_error() -> None:
    with pytest.raises(DirectoryError):
        read_directory(io.BytesIO(b"\xff\xff" + bytes(100)), 0, "<", big=False)
    with pytest.raises(DirectoryError):
        read_directory(io.BytesIO(bytes(4)), 1 << 62, "<", big=False)


def test_real_cameras(real_data: Path) -> None:
    with Image.open(real_data / "images" / "sideways_bench_exif.jpg") as image:
        exif = image.info["exif"].removeprefix(b"Exif\0\0")
    assert stored_orientation(exif) == 5
    assert stored_orientation(exif_for(exif, 10, 20)) == 1
