"""Inflate zlib streams piece by piece, never more than is asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator


def inflate(pieces: Iterator[bytes], sizes: Iterable[int], *, raw: bool = False) -> Iterator[bytes]:
    """Inflate a stream into blocks of given sizes.

    Args:
        pieces: the compressed stream; read only as far as needed.
        sizes: bytes of each block.
        raw: the stream has neither header nor checksum.

    Raises:
        EOFError: the stream ends early.
        zlib.error: it is damaged.
    """
    inflater = zlib.decompressobj(-15 if raw else 15)
    for size in sizes:
        block = bytearray()
        while len(block) < size:
            data = inflater.unconsumed_tail or next(pieces, None)
            if data is None or inflater.eof:
                raise EOFError("the compressed stream ends early")
            block += inflater.decompress(data, size - len(block))
        yield bytes(block)
