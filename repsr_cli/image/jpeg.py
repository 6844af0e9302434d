"""Read and write the parts of a JPEG file around its compressed pixels, which Pillow leaves out.

Source: ITU-T T.81, annex B; JFIF 1.02; Adobe, XMP specification part 3 (extended XMP, Photoshop's APP13).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from repsr_cli.image.damage import FILLING, left_out_after
from repsr_cli.image.page import Metadata

SEGMENT_BYTES = 65533
"""The longest content of a segment."""

BESIDE = "Only the main image is kept: previews, depth or gain maps beside it are not."
"""The note on files of several images."""

_PHOTOSHOP = b"Photoshop 3.0\0"
# Segments that the encoder writes anew: JFIF, EXIF and XMP, ICC and indexes of other images, Ducky and Adobe.
_REWRITTEN = (
    (0xE0, b""),
    (0xE1, b"Exif\0"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xE2, b"MPF\0"),
    (0xEC, b"Ducky"),
    (0xEE, b"Adobe"),
)
_C2PA = (0xEB, b"JP")
_EOI, _SOS, _DQT, _COMMENT = 0xD9, 0xDA, 0xDB, 0xFE
_STANDALONE = (0x01, *range(0xD0, 0xD8))
_IMAGE = b"\xff\xd8\xff"
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# The example table of luma (T.81, K.1), which libjpeg scales by its quality.
_LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_VIDEO = re.compile(rb"....ftyp(?:mp4|isom|iso\d|qt  |MSNV|M4V|avc1|hvc1|heic)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parts:
    """What stands around the pixels of a JPEG file.

    Attributes:
        aspect: relative pixel density where it has no unit, None: square or given by dpi.
        photoshop: Photoshop's resource blocks.
        comments: all of them.
        segments: others to copy, (marker, content).
        trailer: what follows the image: the video of a motion photo.
        notes: sentences for the user: what is left out.
    """

    aspect: tuple[float, float] | None = None
    photoshop: bytes | None = None
    comments: tuple[str, ...] = ()
    segments: tuple[tuple[int, bytes], ...] = ()
    trailer: bytes | None = None
    notes: tuple[str, ...] = ()


def jpeg_parts(data: bytes) -> Parts:
    """Find what stands around the pixels of a JPEG file; of a damaged one, what can be found."""
    aspect = None
    photoshop = b""
    comments: list[str] = []
    segments: list[tuple[int, bytes]] = []
    notes: list[str] = []
    end = len(data)
    for marker, start, stop in _markers(data):
        if marker == _EOI:
            end = stop
            break
        content = data[start:stop]
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            aspect = (float(x), float(y)) if not unit and x and y and x != y else None
        elif marker == 0xED and content.startswith(_PHOTOSHOP):
            photoshop += content.removeprefix(_PHOTOSHOP)
        elif marker == _COMMENT:
            comments.append(_decoded(content))
        elif marker == _C2PA[0] and content.startswith(_C2PA[1]):
            notes.append("Its content credentials (C2PA) are left out: they are signed for the original image.")
        elif 0xE0 <= marker <= 0xEF and not any(marker == m and content.startswith(c) for m, c in _REWRITTEN):
            segments.append((marker, content))
    video = _VIDEO.search(data, end)
    trailer = None
    if video is not None:
        # Offsets to the video are counted from the end of the file: what lies between stays, but for other images.
        trailer = data[video.start() if _IMAGE in data[end : video.start()] else end :]
    notes += _left_out(data[end : len(data) - len(trailer or b"")])
    return Parts(aspect, photoshop or None, tuple(comments), tuple(segments), trailer, tuple(notes))


def _left_out(between: bytes) -> list[str]:
    """What is not kept of the data after an image and before a video, sentence by sentence."""
    if _IMAGE in between:
        return [BESIDE]
    return left_out_after(len(between.strip(FILLING)))


def with_parts(encoded: bytes, metadata: Metadata) -> bytes:
    """An encoded JPEG with what its metadata holds beside EXIF, XMP, ICC profile and resolution."""
    head = bytearray(encoded[:2])
    at = 2
    for marker, start, stop in _markers(encoded):
        if not 0xE0 <= marker <= 0xEF:
            break
        content = bytearray(encoded[start:stop])
        if marker == 0xE0 and metadata.aspect is not None:
            struct.pack_into(">BHH", content, 7, 0, *_shorts(metadata.aspect))
        head += _segment(marker, bytes(content))
        at = stop
    if metadata.photoshop is not None:
        step = SEGMENT_BYTES - len(_PHOTOSHOP)
        for top in range(0, len(metadata.photoshop), step):
            head += _segment(0xED, _PHOTOSHOP + metadata.photoshop[top : top + step])
    for marker, segment in metadata.segments:
        head += _segment(marker, segment)
    for keyword, text in metadata.text:
        if keyword == "Comment":
            comment = text.encode()
            for top in range(0, len(comment), SEGMENT_BYTES):
                head += _segment(_COMMENT, comment[top : top + SEGMENT_BYTES])
    return bytes(head) + encoded[at:] + (metadata.trailer or b"")


def with_end(data: bytes) -> bytes | None:
    """A JPEG that lacks nothing but its end marker, with one; None if it lacks pixels or has one.

    Missing pixels show what follows the data: if different data make no difference, none are missing.
    """
    if any(marker == _EOI for marker, _, _ in _markers(data)) or not _all_scans(data):
        return None
    whole = data.rstrip(b"\0")
    if whole.endswith(b"\xff"):
        whole = whole[:-1]
    decoded = []
    for filling in (b"", b"\xa5\x3c" * 512):
        try:
            with Image.open(io.BytesIO(whole + filling + b"\xff\xd9"), formats=("JPEG",)) as image:
                decoded.append(np.asarray(image))
        except (OSError, ValueError, SyntaxError):
            return None
    return whole + b"\xff\xd9" if np.array_equal(decoded[0], decoded[1]) else None


def _all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG give all bits of all coefficients."""
    progressive, components = False, b""
    given: set[tuple[int, int]] = set()
    for marker, start, stop in _markers(data):
        content = data[start:stop]
        if marker in (0xC0, 0xC1, 0xC2) and len(content) >= 6:
            progressive, components = marker == 0xC2, content[6::3]
        elif marker == _SOS and content and len(content) >= 4 + 2 * content[0]:
            first, last, bits = content[1 + 2 * content[0] :][:3]
            if progressive and bits & 15:
                continue
            last = last if progressive else 63
            given |= {(c, k) for c in content[1 : 1 + 2 * content[0] : 2] for k in range(first, last + 1)}
    return bool(components) and len(given) == 64 * len(components)


