"""PNG at every depth and colour type, against encoders and decoders that are not ours."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from repsr_cli.errors import MediaError
from repsr_cli.image import png as image_png
from repsr_cli.image.page import Metadata, Page, page_of
from repsr_cli.image.png import open_png
from repsr_cli.image.png_chunks import SIGNATURE
from repsr_cli.image.png_writer import _paeth, write_png
from tests.conftest import frame_count, present


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, lines: bytes, *extra: bytes) -> bytes:
    """A PNG of given unfiltered lines (each after its filter byte), made by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND")


def opened(path: Path, data: bytes) -> Page:
    path.write_bytes(data)
    (page,) = open_png(path).pages()
    return page


def written(*pages: Page, loop: int | None = None) -> bytes:
    file = io.BytesIO()
    write_png(file, pages, count=len(pages), loop=loop)
    return file.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (70, 33)])
def test_what_is_written_is_read_back(
    tmp_path: Path, dtype: type, channels: int, alpha: bool, size: tuple[int, int]
) -> None:
    pixels, hidden = noise(*size, channels, dtype=dtype), noise(*size, dtype=dtype) if alpha else None
    page = opened(tmp_path / "a.png", written(page_of(pixels, hidden)))
    strip = page.read()
    assert (page.height, page.width, page.channels, page.dtype, page.alpha) == (*size, channels, np.dtype(dtype), alpha)
    assert np.array_equal(strip.pixels, pixels)
    assert hidden is None or np.array_equal(present(strip.alpha), hidden)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pillow_reads_what_is_written(mode: str) -> None:
    samples = noise(40, 31, len(mode))
    colour = samples[..., : 1 if mode[0] == "L" else 3]
    data = written(page_of(colour, samples[..., -1] if mode[-1] == "A" else None))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


