"""Read and write formats that Pillow decodes and encodes whole, one page in memory at a time.

PNG and TIFF have modules of their own, for their depth and size; GIF has one for writing.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from repsr_cli.errors import MediaError, raise_shortage
from repsr_cli.files import reading
from repsr_cli.image.heif import bits_of, clean_aperture, colour_of, primary_properties, with_colour
from repsr_cli.image.jpeg import BESIDE, jpeg_parts, unsupported_process, with_end, with_parts
from repsr_cli.image.opencv import decode
from repsr_cli.image.page import Metadata, Page, Stored, Strip, page_of

# What Pillow raises over damaged files, found by feeding it many.
_DECODING = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# How much may follow a JPEG's end marker before the file is searched for it.
_END_BYTES = 1 << 12
_ANIMATED = ("GIF", "WEBP", "AVIF")
_opening = threading.Lock()


def open_pillow(path: Path, kind: str) -> Stored:
    """Read everything of an image but its pixels.

    Args:
        kind: Pillow's name of its format; no other decoder is tried.

    Raises:
        MediaError: it cannot be decoded; later, from pages: one of them cannot.
    """
    source = _mended(path, kind)
    with _translated(path, kind), _open(source, kind) as image:
        width, height = image.size
        # A PSD's other "frames" are its layers, a multi-image JPEG's are previews, depth or gain maps.
        count = getattr(image, "n_frames", 1) if kind in _ANIMATED else 1
        animated = count > 1
        loop = _loop(image, kind) if animated else None
        metadata, _ = _metadata(image, path, kind, None)
        shown = None if animated else _shown(image, path, kind)[0]
        if shown is not None:
            height, width = (side.stop - side.start for side in shown)

    def pages() -> Iterator[Page]:
        with _translated(path, kind):
            image = _open(_mended(path, kind), kind)
        with image:
            for index in range(count):
                yield _read(image, path, kind, index, animated)

    return Stored(height, width, pages, metadata, count, loop)


def read_pillow_page(path: Path, kind: str, index: int, source: BinaryIO | Path) -> Page:
    """One page alone, of a file that holds several.

    Args:
        path: the file, for messages.
        kind: Pillow's name of its format.
        source: what is read: the file, or a mended copy of it.
    """
    with _translated(path, kind):
        image = _open(source, kind)
    with image:
        return _read(image, path, kind, index, animated=False)


def write_pillow(
    file: BinaryIO, kind: str, pages: Iterable[Page], *, count: int, loop: int | None, lossless: bool
) -> None:
    """Write with one of Pillow's encoders.

    Args:
        kind: Pillow's name of the format.
        pages: ``count`` pages of 8 bit; more than one for WebP and AVIF only.
        loop: how often an animation plays, 0: for ever; None: a still.
        lossless: let WebP and JPEG 2000 lose nothing.

    Raises:
        OSError: the encoder refuses, the disk is full, or the like.
    """
    supply = iter(pages)
    first = next(supply)
    image = image_of(first.read())
    options = _metadata_options(kind, first.metadata) | _encoder_options(kind, image, lossless)
    if loop is not None and count > 1:
        durations: list[int] = []
        image = _animated(image, first, supply, count, durations)
        options |= {"save_all": True, "duration": durations, "loop": loop, "background": (0, 0, 0, 0)}
    # Pillow's C code writes to descriptors itself. On a full disk it takes a short write for a complete one, or, for
    # JPEG 2000, tries for ever.
    encoded = io.BytesIO()
    try:
        image.save(encoded, kind, **options)
    except (ValueError, RuntimeError) as error:
        # AVIF's encoder says so where it can start no thread, for instance. Other errors come from making the pages.
        if isinstance(error, RuntimeError) and not str(error).startswith("Failed to "):
            raise
        raise OSError(f"the {kind} encoder refuses it: {error}") from error
    file.write(_with_metadata(encoded.getvalue(), kind, first.metadata))


def _with_metadata(encoded: bytes, kind: str, metadata: Metadata) -> bytes:
    """An encoded file with the metadata that Pillow does not write."""
    if kind == "JPEG":
        return with_parts(encoded, metadata)
    cicp = dict(metadata.colour).get(b"cICP")
    return with_colour(encoded, cicp[0], cicp[1]) if kind == "AVIF" and cicp is not None else encoded


def _metadata_options(kind: str, metadata: Metadata) -> dict[str, Any]:
    """Options of an encoder for the metadata that its format holds."""
    if kind == "ICO":
        return {}
    options: dict[str, Any] = {"icc_profile": metadata.icc or b""}
    described = kind in ("JPEG", "WEBP", "AVIF", "HEIF", "JXL")
    if metadata.exif is not None and described:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.xmp is not None and described:
        options["xmp"] = metadata.xmp
    if metadata.dpi is not None and kind in ("JPEG", "BMP"):
        options["dpi"] = metadata.dpi
    comment = next((text for keyword, text in metadata.text if keyword == "Comment"), None)
    if comment is not None and kind == "JPEG2000":
        options["comment"] = comment.encode()[:65533]
    return options


def _encoder_options(kind: str, image: Image.Image, lossless: bool) -> dict[str, Any]:
    """Options of an encoder for quality."""
    match kind:
        case "JPEG":
            return {"quality": 95, "subsampling": 0, "optimize": image.size[0] * image.size[1] < 1 << 24}
        case "WEBP":
            # Without loss, more effort than this makes files 3 % smaller in 2.5 times the time.
            return {
                "lossless": lossless,
                "quality": 25 if lossless else 92,
                "method": 1 if lossless else 4,
                "exact": True,
            }
        case "AVIF":
            return {"quality": 90, "subsampling": "4:4:4", "speed": 8}
        case "HEIF":
            return {"quality": 90, "chroma": 444}
        case "JXL":
            return {"lossless": lossless, "quality": 100 if lossless else 95}
        case "JPEG2000":
            options = {"irreversible": not lossless, "mct": int(image.mode in ("RGB", "RGBA"))}
            return options if lossless else options | {"quality_mode": "dB", "quality_layers": [48]}
        case "ICO":
            return {"sizes": [image.size]}
    return {}


# Reading


@contextmanager
def _translated(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except MemoryError as error:
        raise MediaError(path, f"the {kind} does not fit into memory", "Convert it to PNG or TIFF first.") from error
    except UnidentifiedImageError as error:
        reason = _unsupported(path, kind)
        if reason is not None:
            raise MediaError(path, f"{reason}, which is not supported", "Convert it first.") from error
        raise MediaError(
            path, f"the {kind}'s header is damaged or of an unknown kind", "Repair or re-export it."
        ) from error
    except _DECODING as error:
        raise_shortage(error, path)
        unsupported = _unsupported(path, kind) if kind == "JPEG" else None
        if unsupported is not None:
            raise MediaError(path, f"{unsupported}, which is not supported", "Convert it first.") from error
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise MediaError(path, f"the {kind} cannot be decoded: {reason}", "Repair or re-export it.") from error


def _unsupported(path: Path, kind: str) -> str | None:
    """What a file is that Pillow refuses without saying why."""
    try:
        with reading(path) as file:
            head = file.read(1 << 20)
    except OSError:
        return None
    if kind == "JPEG":
        return unsupported_process(head)
    if kind == "PSD" and len(head) >= 26:
        bits, mode = struct.unpack_from(">HH", head, 22)
        names = {2: "indexed", 7: "multichannel", 8: "duotone"}
        if bits not in (1, 8):
            return f"it is a Photoshop document of {bits} bits per channel"
        return f"it is a {names[mode]} Photoshop document" if mode in names else None
    if kind == "DDS" and len(head) >= 132:
        flags, name, bits = struct.unpack_from("<I4sI", head, 80)
        if name == b"DX10" and flags & 4:
            return f"it is a DDS texture of DXGI format {struct.unpack_from('<I', head, 128)[0]}"
        return f"it is a DDS texture of kind {name.decode('latin-1')!r}" if flags & 4 else f"it is a {bits}-bit texture"
    return None


def _mended(path: Path, kind: str) -> BinaryIO | Path:
    """The file, or of a JPEG that lacks its end marker alone a copy with one."""
    if kind != "JPEG":
        return path
    with _translated(path, kind):
        with reading(path) as file:
            file.seek(max(0, path.stat().st_size - _END_BYTES))
            if b"\xff\xd9" in file.read():
                return path
        mended = with_end(path.read_bytes())
    return path if mended is None else io.BytesIO(mended)


def _open(source: BinaryIO | Path, kind: str) -> Image.Image:
    """Open without Pillow's limit on the number of pixels: our own caller holds one, and says how to raise it."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=(kind,))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read(image: Image.Image, path: Path, kind: str, index: int, animated: bool) -> Page:
    """Decode the page of this index."""
    with _translated(path, kind):
        if index:
            image.seek(index)
        image.load()
    try:
        return _page(image, path, kind, animated)
    except (ValueError, OSError, IndexError, AssertionError, ImageCms.PyCMSError) as error:
        reason = str(error) or "its palette is missing"
        raise MediaError(path, f"the {kind} cannot be converted: {reason}", "Re-export it.") from error


