"""Write PNG and animated PNG strip by strip, at their full depth.

Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition). Names follow it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from repsr_cli.image.page import Metadata, Page
from repsr_cli.image.png_chunks import INCH, SIGNATURE, XMP

# Bytes of lines filtered in one go: few enough that every intermediate stays in the cache.
_FILTER_BYTES = 1 << 17


def write_png(file: BinaryIO, pages: Iterable[Page], *, count: int = 1, loop: int | None = None) -> None:
    """Write a PNG, animated if ``loop`` is given.

    Args:
        file: opened for writing; written from front to back.
        pages: ``count`` pages of one size, type and set of channels.
        count: how many; more than one needs ``loop``.
        loop: how often an animation plays, 0: for ever.
    """
    sequence = 0
    file.write(SIGNATURE)
    for index, page in enumerate(pages):
        if index == 0:
            colour_type = (2 if page.channels == 3 else 0) + (4 if page.alpha else 0)
            header = struct.pack(">IIBBBBB", page.width, page.height, 8 * page.dtype.itemsize, colour_type, 0, 0, 0)
            _write_chunk(file, b"IHDR", header)
            for kind, data in _metadata_chunks(page.metadata, 8 * page.dtype.itemsize, page.channels):
                _write_chunk(file, kind, data)
            if loop is not None:
                still = page.duration is None
                _write_chunk(file, b"acTL", struct.pack(">II", count - still, loop))
        if page.duration is not None and loop is not None:
            delay = _delay(page.duration)
            control = struct.pack(
                ">IIIIIHHBB", sequence, page.width, page.height, 0, 0, delay.numerator, delay.denominator, 0, 0
            )
            _write_chunk(file, b"fcTL", control)
            sequence += 1
        for data in _compressed(page):
            if index == 0:
                _write_chunk(file, b"IDAT", data)
            else:
                _write_chunk(file, b"fdAT", struct.pack(">I", sequence) + data)
                sequence += 1
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _metadata_chunks(metadata: Metadata, depth: int, channels: int) -> Iterator[tuple[bytes, bytes]]:
    """The chunks that go before the pixels, in the order the specification wants."""
    yield from metadata.colour
    if metadata.icc is not None:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)
    if metadata.dpi is not None:
        yield b"pHYs", struct.pack(">IIB", *(min(round(dpi / INCH), 2**31 - 1) for dpi in metadata.dpi), 1)
    elif metadata.aspect is not None:
        scale = 1 if all(n.is_integer() for n in metadata.aspect) else 10_000
        yield b"pHYs", struct.pack(">IIB", *(min(max(round(n * scale), 1), 2**31 - 1) for n in metadata.aspect), 0)
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    for kind, data in metadata.chunks:
        yield kind, _background_at(data, depth, channels) if kind == b"bKGD" else data
    if metadata.photoshop is not None:
        digits = metadata.photoshop.hex()
        profile = f"\niptc\n{len(metadata.photoshop):8}\n" + "\n".join(re.findall(r".{1,72}", digits)) + "\n"
        yield b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile.encode())
    if metadata.xmp is not None:
        yield b"iTXt", XMP.encode() + b"\0\0\0\0\0" + metadata.xmp
    for keyword, text in metadata.text:
        name = keyword.encode("latin-1", "replace")[:79] or b"Comment"
        try:
            yield b"tEXt", name + b"\0" + text.encode("latin-1")
        except UnicodeEncodeError:
            yield b"iTXt", name + b"\0\0\0\0\0" + text.encode()


def _background_at(data: bytes, depth: int, channels: int) -> bytes:
    """A background of 16 bit at a depth, in as many channels as the image has."""
    values = [n * (2**depth - 1) // 65535 for n in struct.unpack(f">{len(data) // 2}H", data)]
    return struct.pack(f">{channels}H", *(values * 3)[:channels])


def _delay(seconds: Fraction) -> Fraction:
    """The nearest delay that two 16-bit numbers can say."""
    return min(seconds, Fraction(65535)).limit_denominator(65535 if seconds <= 1 else max(1, int(65535 / seconds)))


def _compressed(page: Page) -> Iterator[bytes]:
    """The page's pixels as one zlib stream, in pieces."""
    # On filtered photographs runs are all that matching finds: as small as level 6 makes them, ten times as fast.
    deflater = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    above: NDArray[np.uint8] | None = None
    for strip in page.strips():
        samples = strip.samples
        step = samples.shape[2] * samples.dtype.itemsize
        big_endian = samples.astype(samples.dtype.newbyteorder(">"), copy=False)
        lines = np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(samples), -1)
        rows = max(1, _FILTER_BYTES // lines.shape[1])
        for top in range(0, len(lines), rows):
            block = lines[top : top + rows]
            data = deflater.compress(_filter(block, above, step))
            above = block[-1]
            if data:
                yield data
    yield deflater.flush()


def _filter(lines: NDArray[np.uint8], above: NDArray[np.uint8] | None, step: int) -> bytes:
    """Filter each line the way that leaves the smallest sum of magnitudes, the specification's heuristic.

    Args:
        lines: (rows, bytes), of which ``step`` bytes make a pixel.
        above: the line before the first, None at the top.
        step: bytes per pixel.
    """
    rows, width = lines.shape
    up = np.zeros((rows, width), np.uint8)
    up[1:] = lines[:-1]
    if above is not None:
        up[0] = above
    left = np.zeros_like(up)
    left[:, step:] = lines[:, :-step]
    corner = np.zeros_like(up)
    corner[:, step:] = up[:, :-step]
    candidates = ((1, lines - left), (2, lines - up), (4, lines - _paeth(left, up, corner)))
    costs = np.stack([np.abs(c.view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.uint32) for _, c in candidates])
    best = costs.argmin(axis=0)
    out = np.empty((rows, width + 1), np.uint8)
    for index, (kind, candidate) in enumerate(candidates):
        chosen = best == index
        out[chosen, 0] = kind
        out[chosen, 1:] = candidate[chosen]
    return out.tobytes()


def _paeth(left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whichever neighbour is nearest to left + up - corner; ties go to left, then up.

    In bytes alone, of which a processor does 32 at a time. The estimate is ``a`` away from left and ``b`` from up. From
    the corner it is a + b away, which is never the least, or the gap between a and b where the corner lies between.
    """
    a = np.maximum(up, corner) - np.minimum(up, corner)
    b = np.maximum(left, corner) - np.minimum(left, corner)
    least = np.minimum(a, b)
    gap = np.maximum(a, b) - least
    between = ((up > corner) != (left > corner)) & (gap < least)
    return _choose(between, corner, _choose(a <= b, left, up))


def _choose(where: NDArray[np.bool_], yes: NDArray[np.uint8], no: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``np.where`` for bytes, in a third of the time."""
    mask = np.negative(where.view(np.uint8))
    return ((yes ^ no) & mask) ^ no
