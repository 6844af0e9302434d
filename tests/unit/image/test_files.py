"""Test opening and writing images: what is an image, what a format can hold, and that files are whole or not there."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.image import files as images
from repsr_cli.image.exif import ASCII, Entry, build_exif, stored_orientation
from repsr_cli.image.files import open_image, read_image, write_image
from repsr_cli.image.formats import FORMATS, format_for, is_image
from repsr_cli.image.losses import losses
from repsr_cli.image.page import Metadata, Page, page_of


def photo(height: int = 24, width: int = 36, channels: int = 3) -> NDArray[np.uint8]:
    """Something smooth, as codecs like it, and different in every corner."""
    y, x = np.mgrid[:height, :width]
    planes = [y * 200 // height, x * 200 // width, (x + y) * 100 // (height + width)]
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def writable(alpha: bool = False, many: str | None = None) -> list[str]:
    return [
        fmt.name
        for fmt in FORMATS
        if not fmt.package and (fmt.alpha or not alpha) and (many is None or fmt.many == many)
    ]


def suffix_of(name: str) -> str:
    return next(fmt.suffixes[0] for fmt in FORMATS if fmt.name == name)


@pytest.mark.parametrize("name", writable())
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(24, 36), (1, 1), (3, 5)])
def test_every_format_is_written_and_read(tmp_path: Path, name: str, channels: int, size: tuple[int, int]) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    pixels = photo(*size, channels)
    write_image(path, [page_of(pixels)])
    assert is_image(path)
    found = read_image(path)
    assert found.format == name
    assert found.pixels.shape[:2] == size
    scale = 255 if name == "PFM" else 1
    difference = np.abs(np.rint(found.pixels * np.float64(scale)).astype(int) - pixels)
    assert difference.max() <= (0 if open_image(path).lossless or name == "JPEG2000" else 24) or name == "GIF"
    assert difference.mean() < 6
    if name not in ("WEBP", "AVIF", "GIF", "BMP", "ICO"):
        assert found.pixels.shape[2] == channels


@pytest.mark.parametrize("name", writable(alpha=True))
def test_transparency_survives(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    alpha = np.full((24, 36), 255, np.uint8)
    alpha[6:18, 6:30] = 0
    write_image(path, [page_of(photo(), alpha)])
    found = read_image(path)
    assert found.alpha is not None
    assert np.abs(found.alpha.astype(int) - alpha).max() <= (4 if name == "AVIF" else 0)


@pytest.mark.parametrize("name", writable(many="frames"))
@pytest.mark.parametrize("loop", [0, 1, 3])
def test_animations_keep_frames_times_and_loops(tmp_path: Path, name: str, loop: int) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    durations = [Fraction(n, 100) for n in (4, 50, 7, 120)]
    frames = [page_of(np.roll(photo(), 9 * i, 1), None, Metadata(), d) for i, d in enumerate(durations)]
    write_image(path, iter(frames), count=4, loop=loop)
    source = open_image(path)
    assert (source.count, source.animated) == (4, True)
    assert source.loop == (0 if name == "AVIF" else loop)
    for page, frame in zip(source.pages(), frames, strict=True):
        assert page.duration == frame.duration
        difference = np.abs(page.read().pixels.astype(int) - frame.read().pixels)
        assert difference.mean() < 3


@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_everything_around_the_pixels_survives(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    exif = build_exif({271: Entry(ASCII, b"maker\0")})
    meta = Metadata(icc=srgb(), exif=exif, xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>', dpi=(300.0, 300.0))
    write_image(path, [page_of(photo(), None, meta)])
    found = read_image(path).metadata
    assert found.icc == meta.icc
    assert found.xmp == meta.xmp
    assert b"maker" in (found.exif or b"")
    if name not in ("WEBP", "AVIF"):
        assert found.dpi == pytest.approx((300, 300), abs=0.01)
    write_image(path, [page_of(photo(), None, meta)], strip_metadata=True, overwrite=True)
    stripped = read_image(path).metadata
    assert (stripped.icc, stripped.exif, stripped.xmp, stripped.text) == (None, None, None, ())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_orientation_is_applied_once_and_reset(tmp_path: Path, name: str, orientation: int) -> None:
    """Turned as Pillow turns it, once, and no reader will turn it again."""
    path = tmp_path / f"a{suffix_of(name)}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo()).save(path, name, exif=exif, **({"lossless": True} if name == "WEBP" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    source = open_image(path)
    found = read_image(path)
    assert (source.height, source.width) == found.pixels.shape[:2]
    assert np.array_equal(found.pixels, expected)
    assert stored_orientation(found.metadata.exif) == 1
    write_image(tmp_path / f"b{suffix_of(name)}", [found.page()])
    with Image.open(tmp_path / f"b{suffix_of(name)}") as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == expected.shape[1::-1]


def test_orientation_in_xmp_is_applied_and_reset(tmp_path: Path) -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    Image.fromarray(photo()).save(tmp_path / "a.png")
    write_image(tmp_path / "b.png", [page_of(photo(), None, Metadata(xmp=xmp))])
    found = read_image(tmp_path / "b.png")
    assert np.array_equal(found.pixels, np.rot90(photo(), -1))
    assert found.metadata.xmp == xmp.replace(b"6", b"1")


def cmyk_profile() -> bytes:
    """A printer's profile of two grid points an ink: without ink Lab white, with any of cyan's a green of its own."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    ramp = bytes(range(256))
    identity = b"".join(s15(float(row == column)) for row in range(3) for column in range(3))
    grid = b"".join(bytes([128, 40, 168]) if corner & 8 else bytes([255, 128, 128]) for corner in range(16))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    text = b"text" + bytes(4) + b"test\0"
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ " + bytes(4) + s15(0.9642) + s15(1.0) + s15(0.8249)
    tags, body, at = b"", b"", 128 + 4 + 12 * 4
    for name, data in ((b"A2B0", table), (b"cprt", text), (b"desc", description), (b"wtpt", white)):
        tags += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(24) + s15(0.9642) + s15(1.0) + s15(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path: Path, suffix: str) -> None:
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    ink.paste((0, 0, 0, 0), (0, 0, 8, 16))
    ink.save(tmp_path / f"a{suffix}", icc_profile=cmyk_profile())
    found = read_image(tmp_path / f"a{suffix}")
    assert "through the image's ICC profile" in found.notes[0]
    assert found.metadata.icc is None
    assert found.pixels[8, 2].min() > 250
    red, green, blue = found.pixels[8, 13].astype(int)
    assert green > 100 > red + blue  # the plain formula would give cyan, as blue as green


