"""Read and repair properties of AVIF and HEIF images that their decoders do not expose.

Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (image items), ITU-T H.273 (code points of colour).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from repsr_cli.files import reading

_META_BYTES = 1 << 26
_UNSPECIFIED = 2
_NO_APERTURE = "Its container crops it to an area that is not within the image: all of it is used."


def primary_properties(path: Path) -> tuple[tuple[bytes, bytes], ...]:
    """The properties of a file's primary image, (type, content); empty if it has none or is damaged."""
    with reading(path) as file:
        for kind, _, content, end in boxes(file, path.stat().st_size):
            if kind == b"meta" and end - content <= _META_BYTES:
                file.seek(content)
                try:
                    return _of_primary(file.read(end - content)[4:])
                except (struct.error, IndexError):
                    return ()
    return ()


def boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int, int]]:
    """The boxes of a file, or of a box's content: (type, where it starts, where its content does, where it ends)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            length, header = int.from_bytes(file.read(8), "big"), 16
        length = length or size - at
        if length < header:
            return
        yield kind, at, at + header, at + length
        at += length


def colour_of(properties: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """What nclx says of the colours, as a PNG's cICP chunk; empty if it says nothing but sRGB."""
    for kind, content in properties:
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            if primaries > 255 or transfer > 255 or {primaries, transfer} == {_UNSPECIFIED}:
                return ()
            if primaries in (1, _UNSPECIFIED) and transfer in (13, _UNSPECIFIED):
                return ()
            known = [1 if primaries == _UNSPECIFIED else primaries, 13 if transfer == _UNSPECIFIED else transfer]
            # Decoded to RGB of the full range.
            return ((b"cICP", bytes([*known, 0, 1])),)
    return ()


def bits_of(properties: tuple[tuple[bytes, bytes], ...]) -> int:
    """Bits per channel, 0 if not given."""
    for kind, content in properties:
        if kind == b"pixi" and len(content) > 5:
            return content[5]
    return 0


def clean_aperture(
    properties: tuple[tuple[bytes, bytes], ...], height: int, width: int
) -> tuple[tuple[slice, slice] | None, str]:
    """What is shown of an image as decoded, before any rotation (ISO/IEC 14496-12, CleanApertureBox).

    Returns:
        ((rows, columns), or None for all of it; a sentence, or an empty string).
    """
    content = next((content for kind, content in properties if kind == b"clap"), None)
    if content is None:
        return None, ""
    try:
        values = struct.unpack(">IIIIiIiI", content)
        columns, rows, right, down = (Fraction(a, b) for a, b in zip(values[::2], values[1::2], strict=True))
    except (struct.error, ZeroDivisionError):
        return None, _NO_APERTURE
    top, left = (height - rows) / 2 + down, (width - columns) / 2 + right
    parts = top, left, rows, columns
    if any(part.denominator > 1 for part in parts) or min(top, left) < 0 or min(rows, columns) < 1:
        return None, _NO_APERTURE
    if top + rows > height or left + columns > width:
        return None, _NO_APERTURE
    if rows == height and columns == width:
        return None, ""
    shown = slice(int(top), int(top + rows)), slice(int(left), int(left + columns))
    return shown, f"Cropped to {columns}x{rows} of its {width}x{height}, as its container says."


def with_colour(encoded: bytes, primaries: int, transfer: int) -> bytes:
    """An encoded AVIF file that says these primaries and this transfer; its matrix and range stay as they are."""
    nclx = b"colrnclx" + struct.pack(">HH", primaries, transfer)
    return re.sub(rb"colrnclx.{4}", lambda _: nclx, encoded, flags=re.DOTALL)


def _within(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes in a box's content, (type, content)."""
    return [(kind, data[content:end]) for kind, _, content, end in boxes(io.BytesIO(data), len(data))]


def _of_primary(meta: bytes) -> tuple[tuple[bytes, bytes], ...]:
    parts = dict(_within(meta))
    pitm, iprp = parts.get(b"pitm", b""), dict(_within(parts.get(b"iprp", b"")))
    if len(pitm) < 6:
        return ()
    primary = int.from_bytes(pitm[4:6] if pitm[0] == 0 else pitm[4:8], "big")
    properties = _within(iprp.get(b"ipco", b""))
    return tuple(properties[n - 1] for n in _associated(iprp.get(b"ipma", b""), primary) if 0 < n <= len(properties))


def _associated(ipma: bytes, wanted: int) -> list[int]:
    """Numbers of an item's properties, from 1."""
    if len(ipma) < 8:
        return []
    wide, wide_items = ipma[3] & 1, ipma[0] > 0
    at = 8
    for _ in range(struct.unpack_from(">I", ipma, 4)[0]):
        item = struct.unpack_from(">I" if wide_items else ">H", ipma, at)[0]
        at += 4 if wide_items else 2
        count = ipma[at]
        at += 1
        numbers = struct.unpack_from(f">{count}{'H' if wide else 'B'}", ipma, at)
        at += count * (2 if wide else 1)
        if item == wanted:
            return [number & (0x7FFF if wide else 0x7F) for number in numbers]
    return []
