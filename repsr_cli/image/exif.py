"""Parse and build image file directories, the tagged structure of TIFF files and EXIF blocks.

Source: TIFF 6.0, section 2; BigTIFF (Aldus/AWare, 2007); CIPA DC-008 for EXIF's nested directories.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

Order = Literal["<", ">"]

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
ORIENTATION, XMP, ICC, EXIF, GPS, INTEROP = 274, 700, 34675, 34665, 34853, 40965
_NESTED = (EXIF, GPS, INTEROP)
_PIXEL_WIDTH, _PIXEL_HEIGHT = 40962, 40963
# Bytes per value, and the unit in which bytes are swapped, by type code.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNITS = {**_SIZES, 5: 4, 10: 4}
_NUMBERS = {1: "u1", 3: "<u2", 4: "<u4", 6: "i1", 7: "u1", 8: "<i2", 9: "<i4", 11: "<f4", 12: "<f8", 13: "<u4"} | {
    16: "<u8",
    17: "<i8",
    18: "<u8",
}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)([1-8])")
# No honest directory holds more: damaged counts must not make us read gigabytes.
_MAX_BYTES = 1 << 28


class DirectoryError(ValueError):
    """A directory that points outside its file or contradicts itself; readers translate it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The values of one tag.

    Attributes:
        type: TIFF's type code.
        data: the values, little-endian.
    """

    type: int
    data: bytes

    @property
    def count(self) -> int:
        """How many values."""
        return len(self.data) // _SIZES[self.type]

    @property
    def numbers(self) -> tuple[Any, ...]:
        """The values as Python numbers; rationals as floats (0 where the denominator is)."""
        if self.type in (5, 10):
            parts = np.frombuffer(self.data, "<u4" if self.type == 5 else "<i4").tolist()
            return tuple(n / d if d else 0.0 for n, d in zip(parts[::2], parts[1::2], strict=True))
        if self.type not in _NUMBERS:
            return ()
        return tuple(np.frombuffer(self.data, _NUMBERS[self.type]).tolist())


Directory = dict[int, "Entry | Directory"]


def shorts(*values: int) -> Entry:
    """Values of 16 bits."""
    return Entry(SHORT, struct.pack(f"<{len(values)}H", *values))


def longs(values: Iterable[int], *, big: bool = False) -> Entry:
    """Values of 32 bits, or of 64."""
    return Entry(LONG8 if big else LONG, np.array(list(values), "<u8" if big else "<u4").tobytes())


def rational(value: float) -> Entry:
    """A fraction with a denominator of 10,000."""
    return Entry(RATIONAL, struct.pack("<II", min(round(value * 10_000), 2**32 - 1), 10_000))


def read_header(file: BinaryIO) -> tuple[Order, bool, int]:
    """Read the first bytes of a TIFF structure.

    Returns:
        (byte order, whether BigTIFF, offset of the first directory).
    """
    head = file.read(16)
    order: Order = "<" if head[:2] == b"II" else ">"
    if head[:2] not in (b"II", b"MM") or len(head) < 8:
        raise DirectoryError("no TIFF header")
    version, offset = struct.unpack(order + "HI", head[2:8])
    if version == 42:
        return order, False, offset
    if version == 43 and len(head) == 16:
        return order, True, struct.unpack(order + "Q", head[8:])[0]
    raise DirectoryError(f"TIFF version {version}")


def read_directory(file: BinaryIO, offset: int, order: Order, *, big: bool, _depth: int = 0) -> tuple[Directory, int]:
    """Read one directory and those nested in it.

    Returns:
        (tags, offset of the next directory or 0). Entries of unknown types are left out; a nested directory that cannot
        be read is too, since it holds descriptions, not pixels.

    Raises:
        DirectoryError: it reaches outside the file.
    """
    count = struct.unpack(order + ("Q" if big else "H"), _exactly(file, offset, 8 if big else 2))[0]
    size, inline = (20, 8) if big else (12, 4)
    if count * size > _MAX_BYTES:
        raise DirectoryError(f"{count} tags")
    start = offset + (8 if big else 2)
    table = _exactly(file, start, count * size + inline)
    found: Directory = {}
    for at in range(0, count * size, size):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), table, at)
        if kind not in _SIZES:
            continue
        length = values * _SIZES[kind]
        if length > _MAX_BYTES:
            raise DirectoryError(f"tag {tag} of {length} bytes")
        data = table[at + size - inline : at + size]
        if length > inline:
            data = _exactly(file, struct.unpack(order + ("Q" if big else "I"), data)[0], length)
        unit = _UNITS[kind]
        data = data[:length]
        if order == ">" and unit > 1:
            data = np.frombuffer(data, f">u{unit}").astype(f"<u{unit}").tobytes()
        entry = Entry(kind, data)
        if tag in _NESTED and _depth < 2 and entry.numbers:
            with suppress(DirectoryError):
                found[tag], _ = read_directory(file, int(entry.numbers[0]), order, big=big, _depth=_depth + 1)
        else:
            found[tag] = entry
    return found, struct.unpack(order + ("Q" if big else "I"), table[count * size :])[0]


def write_directory(tags: Directory, offset: int, *, big: bool = False) -> bytes:
    """A directory as bytes, little-endian, to stand at ``offset``: its table, the offset of the next (0), its values.

    The offset of the next directory is the last 4 (BigTIFF: 8) bytes of the table: see ``next_at``.
    """
    inline = 8 if big else 4
    table = struct.pack("<Q" if big else "<H", len(tags))
    values = bytearray()
    at = next_at(tags, offset, big=big) + inline
    for tag in sorted(tags):
        entry = tags[tag]
        if not isinstance(entry, Entry):
            here = at + len(values)
            values += write_directory(entry, here, big=big)
            entry = longs([here], big=big)
        data = entry.data
        if len(data) > inline:
            data = struct.pack("<Q" if big else "<I", at + len(values))
            values += entry.data
        table += struct.pack("<HHQ" if big else "<HHI", tag, entry.type, entry.count) + data.ljust(inline, b"\0")
        values += b"\0" * (len(values) % 2)
    return table + b"\0" * inline + bytes(values)


def next_at(tags: Directory, offset: int, *, big: bool = False) -> int:
    """Where a directory written at ``offset`` keeps the offset of the next one."""
    return offset + (8 + 20 * len(tags) if big else 2 + 12 * len(tags))


def parse_exif(exif: bytes) -> Directory:
    """The tags of an EXIF block; empty if it cannot be read."""
    return _parsed(exif) or {}


def _parsed(exif: bytes) -> Directory | None:
    file = io.BytesIO(exif)
    try:
        order, big, offset = read_header(file)
        return read_directory(file, offset, order, big=big)[0]
    except (DirectoryError, RecursionError):
        return None


def build_exif(tags: Directory) -> bytes:
    """An EXIF block of these tags."""
    return b"II\x2a\0\x08\0\0\0" + write_directory(tags, 8)


def stored_orientation(exif: bytes | None) -> int | None:
    """EXIF's orientation, 1 to 8; None if it gives none."""
    entry = parse_exif(exif or b"").get(ORIENTATION)
    value = entry.numbers[0] if isinstance(entry, Entry) and entry.numbers else 0
    return int(value) if value in range(1, 9) else None


def orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """How an image is to be turned, 1 to 8: as EXIF says, or else XMP.

    XMP's is often stale. It is not used where there is an EXIF block that cannot be read and may hold another.
    """
    stored = stored_orientation(exif)
    if stored is not None:
        return stored
    match = _XMP_ORIENTATION.search(xmp or b"")
    return 1 if match is None or (exif and _parsed(exif) is None) else int(match[2])


def upright_xmp(xmp: bytes) -> bytes:
    """The XMP packet of an image that needs no turning, every other byte as it was."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def exif_for(exif: bytes, height: int, width: int) -> bytes:
    """The EXIF block for an upright image of another size, every other byte as it was.

    Patched in place rather than rebuilt: makers' notes hold offsets that nobody but the maker understands. The
    orientation becomes 1, the pixel dimensions become the new ones, and the thumbnail of the old image is unhooked.
    """
    patched = bytearray(exif)
    file = io.BytesIO(exif)
    with suppress(DirectoryError):
        order, big, offset = read_header(file)
        if big:
            return exif
        count = struct.unpack(order + "H", _exactly(file, offset, 2))[0]
        _exactly(file, offset, 2 + 12 * count + 4)
        patched[offset + 2 + 12 * count : offset + 6 + 12 * count] = bytes(4)
        _patch(patched, offset, order, {ORIENTATION: 1})
        nested = _find(exif, offset, order, EXIF)
        if nested is not None:
            at = struct.unpack_from(order + "I", exif, nested + 8)[0]
            _exactly(file, at, 2)
            _patch(patched, at, order, {_PIXEL_WIDTH: width, _PIXEL_HEIGHT: height})
    return bytes(patched)


def _patch(exif: bytearray, offset: int, order: Order, values: dict[int, int]) -> None:
    """Overwrite single inline numbers of the directory at ``offset``."""
    for tag, value in values.items():
        at = _find(bytes(exif), offset, order, tag)
        if at is not None:
            # EXIF wants the orientation as a 16-bit number; of sizes it takes either.
            short = tag == ORIENTATION
            number = struct.pack(order + "HH", value, 0) if short else struct.pack(order + "I", value)
            exif[at + 2 : at + 12] = struct.pack(order + "HI", SHORT if short else LONG, 1) + number


def _find(exif: bytes, offset: int, order: Order, tag: int) -> int | None:
    """Where a directory keeps a tag's entry."""
    count = struct.unpack_from(order + "H", exif, offset)[0]
    for at in range(offset + 2, min(offset + 2 + 12 * count, len(exif) - 11), 12):
        if struct.unpack_from(order + "H", exif, at)[0] == tag:
            return at
    return None


def _exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    """Bytes [offset, offset + length) of the file."""
    if offset < 0 or offset >= 1 << 63:
        raise DirectoryError(f"offset {offset}")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise DirectoryError("reaches beyond the end of the file")
    return data