def _loop(image: Image.Image, kind: str) -> int:
    """How often an animation plays, 0: for ever. A GIF counts repeats, and without the count plays once."""
    loop = image.info.get("loop")
    if kind == "GIF":
        return 1 if loop is None else loop + 1 if loop else 0
    return int(loop or 0)


def _page(image: Image.Image, path: Path, kind: str, animated: bool) -> Page:
    """The page that ``image`` stands at."""
    icc = image.info.get("icc_profile") or None
    notes: tuple[str, ...] = ()
    if kind == "GIF" and animated:
        # Frames come as indices, RGB or RGBA, as Pillow composes them: one shape for all of them.
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "LAB"):
        image, notes = _to_srgb(image, icc)
        icc = None
    if "mpoffset" in image.info:
        notes += (BESIDE,)
    bits = 0 if image.mode.startswith("I") else bits_beyond(path, kind)
    strip, reason = _deep(path, kind, bits) if bits and not animated else (None, "animated")
    if bits and strip is None:
        notes += (f"Its {bits} bits per channel are decoded as 8: {reason}.",)
    pixels, alpha = samples_of(image) if strip is None else strip
    if icc is not None and icc[16:20] != (b"GRAY" if pixels.shape[2] == 1 else b"RGB "):
        if pixels.shape[2] == 1 and icc[16:20] == b"RGB ":
            pixels = np.repeat(pixels, 3, axis=2)
            notes += ("Grey became RGB, as its ICC profile is for RGB.",)
        else:
            icc, notes = None, (*notes, "Its ICC profile is for other channels than it has, and is left out.")
    if not animated:
        shown, note = _shown(image, path, kind)
        notes += (note,) if note else ()
        if shown is not None:
            pixels, alpha = pixels[shown], None if alpha is None else alpha[shown]
    duration = Fraction(image.info.get("duration", 0)).limit_denominator(1000) / 1000 if animated else None
    metadata, left_out = _metadata(image, path, kind, icc)
    if kind == "TGA" and alpha is not None and not alpha.any() and not _tga_has_alpha(path):
        alpha, notes = None, (*notes, "Its fourth channel is empty and not marked as alpha: it is left out.")
    if kind == "JPEG" and _mended(path, kind) is not path:
        left_out += ("Its end marker is missing; all pixels are there.",)
    return page_of(pixels, alpha, metadata, duration, tuple(dict.fromkeys((*notes, *left_out))))


