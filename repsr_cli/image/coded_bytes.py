"""Count the bytes that an image file spends on its pixels, without profiles, EXIF and headers."""

from __future__ import annotations

import struct
from pathlib import Path

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
    found, at = 0, 12 if kind == "WEBP" else 0
    with path.open("rb") as file:
        for _ in range(_BOXES_AND_CHUNKS):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                break
            if kind == "WEBP":
                length = struct.unpack_from("<I", head, 4)[0]
                found += length if head[:4] in _WEBP_PIXELS else 0
                at += 8 + length + length % 2
                continue
            length = int.from_bytes(head[:4], "big")
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            length = length or size - at
            if length < 8:
                break
            found += length if head[4:8] == b"mdat" else 0
            at += length
    return min(found, size) or size
