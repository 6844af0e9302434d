"""Judge from an image file whether compression has degraded it."""

from __future__ import annotations

from PIL import Image

from repsr_cli.image.coded_bytes import coded_bytes
from repsr_cli.image.files import ImageSource
from repsr_cli.image.jpeg import jpeg_quality, quality_of_tables
from repsr_cli.upscale.judged import BITS_PER_PIXEL, JPEG_QUALITY, OTHER_IMAGES, Judged, by_bits, lossless

_JPEG_TABLES = 347  # tag of TIFF (Adobe, TIFF technical note 2)


def judge_image(image: ImageSource) -> Judged:
    """The kind of model that an image needs, from its header: none of its pixels are decoded.

    A JPEG tells by its quantization tables, what is stored without loss by its format, and all others by the bits that
    they spend on a pixel.
    """
    if image.format == "TIFF" and (judged := _lossy_tiff(image)):
        return judged
    if image.lossless:
        return lossless(image.format)
    if image.format == "JPEG" and (quality := jpeg_quality(image.path)) is not None:
        return _by_quality("JPEG", quality)
    return _by_bits(image)


def _by_quality(name: str, quality: float) -> Judged:
    return Judged("clean" if quality >= JPEG_QUALITY else "real", f"{name} of quality {quality:.0f}")


def _by_bits(image: ImageSource) -> Judged:
    pixels = image.height * image.width * image.count
    threshold = BITS_PER_PIXEL.get(image.format, OTHER_IMAGES)
    return by_bits(image.format, coded_bytes(image.path, image.format), pixels, threshold)


def _lossy_tiff(image: ImageSource) -> Judged | None:
    """Of a TIFF whose first page is compressed as JPEG or WebP are; None: it is not, or of a kind unknown to Pillow."""
    try:
        with Image.open(image.path, formats=("TIFF",)) as opened:
            if opened.info.get("compression") not in ("jpeg", "tiff_jpeg", "webp", "jpeg2000"):
                return None
            tables = getattr(opened, "tag_v2", {}).get(_JPEG_TABLES)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, Image.DecompressionBombError):
        return None
    quality = quality_of_tables(tables) if isinstance(tables, bytes) else None
    return _by_bits(image) if quality is None else _by_quality("TIFF", quality)