def test_opencv_reads_16_bit_as_written() -> None:
    cv2 = pytest.importorskip("cv2")
    for channels in (1, 3):
        pixels = noise(23, 19, channels, dtype=np.uint16)
        decoded = cv2.imdecode(np.frombuffer(written(page_of(pixels)), np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == np.uint16
        assert np.array_equal(decoded.reshape(pixels.shape)[..., ::-1], pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_of_opencv_is_read_to_the_last_bit(tmp_path: Path, channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    samples = noise(61, 47, channels, dtype=np.uint16) // 64  # a dark image, whose upper bytes are almost empty
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    ok, data = cv2.imencode(".png", samples[..., order])
    assert ok
    strip = opened(tmp_path / "a.png", data.tobytes()).read()
    assert strip.pixels.dtype == np.uint16
    assert np.array_equal(strip.pixels, samples[..., :3])
    assert channels < 4 or np.array_equal(present(strip.alpha), samples[..., 3])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_interlaced_equals_plain(tmp_path: Path, mode: str, real_data: Path) -> None:
    """No encoder at hand interlaces, so lines are laid out by hand: seven reduced images, unfiltered."""
    with Image.open(real_data / "images" / "pil123rgba.png") as photo:
        image = photo.convert("RGB" if mode == "P" else mode).convert(mode).crop((0, 0, 45, 37))
    plain = io.BytesIO()
    image.save(plain, "PNG")
    samples = np.asarray(image).reshape(37, 45, -1)
    lines = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for line in samples[y::dy, x::dx]:
            lines += b"\0" + (np.packbits(line) if mode == "1" else line).tobytes()
    kinds = {"1": (1, 0), "L": (8, 0), "P": (8, 3), "RGB": (8, 2), "RGBA": (8, 6), "LA": (8, 4)}
    header = struct.pack(">IIBBBBB", 45, 37, *kinds[mode], 0, 0, 1)
    palette = chunk(b"PLTE", bytes(image.getpalette() or [])) if mode == "P" else b""
    data = SIGNATURE + chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND")
    expected, found = opened(tmp_path / "a.png", plain.getvalue()).read(), opened(tmp_path / "b.png", data).read()
    assert np.array_equal(found.pixels, expected.pixels)
    assert (found.alpha is None) == (expected.alpha is None)
    assert found.alpha is None or np.array_equal(found.alpha, present(expected.alpha))


@pytest.mark.parametrize(("depth", "step"), [(1, 255), (2, 85), (4, 17)])
def test_shallow_grey_spans_the_whole_range(tmp_path: Path, depth: int, step: int) -> None:
    values = np.arange(2**depth).repeat(3)[: 2**depth * 3 - 1]
    bits = "".join(f"{value:0{depth}b}" for value in values)
    line = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    strip = opened(tmp_path / "a.png", png(len(values), 1, depth, 0, b"\0" + line)).read()
    assert np.array_equal(strip.pixels[0, :, 0], values * step)


def test_transparent_colour_of_16_bit_grey_is_compared_before_anything_is_rounded(tmp_path: Path) -> None:
    lines = b"\0" + struct.pack(">HHH", 255, 256, 65535)
    strip = opened(tmp_path / "a.png", png(3, 1, 16, 0, lines, chunk(b"tRNS", b"\0\xff"))).read()
    assert strip.pixels[0, :, 0].tolist() == [255, 256, 65535]
    assert strip.alpha is not None
    assert strip.alpha[0].tolist() == [0, 65535, 65535]


def test_palette_with_partial_transparency(tmp_path: Path) -> None:
    colours = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    data = png(4, 1, 2, 3, b"\0" + bytes([0b00011000]), colours, chunk(b"tRNS", bytes([0, 128])))
    strip = opened(tmp_path / "a.png", data).read()
    assert strip.pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]]
    assert strip.alpha is not None
    assert strip.alpha[0].tolist() == [0, 128, 255, 0]


def test_a_palette_of_greys_is_grey(tmp_path: Path) -> None:
    page = opened(tmp_path / "a.png", png(2, 1, 8, 3, b"\0\1\0", chunk(b"PLTE", bytes([9, 9, 9, 200, 200, 200]))))
    assert page.channels == 1
    assert page.read().pixels.ravel().tolist() == [200, 9]


def test_strips_equal_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every filter reaches into the line above, which may belong to the strip before."""
    pixels = np.cumsum(noise(90, 40, 3) // 32, axis=0, dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        data = file.getvalue()
    monkeypatch.setattr(image_png, "_STRIP_BYTES", 7 * 121)
    page = opened(tmp_path / "a.png", data)
    strips = list(page.strips())
    assert [len(strip.pixels) for strip in strips] == [7] * 12 + [6]
    assert np.array_equal(page.read().pixels, pixels)


def test_metadata_survive(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    info.add_itxt("Title", "\u6771\u4eac", zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    info.add(b"cICP", bytes([9, 16, 0, 1]))
    exif = Image.Exif()
    exif[0x010F] = "maker"
    file = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).save(file, "PNG", pnginfo=info, dpi=(300, 150), exif=exif, icc_profile=b"profile")
    found = opened(tmp_path / "a.png", file.getvalue()).metadata
    assert found.icc == b"profile"
    assert found.xmp == b"<x:xmpmeta/>"
    assert set(found.text) == {("Author", "somebody"), ("Title", "\u6771\u4eac")}
    assert found.colour == ((b"cICP", bytes([9, 16, 0, 1])),)
    assert found.dpi == pytest.approx((300, 150), abs=0.02)
    assert b"maker" in (found.exif or b"")
    again = opened(tmp_path / "b.png", written(page_of(noise(4, 4, 3), None, found))).metadata
    assert again == found


def animation(alpha: bool = True) -> list[Page]:
    durations = [Fraction(1, 30), Fraction(1001, 30000), Fraction(5), Fraction(0)]
    return [
        page_of(noise(8, 9, 3) // (index + 1), noise(8, 9) if alpha else None, Metadata(), duration)
        for index, duration in enumerate(durations)
    ]


def test_animation_keeps_frames_durations_and_loop(tmp_path: Path) -> None:
    frames = animation()
    (tmp_path / "a.png").write_bytes(written(*frames, loop=3))
    source = open_png(tmp_path / "a.png")
    assert (source.count, source.loop) == (4, 3)
    for found, frame in zip(source.pages(), frames, strict=True):
        assert found.duration == frame.duration
        assert np.array_equal(found.read().pixels, frame.read().pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert (frame_count(image), image.info["loop"]) == (4, 3)


def test_equal_frames_stay_frames(tmp_path: Path) -> None:
    frame = page_of(noise(5, 5, 3), None, Metadata(), Fraction(1, 10))
    (tmp_path / "a.png").write_bytes(written(frame, frame, frame, loop=0))
    assert open_png(tmp_path / "a.png").count == 3


def test_still_before_an_animation_is_kept_apart(tmp_path: Path) -> None:
    still = page_of(noise(8, 9, 3), noise(8, 9))
    (tmp_path / "a.png").write_bytes(written(still, *animation(), loop=0))
    assert [page.duration is None for page in open_png(tmp_path / "a.png").pages()] == [True] + [False] * 4
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["default_image"] is True


@pytest.mark.parametrize("name", ["dispose_op_previous", "delay", "mode_palette_alpha", "split_fdat"])
def test_composition_equals_pillow(real_data: Path, name: str) -> None:
    path = real_data / "images" / f"apng_{name}.png"
    for index, page in enumerate(open_png(path).pages()):
        with Image.open(path) as image:  # anew, since Pillow's disposal goes wrong where a frame was looked at before
            image.seek(index)
            expected = np.asarray(image.convert("RGBA"))
        strip = page.read()
        visible = expected[..., 3] > 0
        assert strip.alpha is not None
        assert np.array_equal(strip.alpha, expected[..., 3])
        assert np.array_equal(strip.pixels[visible], expected[..., :3][visible])


GREY_LINE = b"\0\x01\x02\x03\x04"
GOOD = png(4, 2, 8, 0, GREY_LINE * 2)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (GOOD[:8], "ends early"),
        (GOOD[:-14], "checksum"),
        (GOOD[:40], "ends early"),
        (GOOD.replace(b"IHDR\0\0\0\x04", b"IHDR\0\0\0\x05"), "checksum of chunk 'IHDR'"),
        (png(0, 2, 8, 0, GREY_LINE), "no width"),
        (png(4, 2, 7, 0, GREY_LINE * 2), "does not have"),
        (png(4, 2, 8, 5, GREY_LINE * 2), "does not have"),
        (png(4, 2, 8, 3, GREY_LINE * 2), "palette is missing"),
        (png(4, 3, 8, 0, GREY_LINE * 2), "fewer lines"),
        (png(4, 2, 8, 0, b"\x09\1\1\1\1" * 2), "cannot be decoded"),
        (SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND"), "before the header"),
        (SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)) + chunk(b"IEND"), "no pixels"),
    ],
)
def test_damage_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(MediaError, match=says) as caught:
        opened(tmp_path / "a.png", data).read()
    assert "a.png" in str(caught.value)
    assert caught.value.remedy


def test_a_flipped_bit_among_the_pixels_is_found(tmp_path: Path) -> None:
    data = bytearray(written(page_of(noise(50, 50, 3))))
    data[data.index(b"IDAT") + 3000] ^= 4
    with pytest.raises(MediaError, match="damaged"):
        opened(tmp_path / "a.png", bytes(data)).read()


def test_paeth_is_the_specifications() -> None:
    """All 2**24 neighbourhoods would take a while; every fifth value of each is enough to meet every tie."""
    left, up, corner = np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3)
    wide = [x.astype(int) for x in (left, up, corner)]
    estimate = wide[0] + wide[1] - wide[2]
    a, b, c = (np.abs(estimate - x) for x in wide)
    expected = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
    assert np.array_equal(_paeth(left, up, corner), expected)


def broken(kind: bytes, data: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    whole = bytearray(chunk(kind, data))
    whole[-1] ^= 1
    return bytes(whole)


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (broken(b"tEXt", b"Title\0x"), "tEXt"),
        (broken(b"zTXt", b"Title\0\0x"), "zTXt"),
        (broken(b"pHYs", bytes(9)), "pHYs"),
        (broken(b"eXIf", b"II*\0"), "eXIf"),
        (broken(b"tIME", bytes(7)), "tIME"),
        (chunk(b"zTXt", b"Title\0\0not deflated"), "zTXt"),
        (chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27))), "zTXt"),
        (chunk(b"iTXt", b"Title\0\1\0\0\0not deflated"), "iTXt"),
        (chunk(b"iCCP", b"name\0\0not deflated"), "iCCP"),
        (chunk(b"cHRM", bytes(20)), "cHRM"),
        (chunk(b"gAMA", bytes(4)), "gAMA"),
        (chunk(b"gAMA", bytes(3)), "gAMA"),
        (chunk(b"cICP", bytes(3)), "cICP"),
        (chunk(b"pHYs", bytes(3)), "pHYs"),
        (chunk(b"sRGB", b""), "sRGB"),
    ],
)
def test_damaged_ancillary_chunks_are_left_out_and_said(tmp_path: Path, extra: bytes, name: str) -> None:
    found = opened(tmp_path / "a.png", png(4, 2, 8, 0, GREY_LINE * 2, extra))
    assert name in found.notes[0]
    assert "damaged" in found.notes[0]
    data = written(found)
    assert name.encode() not in data
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), found.read().pixels[..., 0])


def test_a_missing_end_is_said_and_missing_pixels_are_damage(tmp_path: Path) -> None:
    for cut in (12, 8, 5):
        found = opened(tmp_path / "a.png", GOOD[:-cut])
        assert np.array_equal(found.read().pixels, opened(tmp_path / "b.png", GOOD).read().pixels)
        assert ("end is missing" in "".join(found.notes)) == (cut > 4)
    movie = written(*animation(), loop=0)
    with pytest.raises(MediaError, match="frames of the animation are missing"):
        opened(tmp_path / "a.png", movie[: movie.rindex(b"fcTL") - 4])


@pytest.mark.parametrize(
    ("after", "count"),
    [(b"", 0), (bytes(900), 0), (b"\r\n", 0), (b"PK\3\4" + bytes(996), 1000), (bytes(70_000) + b"PK", 70_002)],
)
def test_what_follows_the_end_is_named(tmp_path: Path, after: bytes, count: int) -> None:
    found = opened(tmp_path / "a.png", GOOD + after)
    assert found.notes == ((f"{count} bytes after the image are left out.",) if count else ())


@pytest.mark.parametrize("absent", [False, True])
def test_a_wrong_checksum_of_zlib_is_no_damage(tmp_path: Path, absent: bool) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(9, 11, 3)).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    pixels = bytearray(data[at + 4 : at + 4 + size])
    if absent:
        del pixels[-4:]
    else:
        pixels[-1] ^= 255
    mended = data[: at - 4] + chunk(b"IDAT", bytes(pixels)) + data[at + 8 + size :]
    assert np.array_equal(opened(tmp_path / "a.png", mended).read().pixels, noise(9, 11, 3))


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_colours_beyond_the_palette_are_black_and_said(tmp_path: Path, depth: int, transparent: bool) -> None:
    lines = b"".join(b"\0" + bytes([row] * (4 * depth // 8)) for row in (0, 255))
    extra = chunk(b"PLTE", bytes([9, 8, 7])) + (chunk(b"tRNS", b"\x80") if transparent else b"")
    found = opened(tmp_path / "a.png", png(4, 2, depth, 3, lines, extra))
    assert "palette lacks" in found.notes[0]
    pixels, alpha = found.read()
    assert pixels[:, 0].tolist() == [[9, 8, 7], [0, 0, 0]]
    if alpha is not None:
        assert alpha[:, 0].tolist() == [128, 255]
    whole = opened(tmp_path / "a.png", png(4, 2, depth, 3, lines, chunk(b"PLTE", bytes(3 * 2**depth))))
    assert whole.notes == ()


def test_chunks_are_copied_where_that_is_safe_and_named_where_not(tmp_path: Path) -> None:
    itxt = b"Title\0\0\0de\0Titel\0gr\xc3\xbcn"
    safe = (chunk(b"oFFs", bytes(9)), chunk(b"prVt", b"data"), chunk(b"iTXt", itxt))
    other = (chunk(b"bKGD", b"\0\x40"), chunk(b"tIME", bytes(7)), chunk(b"caBX", b"jumb"))
    found = opened(tmp_path / "a.png", png(4, 2, 8, 0, GREY_LINE * 2, *safe, *other))
    data = written(found)
    assert all(part in data for part in safe)
    assert chunk(b"bKGD", b"\0\x40") in data
    assert "tIME" in " ".join(found.notes)
    assert "caBX" in " ".join(found.notes)
    with pytest.raises(MediaError, match="CgBI"):
        opened(tmp_path / "a.png", SIGNATURE + chunk(b"CgBI", bytes(4)) + GOOD[8:])


def test_the_background_fits_the_new_pixels(tmp_path: Path) -> None:
    palette = chunk(b"PLTE", bytes(range(12)))
    found = opened(tmp_path / "a.png", png(4, 2, 2, 3, b"\0\x1b" * 2, palette, chunk(b"bKGD", b"\2")))
    assert chunk(b"bKGD", struct.pack(">3H", 6, 7, 8)) in written(found)
    grey = opened(tmp_path / "a.png", png(4, 2, 2, 0, b"\0\x1b" * 2, chunk(b"bKGD", b"\0\2")))
    assert chunk(b"bKGD", struct.pack(">H", 170)) in written(grey)


def test_pixel_aspect_without_a_unit(tmp_path: Path) -> None:
    found = opened(tmp_path / "a.png", png(4, 2, 8, 0, GREY_LINE * 2, chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))))
    assert found.metadata.aspect == (2, 1)
    assert chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0)) in written(found)
