"""Open and write image files of any format; the entry point of the package.

A file's content decides its format, a new file's suffix decides what it becomes. Reading is lazy, page by page and
strip by strip; writing is all or nothing.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.files import writing
from repsr_cli.image.exif import exif_for, exif_orientation
from repsr_cli.image.gif import write_gif
from repsr_cli.image.opencv import open_hdr
from repsr_cli.image.page import Image, Metadata, Page, Strip, page_of, upright
from repsr_cli.image.pillow import bits_beyond, open_pillow, write_pillow
from repsr_cli.image.png import open_png, write_png
from repsr_cli.image.tiff import open_tiff, write_tiff

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Format",
    "Image",
    "ImageSource",
    "Metadata",
    "Page",
    "Strip",
    "format_for",
    "is_image",
    "open_image",
    "page_of",
    "read_image",
    "roomier_suffix",
    "write_image",
]

# More pixels than this are not held at a time unless the caller allows it: a few bytes can claim to be terabytes.
MAX_PIXELS = 1 << 29
# Rows that are held of an image that is read in strips.
_HELD_ROWS = 512


@dataclass(frozen=True, slots=True)
class Format:
    """What a kind of file can hold.

    Attributes:
        name: as Pillow names it.
        suffixes: of files, the usual one first.
        side: most pixels along one side.
        depths: bits per channel; 32 stands for floats.
        alpha: whether transparency.
        many: several pages, several frames in time, or neither.
        package: what must be installed besides, by the extra's name and the module's.
    """

    name: str
    suffixes: tuple[str, ...]
    side: int
    depths: tuple[int, ...] = (8,)
    alpha: bool = False
    many: Literal["pages", "frames"] | None = None
    package: tuple[str, str] | None = None


FORMATS = (
    Format("PNG", (".png", ".apng"), 2**31 - 1, (8, 16), True, "frames"),
    Format("TIFF", (".tif", ".tiff"), 2**31 - 1, (8, 16, 32), True, "pages"),
    Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), 65535),
    Format("WEBP", (".webp",), 16383, alpha=True, many="frames"),
    Format("AVIF", (".avif", ".avifs"), 16384, alpha=True, many="frames"),
    Format("GIF", (".gif",), 65535, alpha=True, many="frames"),
    Format("BMP", (".bmp", ".dib"), 32767),
    Format("JPEG2000", (".jp2", ".j2k", ".jpx"), 65535, alpha=True),
    Format("ICO", (".ico",), 256, alpha=True),
    Format("PPM", (".ppm", ".pgm", ".pnm"), 65535),
    Format("HEIF", (".heic", ".heif"), 16384, alpha=True, package=("heif", "pillow_heif")),
    Format("JXL", (".jxl",), 65535, alpha=True, package=("jxl", "pillow_jxl")),
)

_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II\x2a\0", "TIFF"),
    (0, b"MM\0\x2a", "TIFF"),
    (0, b"II\x2b\0", "TIFF"),
    (0, b"MM\0\x2b", "TIFF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda\0", "SGI"),
    (0, b"\x01\xda\x01", "SGI"),
    (0, b"icns", "ICNS"),
    (0, b"\x76\x2f\x31\x01", "EXR"),
    (0, b"#?RADIANCE\n", "HDR"),
    (0, b"#?RGBE\n", "HDR"),
)
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)([1-8])")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An opened image file: its facts, and its pages on demand.

    Attributes:
        path: the file.
        format: what its content is, e.g. ``PNG``.
        height: rows of the first page, upright.
        width: columns of the first page, upright.
        count: pages or frames.
        loop: how often an animation plays, 0: for ever; None for the rest.
        lossless: whether the pixels are stored without loss.
        pages: reads the pages in order, upright; may be called again.
    """

    path: Path
    format: str
    height: int
    width: int
    count: int
    loop: int | None
    lossless: bool
    pages: Callable[[], Iterator[Page]]

    @property
    def animated(self) -> bool:
        """Whether the pages are frames that follow each other in time."""
        return self.loop is not None


