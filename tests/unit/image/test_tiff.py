"""TIFF at every depth and layout, against encoders and decoders that are not ours."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from repsr_cli.errors import MediaError
from repsr_cli.image import tiff as image_tiff
from repsr_cli.image.exif import (
    EXIF,
    Directory,
    Entry,
    build_exif,
    longs,
    parse_exif,
    read_directory,
    read_header,
    shorts,
    write_directory,
)
from repsr_cli.image.files import read_image
from repsr_cli.image.page import Metadata, Page, page_of
from repsr_cli.image.tiff import open_tiff, write_tiff
from tests.conftest import frame_count, present


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    values = np.random.default_rng(5).random(shape)
    return (values if np.dtype(dtype).kind == "f" else values * np.iinfo(dtype).max).astype(dtype)


def write(path: Path, *pages: Page) -> Path:
    with path.open("w+b") as file:
        write_tiff(file, pages, count=len(pages))
    return path


def only_page(path: Path) -> Page:
    (page,) = open_tiff(path).pages()
    return page


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (37, 53)])
def test_what_is_written_is_read_back(
    tmp_path: Path, dtype: Any, channels: int, alpha: bool, size: tuple[int, int]
) -> None:
    pixels, hidden = noise(*size, channels, dtype=dtype), noise(*size, dtype=dtype) if alpha else None
    page = only_page(write(tmp_path / "a.tif", page_of(pixels, hidden)))
    strip = page.read()
    assert (page.height, page.width, page.channels, page.dtype, page.alpha) == (*size, channels, dtype, alpha)
    assert np.array_equal(strip.pixels, pixels)
    assert hidden is None or np.array_equal(present(strip.alpha), hidden)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_opencv_reads_what_is_written(tmp_path: Path, dtype: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    for channels in (1, 3):
        pixels = noise(41, 29, channels, dtype=dtype)
        decoded = cv2.imread(str(write(tmp_path / "a.tif", page_of(pixels))), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == dtype
        assert np.array_equal(decoded.reshape(pixels.shape)[..., ::-1], pixels)


@pytest.mark.parametrize("big", [False, True])
def test_strips_of_any_height_and_big_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, big: bool) -> None:
    monkeypatch.setattr(image_tiff, "_WRITTEN_BYTES", 5 * 17 * 3)
    monkeypatch.setattr(image_tiff, "_BLOCK_BYTES", 3 * 17 * 3)
    if big:
        monkeypatch.setattr(image_tiff, "_CLASSIC_BYTES", 0)
    pixels = noise(43, 17, 3)
    cuts = [page_of(pixels[top : top + 4]).read() for top in range(0, 43, 4)]
    page = page_of(pixels)
    page = Page(page.height, page.width, 3, page.dtype, False, lambda: iter(cuts))
    path = write(tmp_path / "a.tif", page, page)
    assert path.read_bytes()[2] == (43 if big else 42)
    for found in open_tiff(path).pages():
        assert np.array_equal(found.read().pixels, pixels)
    with Image.open(path) as image:
        assert frame_count(image) == 2
        image.seek(1)
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "rowsperstrip": 7, "compression": "zlib"},
        {"planarconfig": "separate", "tile": (16, 16)},
        {"rowsperstrip": 13},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_every_layout_of_tifffile_is_read(tmp_path: Path, layout: dict[str, Any], dtype: Any) -> None:
    tifffile = pytest.importorskip("tifffile")
    if layout.get("predictor") and np.dtype(dtype).kind == "f":
        pytest.skip("tifffile differences floats with another package only")
    pixels = noise(70, 51, 3, dtype=dtype)
    stored = pixels.transpose(2, 0, 1) if "planarconfig" in layout else pixels
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(stored), photometric="rgb", **layout)
    found = only_page(tmp_path / "a.tif").read().pixels
    assert found.dtype == (np.float32 if np.dtype(dtype).kind == "f" else dtype)
    assert np.array_equal(found, pixels.astype(found.dtype))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "raw"])
def test_every_compression_of_pillow_is_read(tmp_path: Path, compression: str) -> None:
    pixels = np.cumsum(noise(60, 50, 3) // 40, axis=1, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(only_page(tmp_path / "a.tif").read().pixels, pixels)


def test_16_bit_lzw_of_opencv_is_read_to_the_last_bit(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = noise(60, 50, 3, dtype=np.uint16) // 100
    cv2.imwrite(str(tmp_path / "a.tif"), pixels[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert np.array_equal(only_page(tmp_path / "a.tif").read().pixels, pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_jpeg_in_strips_is_as_pillow_decodes_it(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.cumsum(noise(100, 90, 3) // 60, axis=0, dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.tif", compression="jpeg", tiffinfo={278: 32})
    page = only_page(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as written:
        assert isinstance(written, TiffImagePlugin.TiffImageFile)
        assert written.tag_v2[262] == {"L": 1, "RGB": 2, "YCbCr": 6}[mode]
        expected = np.asarray(written.convert("L" if mode == "L" else "RGB"))
    assert len(list(page.strips())) == 4
    assert np.array_equal(page.read().pixels.reshape(expected.shape), expected)


@pytest.mark.parametrize("compression", ["group4", "jpeg", "tiff_lzw"])
def test_what_pillow_decodes_is_as_pillow_decodes_it(tmp_path: Path, compression: str) -> None:
    mode = {"group4": "1", "jpeg": "CMYK", "tiff_lzw": "P"}[compression]
    image = Image.fromarray(np.cumsum(noise(40, 32, 3) // 60, axis=0, dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    page = only_page(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as again:
        expected = np.asarray(again.convert("L" if mode == "1" else "RGB"))
    assert page.channels == (1 if mode == "1" else 3)
    assert np.array_equal(page.read().pixels.reshape(expected.shape), expected)


def test_white_is_zero_is_inverted(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(9, 7, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    assert np.array_equal(only_page(tmp_path / "a.tif").read().pixels[..., 0], 65535 - pixels)


def test_multiplied_in_transparency_is_divided_out(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    colour, alpha = noise(20, 20, 3, dtype=np.uint16), noise(20, 20, dtype=np.uint16)
    alpha[:5] = 0
    alpha[5:10] = 65535
    stored = np.dstack([np.floor(colour * (alpha[..., None] / 65535) + 0.5).astype(np.uint16), alpha])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    strip = only_page(tmp_path / "a.tif").read()
    assert strip.alpha is not None
    assert np.array_equal(strip.alpha, alpha)
    assert np.array_equal(strip.pixels[5:10], colour[5:10])
    solid = alpha > 20000
    assert np.abs(strip.pixels[solid].astype(int) - colour[solid]).max() <= 2


def test_channels_that_mean_neither_colour_nor_transparency_are_left_out_and_said(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    stored = noise(6, 6, 5)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unspecified", "unspecified"])
    page = only_page(tmp_path / "a.tif")
    assert not page.alpha
    assert np.array_equal(page.read().pixels, stored[..., :3])
    assert "2 channels" in page.notes[0]


def test_metadata_survive(tmp_path: Path) -> None:
    nested: Directory = {33434: Entry(5, struct.pack("<II", 1, 250)), 37500: Entry(7, b"maker's note")}
    exif = build_exif({271: Entry(2, b"maker\0"), 33432: Entry(2, b"me\0"), EXIF: nested})
    meta = Metadata(icc=b"\0" * 16 + b"RGB profile", exif=exif, xmp=b"<x:xmpmeta/>", dpi=(300.0, 72.5))
    found = only_page(write(tmp_path / "a.tif", page_of(noise(3, 3, 3), None, meta))).metadata
    assert (found.icc, found.xmp, found.dpi) == (meta.icc, meta.xmp, meta.dpi)
    assert parse_exif(found.exif or b"") == parse_exif(exif)
    with Image.open(tmp_path / "a.tif") as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        assert image.tag_v2[271] == "maker"
        assert image.getexif().get_ifd(EXIF)[33434] == 1 / 250


def test_pages_may_differ(tmp_path: Path) -> None:
    pages = [page_of(noise(5, 4, 3)), page_of(noise(9, 2, 1, dtype=np.uint16)), page_of(noise(3, 3, 3), noise(3, 3))]
    path = write(tmp_path / "a.tif", *pages)
    assert open_tiff(path).count == 3
    for found, page in zip(open_tiff(path).pages(), pages, strict=True):
        assert np.array_equal(found.read().pixels, page.read().pixels)


def damaged(**changes: Entry | None) -> bytes:
    """A TIFF of 2 x 2 grey px with some tags changed or taken away."""
    tags: dict[int, Any] = {
        256: Entry(3, b"\2\0"),
        257: Entry(3, b"\2\0"),
        258: Entry(3, b"\10\0"),
        262: Entry(3, b"\1\0"),
        273: Entry(4, struct.pack("<I", 8)),
        278: Entry(3, b"\2\0"),
        279: Entry(4, struct.pack("<I", 4)),
    }
    for name, entry in changes.items():
        tags.pop(int(name[1:]), None)
        if entry is not None:
            tags[int(name[1:])] = entry
    return b"II\x2a\0" + struct.pack("<I", 12) + b"\1\2\3\4" + write_directory(tags, 12)


def test_the_sound_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(damaged())
    assert only_page(tmp_path / "a.tif").read().pixels.ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"II\x2a\0", "no TIFF header"),
        (b"II\x2a\0" + struct.pack("<I", 9999), "beyond the end"),
        (damaged()[:-9], "beyond the end"),
        (damaged(_257=None), "no height"),
        (damaged(_273=None), "missing"),
        (damaged(_279=Entry(4, struct.pack("<I", 3))), "too short"),
        (damaged(_273=Entry(4, struct.pack("<I", 9999))), "ends early"),
        (damaged(_259=Entry(3, b"\10\0")), "cannot be inflated"),
        (damaged(_259=Entry(3, b"\5\0")), "cannot be unpacked"),
        (damaged(_262=Entry(3, struct.pack("<H", 32803))), "raw file"),
        (damaged(_254=Entry(4, b"\1\0\0\0"), _330=Entry(4, b"\0\0\0\0")), "camera's raw"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(MediaError, match=says) as caught:
        only_page(tmp_path / "a.tif").read()
    assert "a.tif" in str(caught.value)
    assert caught.value.remedy


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    data = bytearray(damaged())
    data[12 + 2 + 12 * 7 : 12 + 2 + 12 * 7 + 4] = struct.pack("<I", 12)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    assert open_tiff(tmp_path / "a.tif").count == 1


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    pixels = noise(4, 4, 3, dtype=np.float32)
    pixels[1, 1, 1] = np.nan
    with pytest.raises(MediaError, match="not numbers"):
        only_page(write(tmp_path / "a.tif", page_of(pixels))).read()


def tags_of(width: int, height: int, bits: int, samples: int, data: bytes, **changes: Entry | None) -> bytes:
    """An uncompressed TIFF of one strip; ``_274=...`` sets a tag, ``None`` removes it."""
    tags: dict[int, Any] = {
        256: shorts(width),
        257: shorts(height),
        258: shorts(*[bits] * samples),
        259: shorts(1),
        262: shorts(1 if samples == 1 else 2),
        273: longs([8]),
        277: shorts(samples),
        278: shorts(height),
        279: longs([len(data)]),
    } | {int(name[1:]): entry for name, entry in changes.items()}
    data += b"\0" * (len(data) % 2)
    at = 8 + len(data)
    kept: Any = {tag: entry for tag, entry in tags.items() if entry is not None}
    return b"II\x2a\0" + struct.pack("<I", at) + data + write_directory(kept, at)


def packed(values: NDArray[Any], bits: int) -> bytes:
    """Rows of samples of so many bits, most significant first, each row from a byte's start."""
    rows = values.reshape(len(values), -1)
    text = ["".join(f"{int(value):0{bits}b}" for value in row) for row in rows]
    return b"".join(
        int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8), "big") for line in text
    )


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("samples", [1, 3])
def test_10_to_14_bit_are_read_over_the_whole_range(tmp_path: Path, bits: int, samples: int) -> None:
    peak = 2**bits - 1
    values = np.linspace(0, peak, 5 * 7 * samples).astype(int).reshape(5, 7, samples)
    (tmp_path / "a.tif").write_bytes(tags_of(7, 5, bits, samples, packed(values, bits)))
    found = only_page(tmp_path / "a.tif").read().pixels
    assert found.dtype == np.uint16
    assert np.array_equal(found, (values * 65535 + peak // 2) // peak)


@pytest.mark.parametrize(
    ("bits", "samples", "kind", "says"),
    [
        (8, 1, 2, "signed 8-bit"),
        (8, 3, 2, "signed 8-bit"),
        (16, 3, 2, "signed 16-bit"),
        (32, 3, 1, "32-bit integers"),
        (24, 1, 1, "24-bit integers"),
        (64, 1, 1, "64-bit integers"),
        (64, 1, 6, "complex"),
    ],
)
def test_samples_that_are_not_read_are_called_what_they_are(
    tmp_path: Path, bits: int, samples: int, kind: int, says: str
) -> None:
    data = bytes(4 * 3 * samples * bits // 8)
    (tmp_path / "a.tif").write_bytes(tags_of(4, 3, bits, samples, data, _339=shorts(*[kind] * samples)))
    with pytest.raises(MediaError, match=says):
        open_tiff(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "L", "RGB"])
@pytest.mark.parametrize("compression", ["raw", "group4", "tiff_lzw"])
def test_orientation_is_applied_once_whoever_decodes(
    tmp_path: Path, orientation: int, mode: str, compression: str
) -> None:
    if compression == "group4" and mode != "1":
        return
    image = Image.fromarray(noise(10, 14, 3).repeat(3, 0).repeat(2, 1)).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    upright = read_image(tmp_path / "a.tif")
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={274: orientation})
    found = read_image(tmp_path / "a.tif")
    turned = np.swapaxes(upright.pixels, 0, 1) if orientation >= 5 else upright.pixels
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    turned = turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned
    assert np.array_equal(found.pixels, turned)


@pytest.mark.parametrize("kind", ["rgb", "cmyk", "bilevel", "palette"])
def test_strips_that_do_not_cover_the_image_are_missing_data(tmp_path: Path, kind: str) -> None:
    mode = {"rgb": "RGB", "cmyk": "CMYK", "bilevel": "1", "palette": "P"}[kind]
    for compression in ("raw", "tiff_lzw"):
        image = Image.fromarray(noise(40, 8, 3)).convert(mode)
        image.save(tmp_path / "a.tif", compression=compression, tiffinfo={278: 40})
        data = bytearray((tmp_path / "a.tif").read_bytes())
        at = next(at for kind in (3, 4) if (at := data.rfind(struct.pack("<HHI", 257, kind, 1))) >= 0)
        data[at + 8 : at + 10] = struct.pack("<H", 4000)
        (tmp_path / "b.tif").write_bytes(data)
        with pytest.raises(MediaError, match="missing"):
            read_image(tmp_path / "b.tif")
    (tmp_path / "c.tif").write_bytes(tags_of(4, 30, 8, 1, bytes(4 * 20)))
    with pytest.raises(MediaError, match="missing"):
        read_image(tmp_path / "c.tif")


def test_tiles_listed_as_strips_are_read(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(40, 50, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(16, 16), photometric="rgb", compression="deflate")
    with (tmp_path / "a.tif").open("rb") as file:
        order, big, offset = read_header(file)
        tags, _ = read_directory(file, offset, order, big=big)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for tile, strip in ((324, 273), (325, 279)):
        at = data.index(struct.pack("<H", tile), offset)
        data[at : at + 2] = struct.pack("<H", strip)
    (tmp_path / "b.tif").write_bytes(data)
    assert 324 in tags
    assert np.array_equal(only_page(tmp_path / "b.tif").read().pixels, pixels)


def test_pixel_aspect_without_a_unit(tmp_path: Path) -> None:
    page = page_of(noise(4, 5, 3), None, Metadata(aspect=(2.0, 1.0)))
    found = only_page(write(tmp_path / "a.tif", page)).metadata
    assert (found.aspect, found.dpi) == ((2, 1), None)
