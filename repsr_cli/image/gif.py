"""Write GIF frame by frame.

Pillow's writer drops frames that equal the one before; this one writes a frame for every frame. It uses Pillow's LZW
encoder and its choice of 256 colours.

Source: CompuServe, Graphics Interchange Format, version 89a; the NETSCAPE2.0 extension for loops.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.image.page import Page, Strip

_XMP_TRAILER = bytes([1, *range(255, -1, -1), 0])


def write_gif(file: BinaryIO, pages: Iterable[Page], *, loop: int | None) -> None:
    """Write a GIF, animated if ``loop`` is given.

    A frame of up to 256 colours keeps them exactly; of more, the best 256 are chosen and dithered. Transparency is on
    or off, split at one half. Times are rounded to 1/100 s such that errors do not add up.

    Args:
        pages: 8 bit, all of one size, at most 65,535 px a side.
        loop: how often an animation plays, 0: for ever; None: a still.
    """
    elapsed = Fraction(0)
    for index, page in enumerate(pages):
        if index == 0:
            file.write(b"GIF89a" + struct.pack("<HHBBB", page.width, page.height, 0, 0, 0))
            if loop is not None and loop != 1:
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", min(max(loop - 1, 0), 65535), 0))
            if page.metadata.xmp is not None:
                # Readers skip the packet by its own bytes, taken for lengths, into this trailer.
                file.write(b"\x21\xff\x0bXMP DataXMP" + page.metadata.xmp + _XMP_TRAILER)
            for keyword, text in page.metadata.text:
                if keyword == "Comment":
                    file.write(b"\x21\xfe" + _blocks(text.encode()))
        indices, table, transparent = _indexed(page.read())
        start, elapsed = elapsed, elapsed + (page.duration or 0)
        delay = min(round(elapsed * 100) - round(start * 100), 65535)
        # A frame with holes must not show the one before through them: it is cleared when its time is over.
        flags = 0 if transparent is None else 1 | 2 << 2
        file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, delay, transparent or 0, 0))
        bits = max(1, (len(table) - 1).bit_length())
        file.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, page.width, page.height, 0x80 | bits - 1))
        file.write(table.tobytes().ljust(3 << bits, b"\0"))
        file.write(b"\x08" + Image.fromarray(indices).tobytes("gif", ("L", 8, 0)) + b"\0")
    file.write(b"\x3b")


def _blocks(data: bytes) -> bytes:
    """Data in blocks of up to 255 bytes, each after its length, ended by an empty one."""
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def _indexed(strip: Strip) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int | None]:
    """An image as (indices (H, W), colours (up to 256, 3), index that stands for transparent or None)."""
    pixels, alpha = strip
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    hidden = np.zeros(rgb.shape[:2], bool) if alpha is None else alpha < 128
    colours_left = 255 if hidden.any() else 256
    packed = (rgb[..., 0].astype(np.uint32) << 16) | (rgb[..., 1].astype(np.uint32) << 8) | rgb[..., 2]
    used = np.unique(packed[~hidden])
    if len(used) <= colours_left:
        indices = np.searchsorted(used, packed).astype(np.uint8)
        table = np.stack([used >> 16, used >> 8 & 255, used & 255], axis=1).astype(np.uint8)
    else:
        image = Image.fromarray(np.where(hidden[..., None], 0, rgb).astype(np.uint8))
        palette = image.quantize(colours_left, Image.Quantize.MEDIANCUT)
        quantized = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        indices = np.array(quantized)
        table = np.array(quantized.getpalette("RGB"), np.uint8).reshape(-1, 3)[:colours_left]
    if not hidden.any():
        return indices, table, None
    indices[hidden] = len(table)
    return indices, np.vstack([table, np.zeros((1, 3), np.uint8)]), len(table)
