"""Open and write image files of any format; the entry point of the package.

A file's content decides its format, a new file's suffix decides what it becomes. Reading is lazy, page by page and
strip by strip; writing is all or nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from repsr_cli.errors import MediaError, shortage
from repsr_cli.files import Noting, writing
from repsr_cli.image.dds import open_dds
from repsr_cli.image.exif import exif_for, orientation, upright_xmp
from repsr_cli.image.formats import FORMATS, Format, format_for, format_of, is_lossless
from repsr_cli.image.gif import write_gif
from repsr_cli.image.losses import fitting_metadata
from repsr_cli.image.netpbm import open_netpbm, write_netpbm
from repsr_cli.image.opencv import open_hdr
from repsr_cli.image.page import Image, Metadata, Page, Stored, Strip, upright
from repsr_cli.image.pillow import bits_beyond, open_pillow, write_pillow
from repsr_cli.image.png import open_png
from repsr_cli.image.png_writer import write_png
from repsr_cli.image.sgi import open_deep_sgi
from repsr_cli.image.tiff import open_tiff, write_tiff

# More pixels than this are not held at a time unless the caller allows it: a few bytes can claim to be terabytes.
MAX_PIXELS = 1 << 29
# Rows that are held of an image that is read in strips.
_HELD_ROWS = 512
# What these return None for is left to Pillow.
_READERS: dict[str, Callable[[Path], Stored | None]] = {
    "PNG": open_png,
    "TIFF": open_tiff,
    "HDR": open_hdr,
    "PPM": open_netpbm,
    "PAM": open_netpbm,
    "PFM": open_netpbm,
    "DDS": open_dds,
    "SGI": open_deep_sgi,
}
_DTYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An opened image file: its facts, and its pages on demand.

    Attributes:
        format: what its content is, e.g. ``PNG``.
        height: rows of the first page, upright.
        width: columns of the first page, upright.
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


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Open an image without decoding it.

    Args:
        max_pixels: refuse to hold more at a time, so that a damaged or malicious header cannot claim all memory. Most
            PNG and TIFF files are read in strips and may have any number of rows.

    Raises:
        MediaError: it is missing, no image, damaged, too large, or needs a package that is not installed. What pixels
            hide is found when pages and strips are read, and raises MediaError there.
    """
    try:
        kind = format_of(path)
        if kind is None:
            raise MediaError(path, "not an image of any known format", "PNG, JPEG, WebP, TIFF, AVIF and GIF are.")
        if kind == "EXR":
            raise MediaError(path, "OpenEXR images cannot be read", "Convert it to a float TIFF first.")
        _require(path, kind)
        file = _stored(path, kind)
        lossless = is_lossless(path, kind)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise MediaError(path, f"cannot be read: {reason}", "Check the path.") from error
    _check_pixels(path, min(file.height, _HELD_ROWS) if file.streamed else file.height, file.width, max_pixels)

    def pages() -> Iterator[Page]:
        for page in file.pages():
            yield _turned(page)

    turned = orientation(file.metadata.exif, file.metadata.xmp) >= 5
    height, width = (file.width, file.height) if turned else (file.height, file.width)
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


def roomier_suffix(path: Path) -> str | None:
    """The suffix of a format that holds what this image holds and its own format, as written here, does not.

    Returns:
        The suffix, or None if its own will do (or it cannot be read, which opening it will tell).
    """
    try:
        kind = format_of(path)
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
    noting: Noting | None = None,
) -> None:
    """Write an image file: complete under its name, or not at all.

    Args:
        target: the file; its suffix decides the format.
        pages: ``count`` pages; read once, in order, so that they may be computed while writing. What the format cannot
            hold of them (transparency, depth) is left out: ask ``losses`` first.
        loop: how often an animation plays, 0: for ever; None: a still, or pages.
        lossless: let formats that can be either (WebP, JPEG 2000) lose nothing.
        strip_metadata: write no EXIF, XMP, text, resolution, and no profile.
        noting: called with the complete file before it gets its name.

    Raises:
        UsageError: no format has this suffix, or the file exists and ``overwrite`` is false.
        MediaError: the file cannot be written; whatever the pages raise passes through.
    """
    fmt = format_for(target)
    _require(target, fmt.name)
    prepared = (_fitted(page, fmt, strip_metadata) for page in pages)
    try:
        with writing(target, overwrite=overwrite, noting=noting) as file:
            _encode(file, fmt, prepared, count, loop, lossless)
    except MemoryError as error:
        remedy = "Write PNG or TIFF: those are written in strips."
        raise MediaError(target, "the result does not fit into memory", remedy) from error