def jpeg_quality(path: Path) -> float | None:
    """The quality from 1 to 100 at which the usual encoder (libjpeg) would quantize luma as strongly as a JPEG did.

    Encoders number qualities as they like, so this comes from the quantization tables.

    Returns:
        None where no tables are found.
    """
    with path.open("rb") as file:
        try:
            with Image.open(file, formats=("JPEG", "MPO")) as image:
                tables: dict[int, list[int]] = getattr(image, "quantization", {})
        except (OSError, ValueError, SyntaxError, KeyError, struct.error, Image.DecompressionBombError):
            return None
    return _quality(sum(tables[min(tables)])) if tables else None


def quality_of_tables(data: bytes) -> float | None:
    """As ``jpeg_quality``, of a JPEG of tables alone, as TIFF holds them."""
    for marker, start, stop in _markers(data):
        if marker == _DQT and stop - start > 64:
            wide = data[start] >> 4
            steps = data[start + 1 : start + 1 + (128 if wide else 64)]
            return _quality(sum(struct.unpack(">64H" if wide else "64B", steps)) if len(steps) in (64, 128) else 0)
    return None


def _quality(strength: int) -> float:
    """The quality at which the steps of libjpeg's table add up to a number."""
    strengths = [sum(_quantized(quality)) for quality in range(100, 0, -1)]
    return float(np.interp(strength, strengths, range(100, 0, -1)))


def _quantized(quality: int) -> Iterator[int]:
    """The quantization table of luma that libjpeg writes, in any order."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return (min(255, max(1, (step * percent + 50) // 100)) for step in _LUMA_STEPS)


def unsupported_process(data: bytes) -> str | None:
    """Why the pixels of a JPEG cannot be decoded, if it is of a rare kind."""
    for marker, start, stop in _markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and stop > start:
            bits = data[start]
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "it is a lossless JPEG"
            if bits != 8:
                return f"it is a JPEG of {bits} bits per channel"
            if marker in (0xC5, 0xC6, 0xCD, 0xCE):
                return "it is a hierarchical JPEG"
            if marker in (0xC9, 0xCA):
                return "it is a JPEG with arithmetic coding"
        if marker == 0xF7:
            return "it is a JPEG-LS image"
    return None


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, stop) of the contents of all segments up to the end of the image."""
    at = 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        at += 2
        if marker == _EOI:
            yield marker, at, at
            return
        if marker in _STANDALONE:
            continue
        if at + 2 > len(data):
            return
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            return
        yield marker, at + 2, at + length
        at += length
        if marker == _SOS:
            found = _SCAN_END.search(data, at)
            if found is None:
                return
            at = found.start()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _decoded(comment: bytes) -> str:
    text = comment.rstrip(b"\0")
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _shorts(aspect: tuple[float, float]) -> tuple[int, int]:
    """A ratio as two numbers of 16 bits."""
    factor = 1.0
    if not all(value.is_integer() for value in aspect):
        factor = 10_000 / max(aspect)
    factor = min(factor, 65535 / max(aspect))
    return max(1, round(aspect[0] * factor)), max(1, round(aspect[1] * factor))
