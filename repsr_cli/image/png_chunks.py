"""Read everything in a PNG except its pixels: header, metadata, and where the pixels lie.

Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition). Names follow it.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO

from repsr_cli.image.damage import FILLING, Damaged, left_out_after
from repsr_cli.image.exif import upright_xmp
from repsr_cli.image.page import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Larger profiles, texts and EXIF blocks do not occur; inflating one must not fill the memory.
_MAX_CHUNK = 1 << 26
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB")
# Lengths of chunks that are copied as they are; of another length they are damaged.
_LENGTHS = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
_ANIMATION = (b"acTL", b"fcTL")
_KNOWN = (*_COLOUR_CHUNKS, b"PLTE", b"tRNS", b"acTL", b"iCCP", b"eXIf", b"pHYs", b"bKGD")
_C2PA = b"caBX"
_CGBI = b"CgBI"
XMP = "XML:com.adobe.xmp"
INCH = 0.0254


@dataclass(frozen=True, slots=True)
class Header:
    """The IHDR chunk."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool

    @property
    def bits(self) -> int:
        """Of a pixel."""
        return self.depth * _CHANNELS[self.colour_type]

    def line(self, width: int) -> int:
        """Bytes of a line of ``width`` px, without its filter byte."""
        return (width * self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an image's compressed data lie, and for a frame of an animation how it is shown.

    ``data`` holds (offset, length) of every piece; ``box`` is (left, top, width, height).
    """

    data: tuple[tuple[int, int], ...]
    box: tuple[int, int, int, int]
    duration: Fraction | None = None
    dispose: int = 0
    blend: int = 0


@dataclass(frozen=True, slots=True)
class File:
    """Everything of a PNG but its pixels.

    Attributes:
        loop: how often the animation plays, 0: for ever; None: it is a still image.
        chunks: those that are known, by their types.
    """

    header: Header
    frames: tuple[Frame, ...]
    loop: int | None
    chunks: dict[bytes, bytes]
    metadata: Metadata
    notes: tuple[str, ...] = ()


def parse(file: BinaryIO) -> File:
    """Read all chunks but pixels, whose places are noted; their checksums are checked when they are read."""
    if file.read(8) != SIGNATURE:
        raise Damaged("no PNG signature")
    parser = _Parser()
    while True:
        head = file.read(8)
        if len(head) < 8:
            return parser.result(ended=False)
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            file.seek(length + 4, os.SEEK_CUR)
            return parser.result(rest=_rest(file))
        at = file.tell()
        if kind in (b"IDAT", b"fdAT"):
            parser.add_pixels(at, length, file.read(4) if kind == b"fdAT" else None)
            file.seek(at + length + 4)
        else:
            data = _checked(file, kind, length)
            if data is None:
                parser.skip(kind, "damaged")
            else:
                parser.add(kind, data)


def _rest(file: BinaryIO) -> int:
    """How many bytes follow; 0 where all of them are only filling."""
    at = file.tell()
    data = any(block.strip(FILLING) for block in iter(lambda: file.read(1 << 16), b""))
    return file.seek(0, os.SEEK_END) - at if data else 0


def _checked(file: BinaryIO, kind: bytes, length: int) -> bytes | None:
    """The data of a chunk whose head has been read; None if they are damaged and the image can be shown without."""
    if length > _MAX_CHUNK:
        raise Damaged(f"a chunk {kind!r} of {length} bytes")
    data = file.read(length)
    check = file.read(4)
    if len(data) < length or len(check) < 4:
        raise Damaged("it ends early")
    if zlib.crc32(kind + data) == struct.unpack(">I", check)[0]:
        return data
    if kind[0] & 0x20 and kind not in _ANIMATION:
        return None
    raise Damaged(f"the checksum of chunk {kind.decode('latin-1')!r} is wrong")


class _Parser:
    """Collects chunks in the order of the file."""

    def __init__(self) -> None:
        self._header: Header | None = None
        self._chunks: dict[bytes, bytes] = {}
        self._texts: list[tuple[str, str]] = []
        self._frames: list[Frame] = []
        self._control: bytes | None = None
        self._pieces: list[tuple[int, int]] = []
        self._sequence = 0
        self._copied: list[tuple[bytes, bytes]] = []
        self._skipped: dict[str, list[str]] = {}

    def skip(self, kind: bytes, reason: str) -> None:
        """Note a chunk that is left out."""
        name = kind.decode("latin-1")
        if name not in self._skipped.setdefault(reason, []):
            self._skipped[reason].append(name)

    def add_pixels(self, at: int, length: int, number: bytes | None) -> None:
        """Note where compressed pixels are, with their sequence number in an animation."""
        if self._header is None:
            raise Damaged("pixels before the header")
        if number is not None:
            self._count(number)
        self._pieces.append((at, length))

    def add(self, kind: bytes, data: bytes) -> None:
        """Take in any other chunk."""
        if kind == b"IHDR":
            self._header = _header(data)
        elif kind == b"fcTL":
            if len(data) != 26:
                raise Damaged("a frame control of a wrong size")
            self._finish_frame()
            self._count(data[:4])
            self._control = data
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            self._add_text(kind, data)
            if sum(len(text) for _, text in self._texts) > _MAX_CHUNK:
                raise Damaged("its text inflates without end")
        elif len(data) != _LENGTHS.get(kind, len(data)) or (kind == b"gAMA" and not any(data)):
            self.skip(kind, "damaged")
        elif kind == _CGBI:
            raise Damaged("it is an iOS image (CgBI), which is not a standard PNG; convert it with pngcrush")
        elif kind in _KNOWN:
            self._chunks.setdefault(kind, data)
        elif kind[0] & 0x20 and kind[3] & 0x20:
            self._copied.append((kind, data))
        elif kind[0] & 0x20:
            self.skip(kind, "signed for the original image" if kind == _C2PA else "valid for the original image only")
        else:
            raise Damaged(f"it needs a chunk {kind.decode('latin-1')!r} to be shown, which is unknown")

    def _add_text(self, kind: bytes, data: bytes) -> None:
        try:
            keyword, text, foreign = _text(kind, data)
        except Damaged:
            self.skip(kind, "damaged")
            return
        if foreign:
            self._copied.append((kind, data))
        else:
            self._texts.append((keyword, text))

    def result(self, *, ended: bool = True, rest: int = 0) -> File:
        """Everything, after the last chunk."""
        self._finish_frame()
        header, chunks, frames = self._header, self._chunks, self._frames
        if header is None or not frames:
            raise Damaged("it holds no pixels" if ended else "it ends early")
        palette = chunks.get(b"PLTE", b"")
        if header.colour_type == 3 and (len(palette) % 3 or not palette):
            raise Damaged("its palette is missing")
        loop = struct.unpack(">I", chunks[b"acTL"][4:8])[0] if len(chunks.get(b"acTL", b"")) == 8 else None
        if loop is None:
            frames = [replace(frames[0], duration=None)]
        elif not ended and len(frames) < struct.unpack(">I", chunks[b"acTL"][:4])[0]:
            raise Damaged("it ends early: frames of the animation are missing")
        icc = _profile(chunks[b"iCCP"]) if b"iCCP" in chunks else None
        if b"iCCP" in chunks and icc is None:
            self.skip(b"iCCP", "damaged")
        notes = [f"PNG chunks left out as {why}: {', '.join(names)}." for why, names in self._skipped.items()]
        if not ended:
            notes.append("Its end is missing; all pixels are there.")
        notes += left_out_after(rest)
        metadata = _metadata(chunks, self._texts, icc)
        skipped_exif = any("eXIf" in names for names in self._skipped.values())
        if metadata.exif is None and metadata.xmp is not None and skipped_exif:
            metadata = replace(metadata, xmp=upright_xmp(metadata.xmp))
        if b"bKGD" in chunks:
            self._copied += _background(header, chunks)
        return File(header, tuple(frames), loop, chunks, replace(metadata, chunks=tuple(self._copied)), tuple(notes))

    def _finish_frame(self) -> None:
        """Make a frame of the pixels collected; they belong to the frame control before them."""
        if self._pieces and self._header is not None:
            self._frames.append(_frame(self._header, tuple(self._pieces), self._control))
            self._pieces.clear()

    def _count(self, number: bytes) -> None:
        if len(number) < 4 or struct.unpack(">I", number)[0] != self._sequence:
            raise Damaged("frames of the animation are missing or out of order")
        self._sequence += 1


def _header(data: bytes) -> Header:
    if len(data) != 13:
        raise Damaged("a header of a wrong size")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if not width or not height:
        raise Damaged("it has no width or no height")
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise Damaged("its header asks for something PNG does not have")
    return Header(width, height, depth, colour_type, bool(interlace))


def _frame(header: Header, pieces: tuple[tuple[int, int], ...], control: bytes | None) -> Frame:
    if control is None:
        return Frame(pieces, (0, 0, header.width, header.height))
    _, width, height, left, top, numerator, denominator, dispose, blend = struct.unpack(">IIIIIHHBB", control)
    if not width or not height or left + width > header.width or top + height > header.height:
        raise Damaged("a frame reaches beyond the canvas")
    return Frame(pieces, (left, top, width, height), Fraction(numerator, denominator or 100), dispose, blend)


def _inflated(data: bytes) -> bytes:
    """A chunk's compressed part."""
    inflate = zlib.decompressobj()
    try:
        out = inflate.decompress(data, _MAX_CHUNK)
    except zlib.error as error:
        raise Damaged("a compressed chunk cannot be inflated") from error
    if inflate.unconsumed_tail:
        raise Damaged("a compressed chunk inflates without end")
    return out


def _profile(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk, None if it is damaged."""
    try:
        profile = _inflated(chunk.partition(b"\0")[2][1:])
    except Damaged:
        return None
    return profile or None


def _background(header: Header, chunks: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The background colour as samples of 16 bit, grey or RGB; none if it is damaged."""
    data = chunks[b"bKGD"]
    if header.colour_type == 3:
        colour = chunks[b"PLTE"][3 * data[0] : 3 * data[0] + 3] if data else b""
        return [(b"bKGD", struct.pack(">3H", *(257 * n for n in colour)))] if len(colour) == 3 else []
    count = 3 if header.colour_type in (2, 6) else 1
    if len(data) != 2 * count:
        return []
    peak = 2**header.depth - 1
    return [
        (b"bKGD", struct.pack(f">{count}H", *(n * 65535 // peak & 65535 for n in struct.unpack(f">{count}H", data))))
    ]


def _text(kind: bytes, data: bytes) -> tuple[str, str, bool]:
    """(keyword, text, whether it is in a named language) of a text chunk."""
    keyword, _, rest = data.partition(b"\0")
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return name, rest.decode("latin-1"), False
    if kind == b"zTXt":
        return name, _inflated(rest[1:]).decode("latin-1"), False
    compressed = rest[:1] == b"\1"
    language, _, rest = rest[2:].partition(b"\0")
    translated, _, rest = rest.partition(b"\0")
    text = (_inflated(rest) if compressed else rest).decode("utf-8", "replace")
    return name, text, bool(language or translated) and name != XMP


def _metadata(chunks: dict[bytes, bytes], texts: list[tuple[str, str]], icc: bytes | None) -> Metadata:
    exif = xmp = dpi = aspect = None
    if b"eXIf" in chunks:
        exif = chunks[b"eXIf"].removeprefix(b"Exif\0\0")
    kept = []
    for keyword, text in texts:
        if keyword == XMP:
            xmp = text.encode()
        elif keyword in ("Raw profile type exif", "Raw profile type APP1") and exif is None:
            exif = _raw_profile(text)
        else:
            kept.append((keyword, text))
    if b"pHYs" in chunks:
        x, y, unit = struct.unpack(">IIB", chunks[b"pHYs"])
        if x and y:
            dpi = (x * INCH, y * INCH) if unit == 1 else None
            aspect = (float(x), float(y)) if unit != 1 and x != y else None
    colour = tuple((kind, chunks[kind]) for kind in _COLOUR_CHUNKS if kind in chunks)
    return Metadata(icc, exif, xmp, dpi, tuple(kept), colour, aspect)


def _raw_profile(text: str) -> bytes | None:
    """EXIF as ImageMagick wrote it before PNG had a chunk for it: a title, a length, hexadecimal digits."""
    words = text.split()
    try:
        data = bytes.fromhex("".join(words[2:]))
    except ValueError:
        return None
    return data.removeprefix(b"Exif\0\0") or None