def _encode(file: BinaryIO, fmt: Format, pages: Iterator[Page], count: int, loop: int | None, lossless: bool) -> None:
    first = next(pages)
    if loop is not None and count > 1 and first.duration is None and fmt.many == "frames" and fmt.name != "PNG":
        # The still of an animated PNG is not part of the animation.
        first, count = next(pages), count - 1
    pages = chain((first,), pages)
    if fmt.many is None or (fmt.many == "frames" and loop is None):
        pages, count, loop = iter((first,)), 1, None
    if fmt.name == "PNG":
        write_png(file, pages, count=count, loop=loop)
    elif fmt.name == "GIF":
        write_gif(file, pages, loop=loop)
    elif fmt.name == "TIFF":
        write_tiff(file, pages, count=count)
    elif fmt.name in ("PPM", "PAM", "PFM"):
        write_netpbm(file, fmt.name, next(iter(pages)))
    else:
        write_pillow(file, fmt.name, pages, count=count, loop=loop, lossless=lossless)


def _stored(path: Path, kind: str) -> Stored:
    """Read everything but pixels with the reader of a format."""
    own = _READERS[kind](path) if kind in _READERS else None
    return open_pillow(path, kind) if own is None else own


def _check_pixels(path: Path, height: int, width: int, limit: int) -> None:
    """Refuse to hold more pixels than the limit."""
    if height * width > limit:
        happened = f"{width} x {height} px at a time are more than the limit of {limit:,}"
        remedy = f"If you trust the file, add --max-pixels {height * width}, or convert it to PNG or TIFF."
        raise MediaError(path, happened, remedy)


def _require(subject: Path, kind: str) -> None:
    """Load the plug-in that a format needs."""
    for fmt in FORMATS:
        if fmt.name == kind and fmt.package is not None:
            extra, module = fmt.package
            try:
                plugin: Any = importlib.import_module(module)
            except ImportError as error:
                remedy = f"Install it: pip install 'repsr[{extra}]'."
                happened = f"{kind} needs the package {module.replace('_', '-')}"
                raise shortage(error, subject) or MediaError(subject, happened, remedy) from error
            if kind == "HEIF":
                plugin.register_heif_opener()


def _turned(page: Page) -> Page:
    """The page upright, its metadata saying so."""
    metadata = page.metadata
    page = upright(page, orientation(metadata.exif, metadata.xmp))
    xmp = None if metadata.xmp is None else upright_xmp(metadata.xmp)
    exif = None if metadata.exif is None else exif_for(metadata.exif, page.height, page.width)
    return replace(page, metadata=replace(metadata, exif=exif, xmp=xmp))


def _fitted(page: Page, fmt: Format, strip_metadata: bool) -> Page:
    """The page as the format can hold it, its EXIF saying its true size."""
    metadata = Metadata() if strip_metadata else fitting_metadata(fmt, page.metadata, page.channels)
    if metadata.exif is not None:
        metadata = replace(metadata, exif=exif_for(metadata.exif, page.height, page.width))
    dtype = page.dtype if 8 * page.dtype.itemsize in fmt.depths else np.dtype(_DTYPES[fmt.depths[0]])
    keep = page.alpha and fmt.alpha
    if dtype == page.dtype and keep == page.alpha:
        return replace(page, metadata=metadata)

    def strips() -> Iterator[Strip]:
        for pixels, alpha in page.strips():
            yield Strip(_converted(pixels, dtype), _converted(alpha, dtype) if keep and alpha is not None else None)

    return replace(page, metadata=metadata, alpha=keep, strips=strips, dtype=dtype)


def _converted(samples: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Samples as floats in [0, 1], or at 8 bit over the whole range, rounded half up."""
    if samples.dtype == dtype:
        return samples
    if dtype.kind == "f":
        return np.asarray(samples / np.iinfo(samples.dtype).max, dtype)
    if samples.dtype.kind == "f":
        return np.asarray(np.floor(np.clip(samples, 0, 1) * 255 + 0.5), np.uint8)
    return np.asarray((samples.astype(np.uint32) * 255 + 32767) // 65535, np.uint8)
