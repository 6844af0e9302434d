"""Read and write PNG and animated PNG strip by strip, at their full depth.

Pillow reduces 16 bits per channel to 8 and needs the whole image at once. Only its decoder is used here, to undo line
filters on one strip at a time.

Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition). Names follow it.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.files import reading
from repsr_cli.image.damage import FILLING, Damaged, left_out_after, reporting_damage
from repsr_cli.image.exif import upright_xmp
from repsr_cli.image.inflate import inflate
from repsr_cli.image.page import Metadata, Page, Stored, Strip

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Bytes of unfiltered lines decoded or encoded in one go.
_STRIP_BYTES = 1 << 23
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
_XMP = "XML:com.adobe.xmp"
_INCH = 0.0254
# Bytes of lines filtered in one go: few enough that every intermediate stays in the cache.
_FILTER_BYTES = 1 << 17
# Interlacing: each pass's (left, top, step right, step down).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool

    @property
    def bits(self) -> int:
        return self.depth * _CHANNELS[self.colour_type]

    def line(self, width: int) -> int:
        """Bytes of a line of ``width`` px, without its filter byte."""
        return (width * self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where an image's compressed data lie, and for a frame of an animation how it is shown.

    ``data`` holds (offset, length) of every piece; ``box`` is (left, top, width, height).
    """

    data: tuple[tuple[int, int], ...]
    box: tuple[int, int, int, int]
    duration: Fraction | None = None
    dispose: int = 0
    blend: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    header: _Header
    frames: tuple[_Frame, ...]
    loop: int | None
    chunks: dict[bytes, bytes]
    metadata: Metadata
    notes: tuple[str, ...] = ()


def open_png(path: Path) -> Stored:
    """Read everything of a PNG but its pixels.

    Raises:
        MediaError: the file is damaged; later, from strips: its pixels are.
    """
    with reporting_damage(path, "PNG"), reading(path) as file:
        parsed = _parse(file)
    header = parsed.header
    animated = parsed.loop is not None

    def page(frame: _Frame, strips: Callable[[], Iterator[Strip]], alpha: bool, notes: tuple[str, ...]) -> Page:
        dtype = np.dtype(np.uint16 if header.depth == 16 else np.uint8)
        coloured = header.colour_type in (2, 6) or (header.colour_type == 3 and not _grey_palette(parsed))
        channels = 3 if coloured else 1
        size = header.height, header.width, channels, dtype, alpha
        return Page(*size, strips, parsed.metadata, frame.duration, notes)

    def pages() -> Iterator[Page]:
        notes = parsed.notes
        if _beyond_palette(path, parsed):
            notes += ("Some pixels have colours that its palette lacks: they are shown black.",)
        alpha = _animation_alpha(parsed) if animated else _has_alpha(parsed)
        for frame in parsed.frames:
            if frame.duration is None:
                yield page(frame, _reader(path, parsed, frame, alpha), alpha, notes)
        for frame, canvas in _composed(path, parsed):
            strip = Strip.of(canvas, alpha=alpha)
            yield page(frame, lambda strip=strip: iter((strip,)), alpha, notes)  # type: ignore[misc]

    streamed = not (header.interlaced or animated)
    return Stored(header.height, header.width, pages, parsed.metadata, len(parsed.frames), parsed.loop, streamed)


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


# Reading


def _parse(file: BinaryIO) -> _File:
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
        self._header: _Header | None = None
        self._chunks: dict[bytes, bytes] = {}
        self._texts: list[tuple[str, str]] = []
        self._frames: list[_Frame] = []
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

    def result(self, *, ended: bool = True, rest: int = 0) -> _File:
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
        if b"iCCP" in chunks and _profile(chunks[b"iCCP"]) is None:
            del chunks[b"iCCP"]
            self.skip(b"iCCP", "damaged")
        notes = [f"PNG chunks left out as {why}: {', '.join(names)}." for why, names in self._skipped.items()]
        if not ended:
            notes.append("Its end is missing; all pixels are there.")
        notes += left_out_after(rest)
        metadata = _metadata(chunks, self._texts)
        if metadata.exif is None and metadata.xmp is not None and self._skipped_exif:
            metadata = replace(metadata, xmp=upright_xmp(metadata.xmp))
        if b"bKGD" in chunks:
            self._copied += _background(header, chunks)
        return _File(header, tuple(frames), loop, chunks, replace(metadata, chunks=tuple(self._copied)), tuple(notes))

    @property
    def _skipped_exif(self) -> bool:
        return any("eXIf" in names for names in self._skipped.values())

    def _finish_frame(self) -> None:
        """Make a frame of the pixels collected; they belong to the frame control before them."""
        if self._pieces and self._header is not None:
            self._frames.append(_frame(self._header, tuple(self._pieces), self._control))
            self._pieces.clear()

    def _count(self, number: bytes) -> None:
        if len(number) < 4 or struct.unpack(">I", number)[0] != self._sequence:
            raise Damaged("frames of the animation are missing or out of order")
        self._sequence += 1