def _shown(image: Image.Image, path: Path, kind: str) -> tuple[tuple[slice, slice] | None, str]:
    """As ``clean_aperture``: libheif crops what it decodes, libavif and OpenCV leave that to others."""
    if kind != "AVIF":
        return None, ""
    width, height = image.size
    return clean_aperture(primary_properties(path), height, width)


def _tga_has_alpha(path: Path) -> bool:
    """Whether a Targa file's header gives alpha any bits."""
    with reading(path) as file:
        return bool(file.read(18)[17] & 15)


def samples_of(image: Image.Image) -> Strip:
    """A Pillow image as pixels (H, W, 1 or 3) and transparency; palettes, keys and rarer modes resolved.

    Raises:
        ValueError: its samples are 32-bit integers that do not fit 16 bit.
    """
    mode = image.mode
    if mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return Strip(np.asarray(image).astype(np.uint16)[..., None])
    if mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError("32-bit integer samples are not supported")
        return Strip(wide.astype(np.uint16)[..., None])
    if mode == "F":
        return Strip(np.asarray(image, np.float32)[..., None])
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.has_transparency_data
    grey = mode in ("1", "L", "LA", "La") or (mode == "P" and _grey_palette(image))
    flat = np.asarray(image.convert(("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB")))
    return Strip.of(flat if flat.ndim == 3 else flat[..., None], alpha=transparent)


