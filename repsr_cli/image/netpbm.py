"""Read and write PBM, PGM, PPM, PAM and PFM at their full depth.

Pillow reads 16 bits per channel as 8, and neither colour floats nor PAM files.

Source: the Netpbm manual, pages ppm, pgm, pbm and pam; Paul Debevec, PFM file format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from repsr_cli.files import reading
from repsr_cli.image.damage import Damaged, reporting_damage
from repsr_cli.image.page import Metadata, Page, Stored, Strip, page_of

_SPACE = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class _Header:
    """A Netpbm header.

    Attributes:
        magic: the two bytes that name the kind.
        samples: per pixel, alpha included.
        peak: the largest value; of floats the byte order, negative for little-endian.
        start: where the samples begin.
    """

    magic: bytes
    height: int
    width: int
    samples: int
    peak: float
    start: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the samples as handed on."""
        if self.magic in (b"PF", b"Pf"):
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.peak < 256 else np.uint16)


def open_netpbm(path: Path) -> Stored:
    """Read the header of a Netpbm or PFM file.

    Raises:
        MediaError: it is damaged; later, from pages: samples are missing.
    """
    with reading(path) as file:
        head = file.read(_HEADER)
    with reporting_damage(path, "file"):
        header = _parse(head)

    def pages() -> Iterator[Page]:
        with reporting_damage(path, "file", ValueError, OverflowError):
            samples, rest = _samples(path.read_bytes(), header)
        notes = ("Only the first image of the file is read.",) if re.match(rb"P[1-7Ff]\s", rest.lstrip()) else ()
        yield page_of(*Strip.of(samples, alpha=header.samples in (2, 4)), notes=notes)

    return Stored(header.height, header.width, pages, Metadata())


def write_netpbm(file: BinaryIO, kind: str, page: Page) -> None:
    """Write one page.

    Args:
        kind: ``PPM`` (PGM of a grey page), ``PAM`` or ``PFM``.
        page: what the format can hold: 8 or 16 bit; of PFM floats; alpha in PAM alone.
    """
    size = f"{page.width} {page.height}"
    samples = page.channels + page.alpha
    peak = 255 if page.dtype.itemsize == 1 else 65535
    if kind == "PFM":
        file.write(f"{'PF' if page.channels == 3 else 'Pf'}\n{size}\n-1.0\n".encode())
        file.write(page.read().pixels[::-1].astype("<f4").tobytes())
        return
    if kind == "PAM":
        name = ("RGB" if page.channels == 3 else "GRAYSCALE") + ("_ALPHA" if page.alpha else "")
        lines = (f"WIDTH {page.width}", f"HEIGHT {page.height}", f"DEPTH {samples}", f"MAXVAL {peak}")
        file.write("\n".join(("P7", *lines, f"TUPLTYPE {name}", "ENDHDR", "")).encode())
    else:
        file.write(f"{'P6' if page.channels == 3 else 'P5'}\n{size}\n{peak}\n".encode())
    for strip in page.strips():
        file.write(strip.samples.astype(page.dtype.newbyteorder(">"), copy=False).tobytes())


def _parse(head: bytes) -> _Header:
    magic = head[:2]
    if magic == b"P7":
        header = _parse_pam(head)
    else:
        count = 2 if magic in (b"P1", b"P4") else 3
        found = re.match(rb"P." + (_SPACE + rb"([-+.0-9eE]+)") * count + rb"[ \t\r\n\v\f]", head)
        if found is None:
            raise Damaged("its header gives no size and range")
        peak = _number(found[3]) if count == 3 else 1
        samples = 3 if magic in (b"P3", b"P6", b"PF") else 1
        header = _Header(magic, int(_number(found[2])), int(_number(found[1])), samples, peak, found.end())
    if header.height < 1 or header.width < 1 or header.samples not in (1, 2, 3, 4):
        raise Damaged("its header gives no size, or channels that are not grey or RGB")
    if header.peak == 0 or not (header.dtype.kind == "f" or 1 <= header.peak <= 65535):
        raise Damaged("its largest value is not between 1 and 65535")
    return header


def _parse_pam(head: bytes) -> _Header:
    end = re.search(rb"\nENDHDR[ \t]*\n", head)
    if end is None:
        raise Damaged("its header has no end")
    fields = {}
    for line in head[2 : end.start()].splitlines():
        words = line.split(None, 1)
        if len(words) == 2 and not line.startswith(b"#"):
            fields[words[0]] = words[1]
    try:
        width, height, samples, peak = (int(fields[k]) for k in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    except (KeyError, ValueError) as error:
        raise Damaged("its header lacks WIDTH, HEIGHT, DEPTH or MAXVAL") from error
    return _Header(b"P7", height, width, samples, peak, end.end())


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Damaged(f"{text.decode('ascii', 'replace')!r} is not a number") from error


def _samples(data: bytes, header: _Header) -> tuple[NDArray[Any], bytes]:
    """(H, W, samples) at 8 or 16 bit or as floats, and the bytes that follow."""
    shape = (header.height, header.width, header.samples)
    count = header.height * header.width * header.samples
    if header.magic in (b"PF", b"Pf"):
        raw, rest = _split(data, header.start, 4 * count)
        floats = np.frombuffer(raw, "<f4" if header.peak < 0 else ">f4").reshape(shape)[::-1].astype(np.float32)
        if not np.isfinite(floats).all():
            raise Damaged("it holds values that are not numbers")
        return floats, rest
    if header.magic == b"P4":
        pitch = (header.width + 7) // 8
        raw, rest = _split(data, header.start, pitch * header.height)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(header.height, pitch), axis=1)
        values = 1 - bits[:, : header.width].astype(np.uint32)
    elif header.magic in (b"P1", b"P2", b"P3"):
        body = re.sub(rb"#[^\r\n]*", b" ", data[header.start :])
        words = re.findall(rb"[01]" if header.magic == b"P1" else rb"[0-9]+", body)[:count]
        if len(words) < count:
            raise Damaged("it ends early")
        values = np.array(words).astype(np.uint32)
        values = 1 - values if header.magic == b"P1" else values
        rest = b""
    else:
        stored = np.dtype(">u2" if header.peak > 255 else np.uint8)
        raw, rest = _split(data, header.start, stored.itemsize * count)
        values = np.frombuffer(raw, stored)
    return _scaled(values, int(header.peak), header.dtype).reshape(shape), rest


def _split(data: bytes, start: int, size: int) -> tuple[bytes, bytes]:
    """(``size`` bytes from a place on, those after them)."""
    if len(data) - start < size:
        raise Damaged("it ends early")
    return data[start : start + size], data[start + size :]


def _scaled(values: NDArray[Any], peak: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of 0 to ``peak`` over the whole range of a type."""
    top = np.iinfo(dtype).max
    if int(values.max(initial=0)) > peak:
        raise Damaged(f"a value is beyond its largest, {peak}")
    return np.asarray(values if peak == top else (values.astype(np.uint64) * top + peak // 2) // peak, dtype)