def test_cmyk_with_a_damaged_profile_says_so(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=cmyk_profile()[:400])
    assert "damaged" in read_image(tmp_path / "a.jpg").notes[0]


def test_cmyk_without_a_profile_goes_by_the_plain_formula(real_data: Path) -> None:
    found = read_image(real_data / "images" / "flower_cmyk.jpg")
    assert found.pixels.shape == (532, 510, 3)
    assert "plain formula" in found.notes[0]
    assert found.metadata.icc is None


def test_grey_profiles_stay_and_wrong_ones_go(tmp_path: Path) -> None:
    image = Image.fromarray(photo(channels=1)[..., 0])
    image.save(tmp_path / "rgb.jpg", icc_profile=srgb())
    found = read_image(tmp_path / "rgb.jpg")
    assert found.pixels.shape[2] == 3  # grey with a profile for RGB: colours that the profile may tint
    assert found.metadata.icc == srgb()


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png", "JPEG")
    assert read_image(tmp_path / "a.png").format == "JPEG"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"BM",
        b"hello, this is text",
        b"\0\0\1\xb3" + bytes(60),  # MPEG video
        b"\0\0\0\x20ftypisom" + bytes(52),  # MP4
        b"\x1aE\xdf\xa3" + bytes(60),  # Matroska
        b"RIFF\0\0\0\0AVI " + bytes(50),
        b"%PDF-1.7" + bytes(56),
    ],
)
def test_what_is_no_image(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.png").write_bytes(head)
    assert not is_image(tmp_path / "a.png")
    with pytest.raises(MediaError, match="not an image"):
        open_image(tmp_path / "a.png")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert not is_image(tmp_path / "nowhere.png")
    assert not is_image(tmp_path)
    with pytest.raises(MediaError, match="no such file"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(MediaError, match="directory"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    ("head", "package"),
    [(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"), (b"\xff\x0a" + bytes(30), "pillow-jxl")],
)
def test_what_needs_a_package_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    (tmp_path / "a").write_bytes(head)
    assert is_image(tmp_path / "a")
    with pytest.raises(MediaError, match=re.escape(package)) as caught:
        open_image(tmp_path / "a")
    assert "pip install 'repsr[" in caught.value.remedy


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, [page_of(photo(100, 100))])
    assert read_image(path, max_pixels=10_000).pixels.shape == (100, 100, 3)
    with pytest.raises(MediaError, match="limit"):
        read_image(path, max_pixels=9_999)


def test_what_is_read_in_strips_may_have_any_number_of_rows(tmp_path: Path) -> None:
    pixels = photo(2000, 10)
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"a{suffix}", [page_of(pixels)])
        assert open_image(tmp_path / f"a{suffix}", max_pixels=10 * 512).height == 2000
        with pytest.raises(MediaError, match="limit"):
            open_image(tmp_path / f"a{suffix}", max_pixels=10 * 512 - 1)


def test_a_large_image_needs_no_permission_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.bmp", [page_of(photo(100, 100))])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.bmp").pixels.shape == (100, 100, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("name", writable())
def test_truncated_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(path, [page_of(noise)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_failing_page_leaves_nothing_behind_and_passes_through(tmp_path: Path) -> None:
    def strips() -> Iterator[Any]:
        yield page_of(photo()).read()
        raise RuntimeError("the network broke")

    broken = Page(48, 36, 3, np.dtype(np.uint8), False, strips)
    for name in writable():
        target = tmp_path / f"a{suffix_of(name)}"
        target.write_bytes(b"what was there before")
        with pytest.raises(RuntimeError, match="the network broke"):
            write_image(target, [broken], overwrite=True)
        assert target.read_bytes() == b"what was there before"
    assert len(list(tmp_path.iterdir())) == len(writable())


def test_an_existing_file_is_replaced_only_when_asked_even_if_it_appears_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "a.png"

    def pages() -> Iterator[Page]:
        target.write_bytes(b"precious")
        yield page_of(photo())

    for happened in ("appeared while", "exists"):
        with pytest.raises(UsageError, match=happened):
            write_image(target, pages())
        assert target.read_bytes() == b"precious"
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    write_image(target, pages(), overwrite=True)
    assert read_image(target).pixels.shape == photo().shape


def test_an_unwritable_folder_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be written"):
        write_image(tmp_path / "nowhere" / "a.png", [page_of(photo())])


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "write_png", full)
    with pytest.raises(MediaError, match="No space left"):
        write_image(tmp_path / "a.png", [page_of(photo())])
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_into_memory_is_told_what_would(tmp_path: Path) -> None:
    def strips() -> Iterator[Any]:
        yield page_of(photo()).read()
        raise MemoryError

    with pytest.raises(MediaError, match="memory") as caught:
        write_image(tmp_path / "a.jpg", [Page(48, 36, 3, np.dtype(np.uint8), False, strips)])
    assert "PNG" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_long_names_and_strange_names(tmp_path: Path) -> None:
    for name in ("\u6771" * 80 + ".png", "[red] # -.png", "-leading.png"):
        write_image(tmp_path / name, [page_of(photo())])
        assert read_image(tmp_path / name).format == "PNG"


def test_unknown_suffixes_are_usage_errors(tmp_path: Path) -> None:
    assert format_for(Path("A.JPeG")).name == "JPEG"
    for name in ("a.xyz", "a"):
        with pytest.raises(UsageError, match="suffix"):
            format_for(tmp_path / name)


def test_what_formats_cannot_hold_is_found() -> None:
    jpeg, png, webp, tiff = (format_for(Path(name)) for name in ("a.jpg", "a.png", "a.webp", "a.tif"))
    see_through = page_of(photo(), np.zeros((24, 36), np.uint8))
    opaque = page_of(photo(), np.full((24, 36), 255, np.uint8))
    deep = page_of(photo().astype(np.uint16))
    real = page_of(photo().astype(np.float32))
    assert losses(jpeg, see_through, (9, 9)) == ("transparency",)
    assert losses(jpeg, opaque, (9, 9)) == ()
    assert losses(webp, deep, (9, 9)) == ("16 bits per channel",)
    assert losses(png, real, (9, 9)) == ("floating-point values",)
    assert losses(tiff, real, (9, 9), count=3) == ()
    assert losses(tiff, opaque, (9, 9), count=3, loop=0) == ("animation",)
    assert losses(png, opaque, (9, 9), count=3) == ("more than one page",)
    for fmt, most in ((jpeg, 65535), (webp, 16383)):
        assert losses(fmt, opaque, (most, 1)) == ()
        with pytest.raises(UsageError, match=f"{most} px a side") as caught:
            losses(fmt, opaque, (1, most + 1))
        assert "PNG" in caught.value.remedy


def test_what_a_format_cannot_hold_is_converted_when_written(tmp_path: Path) -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write_image(tmp_path / "a.bmp", [page_of(deep, deep[..., 0])])
    found = read_image(tmp_path / "a.bmp").pixels[..., :1]
    assert np.array_equal(found, np.floor(deep * (255 / 65535) + 0.5))


def test_pages_of_a_still_format_are_the_first_alone(tmp_path: Path) -> None:
    pages = [page_of(photo()), page_of(255 - photo())]
    write_image(tmp_path / "a.png", pages, count=2)
    assert open_image(tmp_path / "a.png").count == 1
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, photo())


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="%d"/>'


@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("stale", [3, 6, 8])
def test_orientation_of_exif_wins_over_a_stale_one_of_xmp(tmp_path: Path, name: str, stale: int) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    exif = Image.Exif()
    exif[0x0112] = 1
    if name == "TIFF":
        Image.fromarray(photo()).save(path, tiffinfo={274: 1, 700: XMP % stale})
    else:
        write_image(path, [page_of(photo(), None, Metadata(exif=exif.tobytes()[6:], xmp=XMP % stale))])
    stored = open_image(path)
    assert (stored.height, stored.width) == (24, 36)
    found = read_image(path)
    assert found.pixels.shape[:2] == (24, 36)
    assert np.abs(found.pixels.astype(int) - photo()).max() < 24
    assert b'Orientation="1"' in (found.metadata.xmp or b"")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("stale", [3, 6, 8])
def test_orientation_of_xmp_is_not_used_where_exif_cannot_be_read(tmp_path: Path, name: str, stale: int) -> None:
    path = tmp_path / f"a{suffix_of(name)}"
    exif = Image.Exif()
    exif[0x0112] = 1
    damaged = exif.tobytes()[6:].replace(b"\x08\0\0\0", b"\x08\0\xff\0", 1)
    write_image(path, [page_of(photo(), None, Metadata(exif=damaged, xmp=XMP % stale))])
    pixels = read_image(path).pixels
    assert pixels.shape[:2] == (24, 36)
    assert np.abs(pixels.astype(int) - photo()).max() < 24


@pytest.mark.parametrize("stale", [3, 6, 8])
def test_orientation_of_xmp_is_not_used_where_an_exif_chunk_is_dropped(tmp_path: Path, stale: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    path = tmp_path / "a.png"
    write_image(path, [page_of(photo(), None, Metadata(exif=exif.tobytes()[6:], xmp=XMP % stale))])
    whole = path.read_bytes()
    at = whole.index(b"eXIf")
    path.write_bytes(whole[: at + 6] + b"?" + whole[at + 7 :])  # its checksum is wrong now
    found = read_image(path)
    assert np.array_equal(found.pixels, photo())
    assert "eXIf" in found.notes[0]
    assert b'Orientation="1"' in (found.metadata.xmp or b"")


@pytest.mark.parametrize("exif", [None, Image.Exif().tobytes()[6:]])
def test_orientation_of_xmp_is_used_where_exif_has_none(tmp_path: Path, exif: bytes | None) -> None:
    path = tmp_path / "a.png"
    write_image(path, [page_of(photo(), None, Metadata(exif=exif, xmp=XMP % 6))])
    assert read_image(path).pixels.shape[:2] == (36, 24)


def moving(count: int = 3) -> list[Page]:
    """An animation after a still that is not part of it."""
    frames = [page_of(np.roll(photo(), 9 * n, 1), None, Metadata(), Fraction(1, 10)) for n in range(count)]
    return [page_of(255 - photo()), *frames]


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".avif"])
def test_the_still_of_an_animated_png_is_named_and_not_a_frame(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "a.png", moving(), count=4, loop=0)
    source = open_image(tmp_path / "a.png")
    pages = list(source.pages())
    assert losses(format_for(tmp_path / "a.png"), pages[0], (24, 36), count=4, loop=0) == ()
    named = losses(format_for(tmp_path / f"a{suffix}"), pages[0], (24, 36), count=4, loop=0)
    assert named == ("the still shown where animations are not understood",)
    write_image(tmp_path / f"a{suffix}", iter(pages), count=source.count, loop=source.loop)
    found = open_image(tmp_path / f"a{suffix}")
    assert found.count == 3
    assert [page.duration for page in found.pages()] == [Fraction(1, 10)] * 3


def test_loops_that_a_format_cannot_count_are_named() -> None:
    frame = page_of(photo(), None, Metadata(), Fraction(1, 10))
    for name, loop, lost in (("a.avif", 3, True), ("a.avif", 0, False), ("a.gif", 3, False), ("a.webp", 3, False)):
        named = losses(format_for(Path(name)), frame, (9, 9), count=2, loop=loop)
        assert named == (("how often the animation plays",) if lost else ())


FULL = Metadata(
    icc=b"x" * 16 + b"RGB " + b"x" * 120,
    exif=build_exif({271: Entry(ASCII, b"maker\0")}),
    xmp=b"<x:xmpmeta/>",
    dpi=(300.0, 300.0),
    text=(("parameters", "a cat"), ("Comment", "hello")),
    photoshop=b"8BIM\x04\x04\0\0\0\0\0\x02xx",
    chunks=((b"oFFs", bytes(9)),),
    segments=((0xE4, b"VENDOR"),),
    trailer=b"\0\0\0\x18ftypmp42",
)
NAMED = {
    "EXIF": "EXIF",
    "XMP": "XMP",
    "ICC": "its ICC profile",
    "IPTC": "IPTC captions",
    "resolution": "its resolution",
    "text": "text (parameters)",
}


@pytest.mark.parametrize("name", writable())
def test_every_format_holds_its_metadata_or_names_the_loss(tmp_path: Path, name: str) -> None:
    fmt = next(fmt for fmt in FORMATS if fmt.name == name)
    page = page_of(photo(), None, FULL)
    named = losses(fmt, page, (24, 36))
    path = tmp_path / f"a{fmt.suffixes[0]}"
    write_image(path, [page])
    data, found = path.read_bytes(), read_image(path).metadata
    there = {
        "EXIF": b"maker" in data,
        "XMP": b"<x:xmpmeta/>" in data,
        "ICC": found.icc == FULL.icc,
        "IPTC": FULL.photoshop is not None and (FULL.photoshop in data or name == "PNG"),
        "resolution": found.dpi is not None or b"\x1a\x01\x05\0" in data,
        "text": b"a cat" in data,
    }
    for kind, phrase in NAMED.items():
        assert there[kind] != (phrase in named), kind
    assert losses(fmt, page, (24, 36), strip_metadata=True) == ()
    assert ("comments" in named) == (b"hello" not in data)
    assert ("application data (APP4)" in named) == (b"VENDOR" not in data)
    assert ("PNG chunks (oFFs)" in named) == (b"oFFs" not in data)
    assert ("the video of a motion photo" in named) == (b"ftypmp42" not in data)


@pytest.mark.parametrize("name", ["BMP", "GIF", "PPM", "JPEG2000"])
def test_an_srgb_profile_is_no_loss(name: str) -> None:
    fmt = next(fmt for fmt in FORMATS if fmt.name == name)
    assert losses(fmt, page_of(photo(), None, Metadata(icc=srgb())), (9, 9)) == ()