def _grey_palette(image: Image.Image) -> bool:
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """CMYK and Lab as sRGB: through the profile where there is one, else by the plain formula."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return _with_info(converted, image), ("Lab was converted to sRGB.",)
    if icc is not None and icc[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
            flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
            converted = ImageCms.profileToProfile(image, profile, srgb, intent, "RGB", flags=flags)
            return _with_info(converted, image), ("CMYK was converted to sRGB through the image's ICC profile.",)
        except ImageCms.PyCMSError:
            note = "CMYK was converted to RGB by the plain formula: the image's ICC profile is damaged."
            return image.convert("RGB"), (note,)
    return image.convert("RGB"), ("CMYK was converted to RGB by the plain formula: the image has no ICC profile.",)


def _with_info(converted: Image.Image | None, source: Image.Image) -> Image.Image:
    if converted is None:
        raise ValueError("the colour conversion gave no image")
    converted.info = dict(source.info)
    return converted


def bits_beyond(path: Path, kind: str) -> int:
    """Bits per channel of a file whose format can hold more than the 8 that Pillow gives; 0 if it gives all."""
    if kind in ("AVIF", "HEIF"):
        bits = bits_of(primary_properties(path))
    elif kind == "JPEG2000":
        with reading(path) as file:
            box = re.search(rb"ihdr.{10}(.)", file.read(1 << 14), re.DOTALL)
        bits = 0 if box is None else (box[1][0] & 0x7F) + 1
    else:
        return 0
    return bits if 8 < bits <= 16 else 0


def _deep(path: Path, kind: str, bits: int) -> tuple[Strip | None, str]:
    """The pixels of a still of 9 to 16 bit at 16 bit, the largest code the largest; or None and why not."""
    try:
        samples = _heif_samples(path, bits) if kind == "HEIF" else decode(path)
    except MediaError as error:
        return None, error.happened
    if samples is None or samples.dtype != np.uint16 or samples.shape[2] not in (1, 3, 4):
        return None, f"OpenCV, which could do more, does not know this kind of {kind}"
    if kind == "AVIF" and samples.shape[2] == 1:
        samples = _full_range(samples, path, bits)
    peak = 2**bits - 1
    wide = ((samples.astype(np.uint32) * 65535 + peak // 2) // peak).astype(np.uint16)
    return Strip.of(wide, alpha=wide.shape[2] == 4), ""


def _full_range(grey: NDArray[Any], path: Path, bits: int) -> NDArray[Any]:
    """Grey samples over the full range.

    OpenCV hands out luma as stored. Pillow, at 8 bit, does as the file says: whichever range comes closer is right.
    """
    black, white = 16 << (bits - 8), 235 << (bits - 8)
    peak = 2**bits - 1
    expanded = np.clip((grey.astype(np.float64) - black) * peak / (white - black), 0, peak)
    with _open(path, "AVIF") as image:
        shown = np.asarray(image.convert("L"), np.float64)[..., None] * (peak / 255)
    if shown.shape != grey.shape or np.abs(grey - shown).mean() <= np.abs(expanded - shown).mean():
        return grey
    return np.asarray(np.floor(expanded + 0.5), np.uint16)


def _heif_samples(path: Path, bits: int) -> NDArray[Any]:
    heif: Any = importlib.import_module("pillow_heif")
    samples = np.asarray(heif.open_heif(path, convert_hdr_to_8bit=False))  # moved up to the top of 16 bit
    return (samples if samples.ndim == 3 else samples[..., None]) >> (16 - bits)


def _metadata(image: Image.Image, path: Path, kind: str, icc: bytes | None) -> tuple[Metadata, tuple[str, ...]]:
    """(What surrounds the pixels, sentences on what is left out of it)."""
    info = image.info
    xmp, dpi, comment = info.get("xmp"), info.get("dpi"), info.get("comment")
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    metadata = Metadata(
        icc=icc,
        exif=bytes(info.get("exif") or b"").removeprefix(b"Exif\0\0") or None,
        xmp=(xmp.encode() if isinstance(xmp, str) else bytes(xmp or b"")) or None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and dpi[0] > 0 and dpi[1] > 0 else None,
        text=(("Comment", str(comment)),) if comment else (),
    )
    if kind == "JPEG":
        parts = jpeg_parts(path.read_bytes())
        metadata = replace(
            metadata,
            text=tuple(("Comment", text) for text in parts.comments),
            aspect=parts.aspect if metadata.dpi is None else None,
            photoshop=parts.photoshop,
            segments=parts.segments,
            trailer=parts.trailer,
        )
        return metadata, parts.notes
    if kind in ("AVIF", "HEIF") and icc is None:
        metadata = replace(metadata, colour=colour_of(primary_properties(path)))
    return metadata, ()


# Writing


def image_of(strip: Strip) -> Image.Image:
    """Pixels and transparency as a Pillow image: of 8 bit L, LA, RGB or RGBA, of 16 bit grey alone."""
    samples = strip.samples
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))


def milliseconds(duration: Fraction | None, elapsed: Fraction) -> int:
    """A frame's duration such that rounding errors never add up: the rounded end less the rounded start."""
    end = elapsed + (duration or 0)
    return round(end * 1000) - round(elapsed * 1000)


def _animated(image: Image.Image, first: Page, rest: Iterator[Page], count: int, durations: list[int]) -> Image.Image:
    """An image that shows the next frame when an encoder seeks in it, so that only one is in memory.

    Args:
        image: the first frame; pages of an animation are of one size.
        first: the page it was made from.
        durations: gets the milliseconds of every frame that is shown.
    """
    mode = "RGBA" if first.alpha else "RGB"
    # Encoders ask an image for these names whatever its class.
    shown: Any = image if image.mode == mode else image.convert(mode)
    at, elapsed = 0, Fraction(0)

    def count_time(page: Page) -> None:
        nonlocal elapsed
        durations.append(milliseconds(page.duration, elapsed))
        elapsed += page.duration or 0

    def seek(frame: int) -> None:
        """Go to the next frame; going back, which encoders do when they have finished, changes nothing."""
        nonlocal at
        if frame >= count:
            raise EOFError
        if frame == at + 1:
            page = next(rest)
            at = frame
            shown.paste(image_of(page.read()).convert(mode))
            count_time(page)

    count_time(first)
    shown.n_frames, shown.is_animated = count, True
    shown.seek, shown.tell = seek, lambda: at
    return shown  # type: ignore[no-any-return]