def is_image(path: Path) -> bool:
    """Whether a file's first bytes are an image's (readable here or not); False if it cannot be read at all."""
    try:
        return _sniff(path) is not None
    except OSError:
        return False


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Open an image without decoding it.

    Args:
        path: the file.
        max_pixels: refuse to hold more at a time, so that a damaged or malicious header cannot claim all memory. Most
            PNG and TIFF files are read in strips and may have any number of rows.

    Raises:
        MediaError: it is missing, no image, damaged, too large, or needs a package that is not installed. What pixels
            hide is found when pages and strips are read, and raises MediaError there.
    """
    try:
        kind = _sniff(path)
        if kind is None:
            raise MediaError(path, "not an image of any known format", "PNG, JPEG, WebP, TIFF, AVIF and GIF are.")
        if kind == "EXR":
            raise MediaError(path, "OpenEXR images cannot be read", "Convert it to a float TIFF first.")
        _require(path, kind)
        own = {"PNG": open_png, "TIFF": open_tiff, "HDR": open_hdr}.get(kind)
        file = own(path) if own is not None else open_pillow(path, kind)
        lossless = _is_lossless(path, kind)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise MediaError(path, f"cannot be read: {reason}", "Check the path.") from error
    _check_pixels(path, min(file.height, _HELD_ROWS) if file.streamed else file.height, file.width, max_pixels)

    def pages() -> Iterator[Page]:
        for page in file.pages():
            yield _turned(page)

    height, width = (file.height, file.width) if _orientation(file.metadata) < 5 else (file.width, file.height)
    return ImageSource(path, kind, height, width, file.count, file.loop, lossless, pages)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """The first page of an image file, whole and upright.

    Raises:
        MediaError: as ``open_image``, or its pixels are damaged.
    """
    source = open_image(path, max_pixels)
    for page in source.pages():
        _check_pixels(path, page.height, page.width, max_pixels)
        pixels, alpha = page.read()
        return Image(pixels, alpha, page.metadata, source.format, page.duration, page.notes)
    raise MediaError(path, "it holds no image")


def format_for(target: Path) -> Format:
    """The format that a file of this name is written in.

    Raises:
        UsageError: no format has this suffix.
    """
    for fmt in FORMATS:
        if target.suffix.lower() in fmt.suffixes:
            return fmt
    known = " ".join(fmt.suffixes[0] for fmt in FORMATS)
    raise UsageError(target, f"no image format has the suffix {target.suffix!r}", f"Use one of {known}.")


def roomier_suffix(path: Path) -> str | None:
    """The suffix of a format that holds what this image holds and its own format, as written here, does not.

    Returns:
        The suffix, or None if its own will do (or it cannot be read, which opening it will tell).
    """
    try:
        kind = _sniff(path)
        if kind == "HDR":
            return ".tif"
        return ".png" if kind in ("AVIF", "HEIF") and bits_beyond(path, kind) else None
    except OSError:
        return None


def write_image(
    target: Path,
    pages: Iterable[Page],
    *,
    count: int = 1,
    loop: int | None = None,
    lossless: bool = True,
    strip_metadata: bool = False,
    overwrite: bool = False,
) -> None:
    """Write an image file: complete under its name, or not at all.

    Args:
        target: the file; its suffix decides the format.
        pages: ``count`` pages; read once, in order, so that they may be computed while writing. What the format cannot
            hold of them (transparency, depth) is left out: ask ``losses`` first.
        count: how many.
        loop: how often an animation plays, 0: for ever; None: a still, or pages.
        lossless: let formats that can be either (WebP, JPEG 2000) lose nothing.
        strip_metadata: write no EXIF, XMP, text, resolution, and no profile.
        overwrite: replace an existing file.

    Raises:
        UsageError: no format has this suffix, or the file exists and ``overwrite`` is false.
        MediaError: the file cannot be written; whatever the pages raise passes through.
    """
    fmt = format_for(target)
    _require(target, fmt.name)
    prepared = (_fitted(page, fmt, strip_metadata) for page in pages)
    try:
        with writing(target, overwrite=overwrite) as file:
            _encode(file, fmt, prepared, count, loop, lossless)
    except MemoryError as error:
        remedy = "Write PNG or TIFF: those are written in strips."
        raise MediaError(target, "the result does not fit into memory", remedy) from error


def losses(
    fmt: Format, page: Page, height: int, width: int, *, count: int = 1, animated: bool = False
) -> tuple[str, ...]:
    """What of an image a format cannot hold.

    Args:
        fmt: the format to be written.
        page: the first page: its depth and transparency. An alpha channel that is opaque throughout is not a loss.
        height: rows to be written.
        width: columns to be written.
        count: pages or frames.
        animated: whether they follow each other in time.

    Returns:
        Phrases such as ``transparency``, none if nothing is lost.

    Raises:
        UsageError: the size itself is beyond the format: nothing could be left out to make it fit.
    """
    if max(height, width) > fmt.side:
        others = ", ".join(other.name for other in FORMATS if other.side >= max(height, width) and not other.package)
        raise UsageError(
            f"{width} x {height} px",
            f"{fmt.name} holds at most {fmt.side} px a side",
            f"Choose a smaller size or another format: {others}.",
        )
    lost = []
    if 8 * page.dtype.itemsize not in fmt.depths:
        lost.append("floating-point values" if page.dtype.itemsize == 4 else "16 bits per channel")
    if page.alpha and not fmt.alpha and not _opaque(page):
        lost.append("transparency")
    if count > 1 and fmt.many != ("frames" if animated else "pages"):
        lost.append("animation" if animated else "more than one page")
    return tuple(lost)


def _encode(file: BinaryIO, fmt: Format, pages: Iterator[Page], count: int, loop: int | None, lossless: bool) -> None:
    if fmt.many is None or (fmt.many == "frames" and loop is None):
        pages, count, loop = iter((next(pages),)), 1, None
    if fmt.name == "PNG":
        write_png(file, pages, count=count, loop=loop)
    elif fmt.name == "GIF":
        write_gif(file, pages, loop=loop)
    elif fmt.name == "TIFF":
        write_tiff(file, pages, count=count)
    else:
        write_pillow(file, fmt.name, pages, count=count, loop=loop, lossless=lossless)


def _check_pixels(path: Path, height: int, width: int, limit: int) -> None:
    """Refuse to hold more pixels than the limit."""
    if height * width > limit:
        happened = f"{width} x {height} px at a time are more than the limit of {limit:,}"
        remedy = f"If you trust the file, add --max-pixels {height * width}, or convert it to PNG or TIFF."
        raise MediaError(path, happened, remedy)


def _sniff(path: Path) -> str | None:
    """The format that the first bytes say, None if they say none."""
    with path.open("rb") as file:
        head = file.read(64)
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(len(head) - 3, _box_length(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & set(_HEIF_BRANDS) else None
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and len(head) > 9 and head[4] and not head[5] and not head[9]:
        return "ICO" if head[2] == 1 else "CUR"
    if re.match(rb"P[1-6Ff][\s#]", head):
        return "PPM"
    return None


def _is_lossless(path: Path, kind: str) -> bool:
    """Whether a file's pixels are stored without loss; of a JPEG 2000 or JPEG XL, which can be either, assumed not."""
    if kind == "WEBP":
        with path.open("rb") as file:
            found = re.search(rb"VP8([L ])", file.read(1 << 20))
            return found is not None and found[1] == b"L"
    return kind not in ("JPEG", "AVIF", "HEIF", "JPEG2000", "JXL")


