"""Test what stands around the pixels of JPEG files, and that a missing end marker is not taken for missing pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsr_cli.errors import MediaError
from repsr_cli.image.files import open_image, read_image, write_image
from repsr_cli.image.formats import format_for
from repsr_cli.image.jpeg import with_end
from repsr_cli.image.losses import losses
from repsr_cli.image.page import Metadata, page_of

PHOTOSHOP = b"8BIM\x04\x04\0\0" + struct.pack(">I", 14) + b"\x1c\x02\x78\0\x09a caption"


def encoded(**options: object) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(5, 0).repeat(6, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    whole = encoded()
    parts = b"".join(struct.pack(">BBH", 255, marker, len(data) + 2) + data for marker, data in segments)
    return whole[:20] + parts + whole[20:]


def again(tmp_path: Path, data: bytes, suffix: str = ".jpg") -> bytes:
    (tmp_path / "a.jpg").write_bytes(data)
    source = open_image(tmp_path / "a.jpg")
    write_image(tmp_path / f"b{suffix}", source.pages())
    return (tmp_path / f"b{suffix}").read_bytes()


def test_iptc_is_carried_to_jpeg_tiff_and_png_and_named_elsewhere(tmp_path: Path) -> None:
    data = with_segments((0xED, b"Photoshop 3.0\0" + PHOTOSHOP))
    assert b"Photoshop 3.0\0" + PHOTOSHOP in again(tmp_path, data)
    assert PHOTOSHOP in again(tmp_path, data, ".tif")
    again(tmp_path, data, ".png")
    text = dict(read_image(tmp_path / "b.png").metadata.text)["Raw profile type iptc"]
    assert PHOTOSHOP.hex() in text.replace("\n", "")
    page = read_image(tmp_path / "a.jpg").page()
    assert losses(format_for(Path("a.webp")), page, (9, 9)) == ("IPTC captions",)
    assert losses(format_for(Path("a.webp")), page, (9, 9), strip_metadata=True) == ()


def test_long_photoshop_blocks_are_split_and_joined(tmp_path: Path) -> None:
    block = PHOTOSHOP * 5000
    write_image(tmp_path / "a.jpg", [page_of(np.zeros((9, 9, 3), np.uint8), None, Metadata(photoshop=block))])
    assert read_image(tmp_path / "a.jpg").metadata.photoshop == block


def test_all_comments_and_private_segments_are_carried(tmp_path: Path) -> None:
    data = with_segments((0xFE, b"one"), (0xE4, b"VENDOR\0data"), (0xFE, "zwei \u00fc".encode()), (0xFE, b"dr\xe9i"))
    written = again(tmp_path, data)
    assert written.count(b"\xff\xfe") == 3
    assert b"VENDOR\0data" in written
    texts = [text for _, text in read_image(tmp_path / "b.jpg").metadata.text]
    assert texts == ["one", "zwei \u00fc", "dr\u00e9i"]
    named = losses(format_for(Path("a.tif")), read_image(tmp_path / "a.jpg").page(), (9, 9))
    assert named == ("comments", "application data (APP4)")


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif"])
def test_aspect_ratios_without_a_unit_are_carried(tmp_path: Path, target: str) -> None:
    data = bytearray(encoded())
    data[13:18] = struct.pack(">BHH", 0, 2, 1)
    again(tmp_path, bytes(data), target)
    aspect = read_image(tmp_path / f"b{target}").metadata.aspect
    assert aspect is not None
    assert aspect[0] == 2 * aspect[1]
    named = losses(format_for(Path("a.webp")), read_image(tmp_path / "a.jpg").page(), (9, 9))
    assert named == ("its pixel aspect ratio",)


def test_the_video_of_a_motion_photo_stays_at_the_end(tmp_path: Path) -> None:
    video = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20
    assert again(tmp_path, encoded() + b"MotionPhoto_Data" + video).endswith(b"MotionPhoto_Data" + video)
    named = losses(format_for(Path("a.png")), read_image(tmp_path / "a.jpg").page(), (9, 9))
    assert named == ("the video of a motion photo",)


def test_what_follows_an_image_is_named_where_it_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    video = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20
    for after, word in (
        (encoded(), "gain maps"),
        (b"\0" * 64 + encoded() + video, "gain maps"),
        (b"SEFH" + bytes(range(40)), "44 bytes after the image"),
        (video, ""),
        (b"\0" * 500 + b"\r\n", ""),
        (b"", ""),
    ):
        path.write_bytes(encoded() + after)
        notes = " ".join(read_image(path).notes)
        assert word in notes if word else not notes
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
        path, "MPO", save_all=True, append_images=[Image.fromarray(np.zeros((4, 4, 3), np.uint8))]
    )
    assert "".join(read_image(path).notes).count("gain maps") == 1


@pytest.mark.parametrize("field", ["exif", "xmp"])
@pytest.mark.parametrize("size", [65_000, 70_000])
def test_what_is_larger_than_a_segment_is_named_and_left_out(tmp_path: Path, field: str, size: int) -> None:
    content = b"II*\0\x08\0\0\0\0\0\0\0\0\0".ljust(size, b"x")
    page = page_of(
        np.zeros((9, 9, 3), np.uint8), None, Metadata(exif=content) if field == "exif" else Metadata(xmp=content)
    )
    large = size > 65_533
    named = losses(format_for(Path("a.jpg")), page, (9, 9))
    assert named == ((f"{field.upper()} of more than 64 KB",) if large else ())
    write_image(tmp_path / "a.jpg", [page])
    assert (getattr(read_image(tmp_path / "a.jpg").metadata, field) is None) == large


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_only_a_missing_end_marker_is_forgiven(progressive: bool, subsampling: int) -> None:
    data = encoded(progressive=progressive, subsampling=subsampling)
    for cut in (data[:-2], data[:-1]):
        mended = with_end(cut)
        assert mended is not None
        with Image.open(io.BytesIO(mended)) as there, Image.open(io.BytesIO(data)) as whole:
            assert np.array_equal(np.asarray(there), np.asarray(whole))
    for lacking in (3, 4, 8, 50, len(data) // 3, len(data) // 2):
        assert with_end(data[:-lacking]) is None


def test_scans_that_are_missing_altogether_are_noticed() -> None:
    data = encoded(progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4")
    assert with_end(data[: min(last, tables)]) is None


def test_a_missing_end_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded()[:-2])
    assert read_image(tmp_path / "a.jpg").notes == ("Its end marker is missing; all pixels are there.",)
    (tmp_path / "a.jpg").write_bytes(encoded()[:-60])
    with pytest.raises(MediaError, match="truncated"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("marker", "bits", "says"),
    [(0xC1, 12, "12 bits"), (0xC3, 8, "lossless"), (0xC3, 16, "lossless"), (0xC5, 8, "hierarchical")],
)
def test_rare_kinds_of_jpeg_are_called_what_they_are(tmp_path: Path, marker: int, bits: int, says: str) -> None:
    data = bytearray(encoded())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(MediaError, match=says):
        read_image(tmp_path / "a.jpg")
