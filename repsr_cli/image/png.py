"""Read PNG and animated PNG strip by strip, at their full depth.

Pillow reduces 16 bits per channel to 8 and needs the whole image at once. Only its decoder is used here, to undo line
filters on one strip at a time.

Source: W3C, Portable Network Graphics (PNG) Specification (Third Edition). Names follow it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.files import reading
from repsr_cli.image.damage import Damaged, reporting_damage
from repsr_cli.image.inflate import inflate
from repsr_cli.image.page import Page, Stored, Strip
from repsr_cli.image.png_chunks import File, Frame, Header, parse

# Bytes of unfiltered lines decoded in one go.
_STRIP_BYTES = 1 << 23
# Interlacing: each pass's (left, top, step right, step down).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def open_png(path: Path) -> Stored:
    """Read everything of a PNG but its pixels.

    Raises:
        MediaError: the file is damaged; later, from strips: its pixels are.
    """
    with reporting_damage(path, "PNG"), reading(path) as file:
        parsed = parse(file)
    header = parsed.header
    animated = parsed.loop is not None

    def page(frame: Frame, strips: Callable[[], Iterator[Strip]], alpha: bool, notes: tuple[str, ...]) -> Page:
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


def _has_alpha(parsed: File) -> bool:
    return parsed.header.colour_type >= 4 or b"tRNS" in parsed.chunks


def _grey_palette(parsed: File) -> bool:
    """Whether a palette holds greys alone (and no profile says that they stand for something else)."""
    palette = np.frombuffer(parsed.chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all()) and (parsed.metadata.icc or b"")[16:20] in (b"", b"GRAY")


def _beyond_palette(path: Path, parsed: File) -> bool:
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


def _reader(path: Path, parsed: File, frame: Frame, alpha: bool) -> Callable[[], Iterator[Strip]]:
    def strips() -> Iterator[Strip]:
        with reporting_damage(path, "PNG"), reading(path) as file:
            for samples in _samples(file, parsed, frame):
                yield Strip.of(_opaque(samples) if alpha and not _has_alpha(parsed) else samples, alpha=alpha)

    return strips


def _opaque(samples: NDArray[Any]) -> NDArray[Any]:
    """Samples with an opaque alpha channel added."""
    return np.concatenate([samples, np.full_like(samples[..., :1], np.iinfo(samples.dtype).max)], axis=2)


def _samples(file: BinaryIO, parsed: File, frame: Frame) -> Iterator[NDArray[Any]]:
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


def _stream(file: BinaryIO, frame: Frame) -> Iterator[bytes]:
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


def _unfilter(lines: bytes, header: Header, width: int, rows: int) -> NDArray[np.uint8]:
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


def _resolve(lines: NDArray[np.uint8], width: int, parsed: File) -> NDArray[Any]:
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


def _animation_alpha(parsed: File) -> bool:
    """Whether a composed canvas has, or may show through to, transparency."""
    shown = [frame for frame in parsed.frames if frame.duration is not None]
    whole = (0, 0, parsed.header.width, parsed.header.height)
    return _has_alpha(parsed) or any(frame.dispose for frame in shown) or (bool(shown) and shown[0].box != whole)


def _composed(path: Path, parsed: File) -> Iterator[tuple[Frame, NDArray[Any]]]:
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
