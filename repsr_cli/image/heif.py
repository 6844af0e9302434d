"""Read and mend the properties of AVIF and HEIF images that their decoders do not hand out.

Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (image items), ITU-T H.273 (code points of colour).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from repsr_cli.files import reading

_META_BYTES = 1 << 26
_UNSPECIFIED = 2
_NCLX = b"colrnclx"


def primary_properties(path: Path) -> tuple[tuple[bytes, bytes], ...]:
    """The properties of a file's primary image, (type, content); empty if it has none or is damaged."""
    with reading(path) as file:
        size = path.stat().st_size
        at = 0
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            header = 8
            if length == 1:
                length, header = int.from_bytes(file.read(8), "big"), 16
            length = length or size - at
            if kind == b"meta" and length <= _META_BYTES:
                file.seek(at + header)
                try:
                    return _of_primary(file.read(length - header)[4:])
                except (struct.error, IndexError):
                    return ()
            if length < header:
                return ()
            at += length
    return ()


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


def with_colour(encoded: bytes, primaries: int, transfer: int) -> bytes:
    """An encoded AVIF file that says these primaries and this transfer; its matrix and range stay as they are."""
    at = encoded.find(_NCLX)
    if at < 0:
        return encoded
    mended = bytearray(encoded)
    while at >= 0:
        struct.pack_into(">HH", mended, at + len(_NCLX), primaries, transfer)
        at = encoded.find(_NCLX, at + 1)
    return bytes(mended)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1:
            length, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        length = length or len(data) - at
        if length < header:
            return
        yield kind, data[at + header : at + length]
        at += length


def _of_primary(meta: bytes) -> tuple[tuple[bytes, bytes], ...]:
    boxes = dict(_boxes(meta))
    pitm, iprp = boxes.get(b"pitm", b""), dict(_boxes(boxes.get(b"iprp", b"")))
    if len(pitm) < 6:
        return ()
    primary = int.from_bytes(pitm[4:6] if pitm[0] == 0 else pitm[4:8], "big")
    properties = list(_boxes(iprp.get(b"ipco", b"")))
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
