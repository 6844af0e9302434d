"""Read and write TIFF and BigTIFF strip by strip, at their full depth.

Pillow turns 16 bits per channel into 8, knows floats in grey only, and needs the whole image at once. So what is
stored as plain samples is read here, and Pillow decodes the rest: faxes, JPEG, palettes, CMYK, Lab.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (2002) for Deflate, Technical Note 3 (2005) for floating-point
differencing.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.errors import MediaError
from repsr_cli.files import reading
from repsr_cli.image.damage import Damaged, reporting_damage
from repsr_cli.image.exif import (
    EXIF,
    GPS,
    ICC,
    ORIENTATION,
    SHORT,
    UNDEFINED,
    XMP,
    Directory,
    DirectoryError,
    Entry,
    Order,
    build_exif,
    longs,
    next_at,
    parse_exif,
    rational,
    read_directory,
    read_header,
    shorts,
    write_directory,
)
from repsr_cli.image.inflate import inflate
from repsr_cli.image.page import Metadata, Page, Stored, Strip
from repsr_cli.image.pillow import read_pillow_page

(SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER) = (254, 256, 257, 258, 259, 262, 266)
(STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES) = (273, 277, 278, 279)
(X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT) = (282, 283, 284, 296)
(PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES) = (317, 322, 323, 324, 325)
(SUB_IFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, PHOTOSHOP, DNG_VERSION) = (330, 338, 339, 347, 34377, 50706)

# Tags that describe an image, not how it is stored: document and page name, description, make, model, software, date,
# artist, host, copyright, rating, IPTC, Photoshop's block, and Windows' five.
_DESCRIPTIVE = (269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 18246, 33432, 33723, 34377, *range(40091, 40096))
_PLAIN = 1
_DEFLATE = (8, 32946)
_BYTES_OF_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_JPEG = 7
_YCBCR = 6
_OLD_JPEG = 6
# Sample formats and bits that are read here: unsigned integers (1) and floats (3).
_PLAIN_SAMPLES = (
    *(({1}, {bits}) for bits in range(8, 17)),
    *(({3}, {bits}) for bits in (16, 32, 64)),
)
_RAW_PHOTOMETRIC = (32803, 34892)
_BLOCK_BYTES = 1 << 23
# Compressed bytes read at once.
_PIECE = 1 << 20
_WRITTEN_BYTES = 1 << 20
_MAX_PAGES = 10_000
# Beyond this many bytes of samples the 32-bit offsets of classic TIFF may not reach.
_CLASSIC_BYTES = 4_000_000_000


_FORMATS = {2: "signed", 5: "complex", 6: "complex"}


def open_tiff(path: Path) -> Stored:
    """Read everything of a TIFF but its pixels.

    Raises:
        MediaError: the file is damaged or a camera's raw; later, from pages and strips: pixels are damaged.
    """
    stored: list[_Directory] = []
    with reporting_damage(path, "TIFF", DirectoryError), reading(path) as file:
        order, big, offset = read_header(file)
        seen = set()
        while offset and offset not in seen and len(stored) < _MAX_PAGES:
            seen.add(offset)
            at = offset
            tags, offset = read_directory(file, at, order, big=big)
            stored.append(_Directory(tags, order, at, big))
        if not stored:
            raise Damaged("it holds no page")
        first = stored[0]
        if DNG_VERSION in first.tags or first.photometric in _RAW_PHOTOMETRIC:
            raise MediaError(path, "it is a camera's raw file", "Develop it to a 16-bit TIFF first.")
        if first.number(SUBFILE, 0) & 1 and SUB_IFDS in first.tags:
            raise MediaError(path, "its image is a preview of a camera's raw", "Develop it to a 16-bit TIFF first.")
        for page in stored:
            _check(path, page)

    def pages() -> Iterator[Page]:
        for index, page in enumerate(stored):
            yield _plain_page(path, page) if page.plain else _other_page(path, page, index)

    streamed = all(page.plain for page in stored)
    return Stored(first.height, first.width, pages, first.metadata, len(stored), streamed=streamed)


def write_tiff(file: BinaryIO, pages: Iterable[Page], *, count: int = 1) -> None:
    """Write a TIFF: deflated strips, differenced; BigTIFF if it may outgrow 4 GB.

    Args:
        pages: of any sizes and types.
    """
    big = False
    hook = 4
    for index, page in enumerate(pages):
        samples = page.channels + page.alpha
        if index == 0:
            big = count * page.height * page.width * samples * page.dtype.itemsize > _CLASSIC_BYTES
            file.write(b"II\x2b\0\x08\0\0\0" + bytes(8) if big else b"II\x2a\0" + bytes(4))
            hook = 8 if big else 4
        rows = max(1, _WRITTEN_BYTES // (page.width * samples * page.dtype.itemsize))
        offsets, sizes = [], []
        for block in _chunks(page, rows):
            data = _deflated(block)
            offsets.append(file.tell())
            sizes.append(file.write(data))
        file.write(b"\0" * (file.tell() % 2))
        tags = _tags(page, rows, offsets, sizes, big=big)
        at = file.tell()
        file.write(write_directory(tags, at, big=big))
        end = file.tell()
        file.seek(hook)
        file.write(struct.pack("<Q" if big else "<I", at))
        file.seek(end)
        hook = next_at(tags, at, big=big)


# Reading


@dataclass(frozen=True, slots=True)
class _Directory:
    """One directory of the file, read as the description of an image."""

    tags: Directory
    order: Order
    offset: int
    big: bool

    def numbers(self, tag: int, default: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        entry = self.tags.get(tag)
        return (entry.numbers or default) if isinstance(entry, Entry) else default

    def number(self, tag: int, default: int) -> int:
        return int(self.numbers(tag, (default,))[0])

    @property
    def height(self) -> int:
        return self.number(HEIGHT, 0)

    @property
    def width(self) -> int:
        return self.number(WIDTH, 0)

    @property
    def samples(self) -> int:
        return self.number(SAMPLES, 1)

    @property
    def photometric(self) -> int:
        return self.number(PHOTOMETRIC, -1)

    @property
    def channels(self) -> int:
        """Of colour: 1 or 3."""
        return 3 if self.photometric in (2, _YCBCR) else 1

    @property
    def extra(self) -> int | None:
        """What the first sample beyond colour means: 1 alpha multiplied in, 2 straight alpha, 0 neither, None: none."""
        if self.samples <= self.channels:
            return None
        # Four samples of RGB without a word are taken for RGBA by every reader.
        return int(self.numbers(EXTRA_SAMPLES, (2,))[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples as stored."""
        if self.packed:
            return np.dtype(np.uint16)
        kind = {1: "u", 3: "f"}[self.number(SAMPLE_FORMAT, 1)]
        order = ">" if self.number(PREDICTOR, 1) == 3 else self.order
        return np.dtype(f"{order}{kind}{self.number(BITS, 1) // 8}")

    @property
    def packed(self) -> int:
        """Bits per sample where samples do not start at byte boundaries, 9 to 15; else 0."""
        bits = self.number(BITS, 1)
        return bits if 8 < bits < 16 else 0

    @property
    def tiled(self) -> bool:
        """Whether its pixels lie in tiles; some writers list those under the tags of strips."""
        return TILE_OFFSETS in self.tags or (TILE_WIDTH in self.tags and TILE_HEIGHT in self.tags)

    @property
    def cells(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(offsets, sizes) of strips or tiles."""
        tiles = self.numbers(TILE_OFFSETS), self.numbers(TILE_BYTES)
        return tiles if tiles[0] else (self.numbers(STRIP_OFFSETS), self.numbers(STRIP_BYTES))

    @property
    def cell_size(self) -> tuple[int, int]:
        """(height, width) of a strip or tile."""
        if self.tiled:
            return self.number(TILE_HEIGHT, 0), self.number(TILE_WIDTH, 0)
        return min(self.number(STRIP_ROWS, 2**32 - 1), self.height), self.width

    @property
    def cell_count(self) -> tuple[int, int]:
        """How many strips or tiles cover the image, (down, across); (0, 0) if they have no size."""
        height, width = self.cell_size
        return (-(-self.height // height), -(-self.width // width)) if height > 0 and width > 0 else (0, 0)

    @property
    def planes(self) -> int:
        """How many planes the samples are spread over."""
        return self.samples if self.number(PLANAR, 1) == 2 else 1

    @property
    def plain(self) -> bool:
        """Whether it is read here, strip by strip, rather than whole by Pillow."""
        formats = set(self.numbers(SAMPLE_FORMAT, (1,)))
        bits = set(self.numbers(BITS, (1,)))
        if self.number(COMPRESSION, 1) == _JPEG:
            kinds = ((1, 1), (2, 3), (_YCBCR, 3))
            return (self.photometric, self.samples) in kinds and bits == {8} and self.number(PLANAR, 1) == 1
        return (
            self.photometric in (0, 1, 2)
            and self.number(COMPRESSION, 1) in (_PLAIN, *_DEFLATE, *_BYTES_OF_LIBTIFF)
            and (formats, bits) in _PLAIN_SAMPLES
            and self.number(PREDICTOR, 1) in ((1,) if self.packed else (1, 2) if formats == {1} else (1, 3))
            and self.number(FILL_ORDER, 1) == 1
            and self.number(PLANAR, 1) in (1, 2)
        )

    @property
    def metadata(self) -> Metadata:
        described: Directory = {t: e for t, e in self.tags.items() if t in (*_DESCRIPTIVE, EXIF, GPS)}
        if ORIENTATION in self.tags:
            described[ORIENTATION] = self.tags[ORIENTATION]
        icc, xmp = (entry.data if isinstance(entry := self.tags.get(t), Entry) else None for t in (ICC, XMP))
        if icc is not None and icc[16:20] != (b"RGB " if self.channels == 3 else b"GRAY"):
            icc = None
        unit = {2: 1.0, 3: 2.54}.get(self.number(RESOLUTION_UNIT, 2))
        x, y = (float(self.numbers(t, (0.0,))[0]) for t in (X_RESOLUTION, Y_RESOLUTION))
        dpi = (x * unit, y * unit) if unit is not None and x > 0 and y > 0 else None
        aspect = (x, y) if unit is None and x > 0 and y > 0 and x != y else None
        exif = build_exif(described) if described else None
        return Metadata(icc=icc, exif=exif, xmp=xmp or None, dpi=dpi, aspect=aspect)


def _check(path: Path, stored: _Directory) -> None:
    """Refuse a page that cannot be read as it is meant, or whose strips or tiles do not cover it.

    Raises:
        MediaError: its samples are of a kind that is not supported.
        Damaged: pixels are missing.
    """
    formats, bits = set(stored.numbers(SAMPLE_FORMAT, (1,))), set(stored.numbers(BITS, (1,)))
    grey = stored.samples == 1 and stored.photometric in (0, 1)
    kind = next((_FORMATS[code] for code in sorted(formats) if code in _FORMATS), "")
    reason = None
    if kind == "complex":
        reason = "its samples are complex numbers"
    elif kind == "signed" and not (grey and bits <= {16, 32}):
        reason = f"its samples are signed {max(bits)}-bit integers"
    elif not formats & {3} and max(bits) > 16 and not (grey and bits == {32}):
        reason = f"its samples are {max(bits)}-bit integers"
    elif not formats & {3} and len(bits) > 1:
        reason = f"its channels have different depths, {', '.join(map(str, sorted(bits)))} bits"
    if reason is not None:
        raise MediaError(path, f"{reason}, which are not supported", "Convert it to 8- or 16-bit unsigned samples.")
    _check_coverage(stored)


def _check_coverage(stored: _Directory) -> None:
    """Find out whether strips or tiles cover the page."""
    compression = stored.number(COMPRESSION, 1)
    if compression == _OLD_JPEG or stored.height < 1 or stored.width < 1:
        return
    down, across = stored.cell_count
    if not down:
        raise Damaged("its strips or tiles have no size")
    offsets, sizes = stored.cells
    if len(offsets) < down * across * stored.planes:
        raise Damaged(f"strips or tiles are missing: {len(offsets)} of {down * across * stored.planes} are there")
    if compression != _PLAIN or stored.tiled or len(sizes) != len(offsets) or 0 in sizes:
        return
    bits = stored.numbers(BITS, (1,))
    row = stored.width * (sum(bits) if len(bits) > 1 else bits[0] * stored.samples) // 8
    if stored.photometric != _YCBCR and sum(sizes) < row * stored.height:
        raise Damaged("its strips are too short: rows are missing")


def _upright_copy(path: Path, stored: _Directory) -> BinaryIO | Path:
    """The file with the page's orientation reset.

    Pillow turns TIFF pages itself, some of them wrongly; the orientation is applied once, by our own caller.
    """
    if stored.number(ORIENTATION, 1) == 1:
        return path
    data = bytearray(path.read_bytes())
    size, inline, start = (20, 12, stored.offset + 8) if stored.big else (12, 8, stored.offset + 2)
    count = struct.unpack_from(stored.order + ("Q" if stored.big else "H"), data, stored.offset)[0]
    for at in range(start, start + count * size, size):
        if struct.unpack_from(stored.order + "H", data, at)[0] == ORIENTATION:
            struct.pack_into(stored.order + ("HQ" if stored.big else "HI"), data, at + 2, SHORT, 1)
            struct.pack_into(stored.order + "HH", data, at + inline, 1, 0)
    return io.BytesIO(bytes(data))


def _other_page(path: Path, stored: _Directory, index: int) -> Page:
    """A page that Pillow decodes."""
    page = read_pillow_page(path, "TIFF", index, _upright_copy(path, stored))
    notes = page.notes
    bits = max(stored.numbers(BITS, (1,)))
    if bits > 8 and page.dtype.itemsize == 1:
        notes += (f"Its {bits} bits per channel are decoded as 8: for such colours Pillow can do no more.",)
    return replace(page, metadata=replace(stored.metadata, icc=page.metadata.icc), notes=notes)


def _plain_page(path: Path, stored: _Directory) -> Page:
    """A page whose samples are stored as such."""
    with reporting_damage(path, "TIFF"):
        if stored.height < 1 or stored.width < 1 or stored.samples < stored.channels:
            raise Damaged("it has no height, no width or no channels")
    kind = stored.dtype
    dtype = np.dtype(np.float32) if kind.kind == "f" else np.dtype(np.uint8 if kind.itemsize == 1 else np.uint16)
    alpha = stored.extra in (1, 2)
    notes: tuple[str, ...] = ()
    if stored.samples > stored.channels + alpha:
        notes = (f"{stored.samples - stored.channels - alpha} channels beside colour and transparency are left out.",)

    def strips() -> Iterator[Strip]:
        with reporting_damage(path, "TIFF", DirectoryError), reading(path) as file:
            for block in _blocks(file, stored):
                yield _strip(block, stored, dtype)

    return Page(stored.height, stored.width, stored.channels, dtype, alpha, strips, stored.metadata, notes=notes)


def _strip(block: NDArray[Any], stored: _Directory, dtype: np.dtype[Any]) -> Strip:
    """Samples as stored, (rows, W, samples), as colour and transparency."""
    samples = block.astype(dtype, copy=False)
    pixels = samples[..., : stored.channels]
    peak = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
    if dtype.kind == "f" and not np.isfinite(samples).all():
        raise Damaged("it holds values that are not numbers")
    if stored.photometric == 0:
        pixels = (1 - pixels) if dtype.kind == "f" else ~pixels
    if stored.extra not in (1, 2):
        return Strip(np.ascontiguousarray(pixels))
    alpha = np.ascontiguousarray(samples[..., stored.channels])
    if stored.extra == 1:
        divided = pixels * (peak / np.where(alpha > 0, alpha, np.inf).astype(np.float64))[..., None]
        if dtype.kind != "f":
            divided = np.floor(np.minimum(divided, peak) + 0.5)
        pixels = divided.astype(dtype)
    return Strip(np.ascontiguousarray(pixels), alpha)


def _blocks(file: BinaryIO, stored: _Directory) -> Iterator[NDArray[Any]]:
    """The image as stored, in blocks of (rows, W, samples)."""
    if stored.planes == 1:
        yield from _plane(file, stored, 0, stored.samples)
        return
    # Planes lie one after the other in the file: they are walked side by side, block by block.
    for parts in zip(*(_plane(file, stored, plane, 1) for plane in range(stored.samples)), strict=True):
        yield np.concatenate(parts, axis=2)


def _plane(file: BinaryIO, stored: _Directory, plane: int, samples: int) -> Iterator[NDArray[Any]]:
    """One plane, or all samples where they are interleaved, in blocks of (rows, W, samples)."""
    tiled = stored.tiled
    offsets, sizes = stored.cells
    cell_height, cell_width = stored.cell_size
    down, across = stored.cell_count
    if len(sizes) != len(offsets):
        raise Damaged("strips or tiles are missing")
    bits = stored.packed or 8 * stored.dtype.itemsize
    pitch = (cell_width * samples * bits + 7) // 8
    if tiled and cell_height * pitch > 1 << 30:
        raise Damaged("a tile of more than a gigabyte")
    for row in range(down):
        top = row * cell_height
        wanted = cell_height if tiled else min(cell_height, stored.height - top)
        cells = [
            _cell(file, stored, int(offsets[i]), int(sizes[i]), wanted, pitch)
            for i in range((plane * down + row) * across, (plane * down + row + 1) * across)
        ]
        if not tiled:
            for data in cells[0]:
                yield _samples(data, stored, cell_width, samples)
            continue
        tiles = [_samples(b"".join(cell), stored, cell_width, samples) for cell in cells]
        yield np.concatenate(tiles, axis=1)[: stored.height - top, : stored.width]


def _cell(file: BinaryIO, stored: _Directory, offset: int, size: int, rows: int, pitch: int) -> Iterator[bytes]:
    """The bytes of a strip or tile, unpacked, in pieces of whole rows."""
    compression = stored.number(COMPRESSION, 1)
    if compression in _BYTES_OF_LIBTIFF or compression == _JPEG:
        yield _unpacked(_exactly(file, offset, size), stored, rows, pitch)
        return
    step = max(1, _BLOCK_BYTES // pitch)
    sizes = [min(step, rows - top) * pitch for top in range(0, rows, step)]
    if compression in _DEFLATE:
        pieces = (_exactly(file, at, min(_PIECE, offset + size - at)) for at in range(offset, offset + size, _PIECE))
        try:
            yield from inflate(pieces, sizes)
        except EOFError as error:
            raise Damaged("a strip or tile is too short") from error
        except zlib.error as error:
            raise Damaged("a strip or tile cannot be inflated") from error
        return
    end = offset + size
    for wanted in sizes:
        if offset + wanted > end:
            raise Damaged("a strip or tile is too short")
        yield _exactly(file, offset, wanted)
        offset += wanted


def _unpacked(data: bytes, stored: _Directory, rows: int, pitch: int) -> bytes:
    """The bytes of a strip or tile as libtiff unpacks them: Pillow is shown a TIFF of this one strip.

    JPEG is shown as what it is, and comes back as RGB or grey. Of the others only bytes matter: they are shown as a
    grey image as wide as a row has bytes.
    """
    tags: Directory = {
        WIDTH: longs([pitch]),
        HEIGHT: longs([rows]),
        BITS: shorts(8),
        COMPRESSION: shorts(stored.number(COMPRESSION, 1)),
        PHOTOMETRIC: shorts(1),
        STRIP_OFFSETS: longs([8]),
        SAMPLES: shorts(1),
        STRIP_ROWS: longs([rows]),
        STRIP_BYTES: longs([len(data)]),
    }
    if stored.number(COMPRESSION, 1) == _JPEG:
        kept = (BITS, PHOTOMETRIC, SAMPLES, JPEG_TABLES, 529, 530, 531, 532)  # and what defines YCbCr
        tags |= {tag: stored.tags[tag] for tag in kept if tag in stored.tags}
        tags[WIDTH] = longs([pitch // stored.samples])
    at = 8 + len(data) + len(data) % 2
    whole = b"II\x2a\0" + struct.pack("<I", at) + data + b"\0" * (len(data) % 2) + write_directory(tags, at)
    try:
        with Image.open(io.BytesIO(whole), formats=("TIFF",)) as image:
            unpacked = image.tobytes()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise Damaged("a strip or tile cannot be unpacked") from error
    if len(unpacked) != rows * pitch:
        raise Damaged("a strip or tile is not what the file says")
    return unpacked


def _samples(data: bytes, stored: _Directory, width: int, samples: int) -> NDArray[Any]:
    """Bytes of whole rows as (rows, width, samples), differencing undone."""
    predictor = stored.number(PREDICTOR, 1)
    dtype = stored.dtype
    if stored.packed:
        return _unpacked_bits(data, stored.packed, width, samples)
    if predictor == 3:
        # The bytes of each row stand most significant ones first, all of them differenced.
        rows = np.frombuffer(data, np.uint8).reshape(-1, width * dtype.itemsize, samples)
        planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(len(rows), dtype.itemsize, width * samples)
        values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype)
        return values.reshape(-1, width, samples)
    values = np.frombuffer(data, dtype).reshape(-1, width, samples)
    if predictor == 2:
        native = values.astype(dtype.newbyteorder("="))
        return np.cumsum(native, axis=1, dtype=native.dtype)
    return values


def _unpacked_bits(data: bytes, bits: int, width: int, samples: int) -> NDArray[np.uint16]:
    """Rows of samples of 9 to 15 bits, most significant bit first, at 16 bit: the largest value is the largest."""
    pitch = (width * samples * bits + 7) // 8
    rows = np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, pitch), axis=1)[:, : width * samples * bits]
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint32)
    values = rows.reshape(len(rows), width, samples, bits) @ weights
    peak = 2**bits - 1
    return np.asarray((values * 65535 + peak // 2) // peak, np.uint16)


def _exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise Damaged("it ends early")
    return data


# Writing


def _chunks(page: Page, rows: int) -> Iterator[NDArray[Any]]:
    """The page's samples, (``rows`` or fewer at the end, W, channels + alpha), however its strips are cut."""
    waiting: list[NDArray[Any]] = []
    for strip in page.strips():
        waiting.append(strip.samples)
        if sum(map(len, waiting)) >= rows:
            block = np.concatenate(waiting)
            cut = len(block) // rows * rows
            yield from (block[top : top + rows] for top in range(0, cut, rows))
            waiting = [block[cut:]] if cut < len(block) else []
    if waiting:
        yield np.concatenate(waiting)


def _deflated(block: NDArray[Any]) -> bytes:
    """A strip, differenced along its rows and deflated."""
    rows, width, samples = block.shape
    if block.dtype.kind == "f":
        ordered = block.astype(">f4").view(np.uint8).reshape(rows, width * samples, 4)
        stored = np.ascontiguousarray(ordered.transpose(0, 2, 1)).reshape(rows, width * 4, samples)
    else:
        stored = block.astype(block.dtype.newbyteorder("<"), copy=False)
    differenced = stored.copy()
    differenced[:, 1:] -= stored[:, :-1]
    deflater = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return deflater.compress(differenced.tobytes()) + deflater.flush()


def _tags(page: Page, rows: int, offsets: list[int], sizes: list[int], *, big: bool) -> Directory:
    samples = page.channels + page.alpha
    real = page.dtype.kind == "f"
    metadata = page.metadata
    tags: Directory = {
        WIDTH: longs([page.width]),
        HEIGHT: longs([page.height]),
        BITS: shorts(*[8 * page.dtype.itemsize] * samples),
        COMPRESSION: shorts(8),
        PHOTOMETRIC: shorts(2 if page.channels == 3 else 1),
        STRIP_OFFSETS: longs(offsets, big=big),
        SAMPLES: shorts(samples),
        STRIP_ROWS: longs([rows]),
        STRIP_BYTES: longs(sizes, big=big),
        PLANAR: shorts(1),
        PREDICTOR: shorts(3 if real else 2),
        SAMPLE_FORMAT: shorts(*[3 if real else 1] * samples),
    }
    if page.alpha:
        tags[EXTRA_SAMPLES] = shorts(2)
    density = metadata.dpi or metadata.aspect
    if density is not None:
        tags |= {X_RESOLUTION: rational(density[0]), Y_RESOLUTION: rational(density[1])}
        tags[RESOLUTION_UNIT] = shorts(1 if metadata.dpi is None else 2)
    if metadata.icc is not None:
        tags[ICC] = Entry(UNDEFINED, metadata.icc)
    if metadata.xmp is not None:
        tags[XMP] = Entry(1, metadata.xmp)
    if metadata.photoshop is not None:
        tags[PHOTOSHOP] = Entry(UNDEFINED, metadata.photoshop)
    if metadata.exif is not None:
        described = parse_exif(metadata.exif)
        tags |= {t: e for t, e in described.items() if t in (*_DESCRIPTIVE, EXIF, GPS) and t not in tags}
    return tags