def _header(data: bytes) -> _Header:
    if len(data) != 13:
        raise Damaged("a header of a wrong size")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if not width or not height:
        raise Damaged("it has no width or no height")
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise Damaged("its header asks for something PNG does not have")
    return _Header(width, height, depth, colour_type, bool(interlace))


def _frame(header: _Header, pieces: tuple[tuple[int, int], ...], control: bytes | None) -> _Frame:
    if control is None:
        return _Frame(pieces, (0, 0, header.width, header.height))
    _, width, height, left, top, numerator, denominator, dispose, blend = struct.unpack(">IIIIIHHBB", control)
    if not width or not height or left + width > header.width or top + height > header.height:
        raise Damaged("a frame reaches beyond the canvas")
    return _Frame(pieces, (left, top, width, height), Fraction(numerator, denominator or 100), dispose, blend)


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


def _background(header: _Header, chunks: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
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
    return name, text, bool(language or translated) and name != _XMP


def _metadata(chunks: dict[bytes, bytes], texts: list[tuple[str, str]]) -> Metadata:
    exif = xmp = dpi = aspect = None
    icc = _profile(chunks[b"iCCP"]) if b"iCCP" in chunks else None
    if b"eXIf" in chunks:
        exif = chunks[b"eXIf"].removeprefix(b"Exif\0\0")
    kept = []
    for keyword, text in texts:
        if keyword == _XMP:
            xmp = text.encode()
        elif keyword in ("Raw profile type exif", "Raw profile type APP1") and exif is None:
            exif = _raw_profile(text)
        else:
            kept.append((keyword, text))
    if len(chunks.get(b"pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", chunks[b"pHYs"])
        if x and y:
            dpi = (x * _INCH, y * _INCH) if unit == 1 else None
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


def _has_alpha(parsed: _File) -> bool:
    return parsed.header.colour_type >= 4 or b"tRNS" in parsed.chunks


def _grey_palette(parsed: _File) -> bool:
    """Whether a palette holds greys alone (and no profile says that they stand for something else)."""
    palette = np.frombuffer(parsed.chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all()) and (parsed.metadata.icc or b"")[16:20] in (b"", b"GRAY")


def _beyond_palette(path: Path, parsed: _File) -> bool:
    """Whether pixels point beyond the palette, which decoders show as black."""
    header = parsed.header
    entries = len(parsed.chunks.get(b"PLTE", b"")) // 3
    if header.colour_type != 3 or entries >= 2**header.depth:
        return False
    indices = replace(parsed, header=replace(header, colour_type=0), chunks={})
    step = 255 // (2**header.depth - 1)
    try:
        with reading(path) as file:
            return any(
                int(samples.max()) // step >= entries
                for frame in parsed.frames
                for samples in _samples(file, indices, frame)
            )
    except Damaged:
        return False  # reported where the pixels are read


def _reader(path: Path, parsed: _File, frame: _Frame, alpha: bool) -> Callable[[], Iterator[Strip]]:
    def strips() -> Iterator[Strip]:
        with reporting_damage(path, "PNG"), reading(path) as file:
            for samples in _samples(file, parsed, frame):
                yield Strip.of(_opaque(samples) if alpha and not _has_alpha(parsed) else samples, alpha=alpha)

    return strips


def _opaque(samples: NDArray[Any]) -> NDArray[Any]:
    """Samples with an opaque alpha channel added."""
    return np.concatenate([samples, np.full_like(samples[..., :1], np.iinfo(samples.dtype).max)], axis=2)


def _samples(file: BinaryIO, parsed: _File, frame: _Frame) -> Iterator[NDArray[Any]]:
    """The image in strips of (rows, W, channels + alpha) at 8 or 16 bit, palette and transparent colour resolved."""
    header = parsed.header
    _, _, width, height = frame.box
    if header.interlaced:
        passes = [(x, y, dx, dy, -(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _ADAM7]
        passes = [p for p in passes if p[4] > 0 and p[5] > 0]
        whole: NDArray[Any] | None = None
        sizes = ((header.line(w) + 1) * h for *_, w, h in passes)
        for (x, y, dx, dy, w, h), lines in zip(passes, _inflate(_stream(file, frame), sizes), strict=True):
            reduced = _resolve(_unfilter(lines, header, w, h), w, parsed)
            if whole is None:
                whole = np.empty((height, width, reduced.shape[2]), reduced.dtype)
            whole[y::dy, x::dx] = reduced
        if whole is not None:
            yield whole
        return
    pitch = header.line(width) + 1
    rows = max(1, _STRIP_BYTES // pitch)
    heights = [min(rows, height - top) for top in range(0, height, rows)]
    above = bytes(pitch)
    for lines, count in zip(_inflate(_stream(file, frame), (h * pitch for h in heights)), heights, strict=True):
        # A filtered line needs the one above: the last of the strip before goes in again, as an unfiltered line.
        block = _unfilter(above + lines, header, width, count + 1)[1:]
        above = b"\0" + block[-1].tobytes()
        yield _resolve(block, width, parsed)


def _stream(file: BinaryIO, frame: _Frame) -> Iterator[bytes]:
    """The compressed pixels, in pieces of up to 1 MiB, every chunk's checksum checked."""
    for at, length in frame.data:
        file.seek(at - 4)
        check = zlib.crc32(kind := file.read(4))
        if kind == b"fdAT":
            check = zlib.crc32(file.read(4), check)
            length -= 4
        while length > 0:
            data = file.read(min(length, 1 << 20))
            if not data:
                raise Damaged("it ends early")
            check = zlib.crc32(data, check)
            length -= len(data)
            yield data
        if file.read(4) != struct.pack(">I", check):
            raise Damaged("the checksum of its pixels is wrong")


def _inflate(pieces: Iterator[bytes], sizes: Iterable[int]) -> Iterator[bytes]:
    """Blocks of the pixels; before the last one the remaining pieces are read, because that checks their checksums."""
    last: bytes | None = None
    try:
        for block in inflate(_without_header(pieces), sizes, raw=True):
            if last is not None:
                yield last
            last = block
    except EOFError as error:
        raise Damaged("it holds fewer lines than its header says") from error
    except zlib.error as error:
        raise Damaged("its pixels cannot be inflated") from error
    for _ in pieces:
        pass
    if last is not None:
        yield last


def _without_header(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A zlib stream without its header. Its checksum is ignored: every chunk has one of its own."""
    head = b""
    for piece in pieces:
        if len(head) < 2:
            head += piece
            if len(head) < 2:
                continue
            if head[0] & 15 != 8 or int.from_bytes(head[:2], "big") % 31 or head[1] & 32:
                raise zlib.error("no zlib header")
            piece = head[2:]
        if piece:
            yield piece


def _unfilter(lines: bytes, header: _Header, width: int, rows: int) -> NDArray[np.uint8]:
    """Filtered lines as plain bytes, (rows, bytes per line).

    Pillow's decoder undoes the filters at the distance that the raw mode implies: one byte up to 8 bits per pixel, and
    so on. It has no mode that shows 48 and 64 bits whole, but one for the upper and one for the lower bytes.
    """
    stored = zlib.compress(lines, 0)

    def decoded(mode: str, raw_mode: str, columns: int) -> NDArray[np.uint8]:
        try:
            return np.asarray(Image.frombytes(mode, (columns, rows), stored, "zip", raw_mode))
        except (OSError, ValueError) as error:
            raise Damaged("its lines cannot be decoded") from error

    if header.bits <= 8:
        return decoded("L", "L", header.line(width))
    mode = {16: "LA", 24: "RGB", 32: "RGBA", 48: "RGB", 64: "RGBA"}[header.bits]
    if header.bits <= 32:
        return decoded(mode, mode, width).reshape(rows, -1)
    both = np.empty((rows, width, len(mode), 2), np.uint8)
    both[..., 0] = decoded(mode, mode + ";16B", width)
    both[..., 1] = decoded(mode, mode + ";16L", width)
    return both.reshape(rows, -1)


def _resolve(lines: NDArray[np.uint8], width: int, parsed: _File) -> NDArray[Any]:
    """Plain bytes (rows, bytes per line) as samples (rows, width, channels + alpha)."""
    header = parsed.header
    transparent = parsed.chunks.get(b"tRNS")
    samples: NDArray[Any]
    if header.depth == 16:
        samples = lines.view(">u2").astype(np.uint16)
    elif header.depth == 8:
        samples = lines
    else:
        shifts = np.arange(8 - header.depth, -1, -header.depth, dtype=np.uint8)
        samples = ((lines[..., None] >> shifts) & (2**header.depth - 1)).reshape(len(lines), -1)
        samples = samples[:, :width]
    samples = samples.reshape(len(lines), width, -1)
    if header.colour_type == 3:
        palette = np.frombuffer(parsed.chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        palette = np.concatenate([palette, np.zeros((max(0, 256 - len(palette)), 3), np.uint8)])
        if _grey_palette(parsed):
            palette = palette[:, :1]
        if transparent is not None:
            alpha = np.full((len(palette), 1), 255, np.uint8)
            given = np.frombuffer(transparent, np.uint8)[: len(palette)]
            alpha[: len(given), 0] = given
            palette = np.hstack([palette, alpha])
        return palette[samples[..., 0]]
    if transparent is not None and header.colour_type in (0, 2):
        peak = 65535 if header.depth == 16 else 255
        key = np.frombuffer(transparent[: 2 * samples.shape[2]], ">u2")
        if len(key) != samples.shape[2]:
            raise Damaged("its transparent colour is incomplete")
        key = key & (2**header.depth - 1)  # the specification: "the least significant bits are used"
        alpha = np.where((samples == key).all(axis=2, keepdims=True), 0, peak).astype(samples.dtype)
    if header.depth < 8:
        samples = samples * np.uint8(255 // (2**header.depth - 1))
    return np.concatenate([samples, alpha], axis=2) if transparent is not None and header.colour_type < 3 else samples


# Animation


def _animation_alpha(parsed: _File) -> bool:
    """Whether a composed canvas has, or may show through to, transparency."""
    shown = [frame for frame in parsed.frames if frame.duration is not None]
    whole = (0, 0, parsed.header.width, parsed.header.height)
    return _has_alpha(parsed) or any(frame.dispose for frame in shown) or (bool(shown) and shown[0].box != whole)


def _composed(path: Path, parsed: _File) -> Iterator[tuple[_Frame, NDArray[Any]]]:
    """The animation's frames, each as the whole canvas it shows: (H, W, channels + alpha)."""
    canvas: NDArray[Any] | None = None
    transparent = _animation_alpha(parsed)
    for frame in parsed.frames:
        if frame.duration is None:
            continue
        with reporting_damage(path, "PNG"), reading(path) as file:
            patch = np.concatenate(list(_samples(file, parsed, frame)))
        if transparent and not _has_alpha(parsed):
            patch = _opaque(patch)
        if canvas is None:
            canvas = np.zeros((parsed.header.height, parsed.header.width, patch.shape[2]), patch.dtype)
        left, top, width, height = frame.box
        box = slice(top, top + height), slice(left, left + width)
        before = canvas[box].copy()
        canvas[box] = _over(patch, before) if frame.blend == 1 and transparent else patch
        yield frame, canvas.copy()
        if frame.dispose == 1:
            canvas[box] = 0
        elif frame.dispose == 2:
            canvas[box] = before


def _over(source: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
    """Straight-alpha source over straight-alpha canvas, both (rows, W, channels + alpha), rounded half up."""
    peak = float(np.iinfo(source.dtype).max)
    front, back = source[..., -1:] / peak, below[..., -1:] / peak
    alpha = front + back * (1 - front)
    colour = source[..., :-1] * front + below[..., :-1] * (back * (1 - front))
    mixed = np.concatenate([colour / np.where(alpha > 0, alpha, 1), alpha * peak], axis=2)
    out = np.floor(mixed + 0.5).astype(source.dtype)
    out = np.where(source[..., -1:] == peak, source, out)
    return np.where(source[..., -1:] == 0, below, out)


# Writing


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
        yield b"pHYs", struct.pack(">IIB", *(min(round(dpi / _INCH), 2**31 - 1) for dpi in metadata.dpi), 1)
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
        yield b"iTXt", _XMP.encode() + b"\0\0\0\0\0" + metadata.xmp
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
