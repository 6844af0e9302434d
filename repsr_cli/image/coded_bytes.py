"""Count the bytes that an image file spends on its pixels, without profiles, EXIF and headers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from repsr_cli.image.heif import boxes

_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_BOXES_AND_CHUNKS = 10_000  # that are looked at; damaged files may claim any number


def coded_bytes(path: Path, kind: str) -> int:
    """The bytes of the pixels of a WebP, AVIF or HEIC file as it says itself; of any other file, all of it.

    Args:
        kind: its format's name.
    """
    size = path.stat().st_size
    if kind not in ("WEBP", "AVIF", "HEIF"):
        return size
    with path.open("rb") as file:
        if kind == "WEBP":
            chunks = islice(_chunks(file), _BOXES_AND_CHUNKS)
            found = sum(length for name, length in chunks if name in _WEBP_PIXELS)
        else:
            within = islice(boxes(file, size), _BOXES_AND_CHUNKS)
            found = sum(end - start for name, start, _, end in within if name == b"mdat")
    return min(found, size) or size


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The chunks of a WebP file, (type, length)."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        yield head[:4], length
        file.seek(length + length % 2, io.SEEK_CUR)