def _box_length(head: bytes) -> int:
    return int.from_bytes(head[:4], "big")


def _require(subject: Path, kind: str) -> None:
    """Load the plug-in that a format needs.

    Raises:
        MediaError: it is not installed.
    """
    for fmt in FORMATS:
        if fmt.name == kind and fmt.package is not None:
            extra, module = fmt.package
            try:
                plugin: Any = importlib.import_module(module)
            except ImportError as error:
                remedy = f"Install it: pip install 'repsr[{extra}]'."
                raise MediaError(subject, f"{kind} needs the package {module.replace('_', '-')}", remedy) from error
            if kind == "HEIF":
                plugin.register_heif_opener()


def _orientation(metadata: Metadata) -> int:
    """How EXIF, or else XMP, wants the image turned: 1 to 8."""
    stored = exif_orientation(metadata.exif)
    match = _XMP_ORIENTATION.search(metadata.xmp or b"")
    return int(match[2]) if stored == 1 and match is not None else stored


def _turned(page: Page) -> Page:
    """The page upright, its metadata saying so."""
    metadata = page.metadata
    page = upright(page, _orientation(metadata))
    xmp = None if metadata.xmp is None else _XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp)
    exif = None if metadata.exif is None else exif_for(metadata.exif, page.height, page.width)
    return replace(page, metadata=replace(metadata, exif=exif, xmp=xmp))


def _opaque(page: Page) -> bool:
    """Whether a page's alpha hides nothing anywhere."""
    peak = 1.0 if page.dtype.kind == "f" else np.iinfo(page.dtype).max
    return all(alpha is None or bool((alpha >= peak).all()) for _, alpha in page.strips())


def _fitted(page: Page, fmt: Format, strip_metadata: bool) -> Page:
    """The page as the format can hold it, its EXIF saying its true size."""
    metadata = Metadata() if strip_metadata else page.metadata
    if metadata.exif is not None:
        metadata = replace(metadata, exif=exif_for(metadata.exif, page.height, page.width))
    deep = 8 * page.dtype.itemsize in fmt.depths
    keep = page.alpha and fmt.alpha
    if deep and keep == page.alpha:
        return replace(page, metadata=metadata)

    def strips() -> Iterator[Strip]:
        for pixels, alpha in page.strips():
            hidden = alpha if keep else None
            yield (
                Strip(pixels, hidden)
                if deep
                else Strip(_to_8_bit(pixels), None if hidden is None else _to_8_bit(hidden))
            )

    return replace(page, metadata=metadata, alpha=keep, strips=strips, dtype=page.dtype if deep else np.dtype(np.uint8))


def _to_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Samples of 16 bit or in [0, 1] at 8 bit, rounded half up."""
    if samples.dtype.kind == "f":
        return np.asarray(np.floor(np.clip(samples, 0, 1) * 255 + 0.5), np.uint8)
    return np.asarray((samples.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)
