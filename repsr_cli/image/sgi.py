"""Read SGI images of 16 bits per channel, which Pillow reads as 8.

Source: Paul Haeberli, The SGI Image File Format, version 1.00.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.files import reading
from repsr_cli.image.damage import Damaged, reporting_damage
from repsr_cli.image.page import Metadata, Page, Stored, Strip, page_of

_HEADER = 512


def open_deep_sgi(path: Path) -> Stored | None:
    """Read the header of an SGI image of 16 bits per channel.

    Returns:
        None if it has fewer: Pillow is to read it.

    Raises:
        MediaError: it is damaged; later, from pages: samples are missing.
    """
    with reading(path) as file:
        head = file.read(12)
    if head[3:4] != b"\2":
        return None
    with reporting_damage(path, "SGI image"):
        if len(head) < 12:
            raise Damaged("it ends early")
        _, packed, _, dimensions, width, height, depth = struct.unpack(">HBBHHHH", head)
        height, channels = (1 if dimensions == 1 else height), (depth if dimensions == 3 else 1)
        if not width or not height or channels not in (1, 2, 3, 4) or packed > 1:
            raise Damaged("its header gives no size, or channels that are not grey or RGB")

    def pages() -> Iterator[Page]:
        with reporting_damage(path, "SGI image"):
            planes = _planes(path.read_bytes(), channels, height, width, packed=bool(packed))
        yield page_of(*Strip.of(planes[:, ::-1].transpose(1, 2, 0), alpha=channels in (2, 4)))

    return Stored(height, width, pages, Metadata())


def _planes(data: bytes, channels: int, height: int, width: int, *, packed: bool) -> NDArray[Any]:
    try:
        return (_packed if packed else _plain)(data, channels, height, width)
    except (struct.error, ValueError, IndexError) as error:
        raise Damaged("samples are missing") from error


def _plain(data: bytes, channels: int, height: int, width: int) -> NDArray[Any]:
    samples = np.frombuffer(data, ">u2", channels * height * width, _HEADER)
    return samples.reshape(channels, height, width).astype(np.uint16)


def _packed(data: bytes, channels: int, height: int, width: int) -> NDArray[Any]:
    """Planes of run-length coded rows, bottom row first."""
    count = channels * height
    starts = struct.unpack_from(f">{count}I", data, _HEADER)
    lengths = struct.unpack_from(f">{count}I", data, _HEADER + 4 * count)
    if count * width * 2 > 512 * len(data):  # a run of 127 samples takes 4 bytes, rows may share their bytes
        raise ValueError("rows overlap")
    planes = np.empty((count, width), np.uint16)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        planes[row] = _row(np.frombuffer(data, ">u2", length // 2, start), width)
    return planes.reshape(channels, height, width)


def _row(words: NDArray[Any], width: int) -> NDArray[Any]:
    parts: list[NDArray[Any]] = []
    at = done = 0
    while done < width:
        word = int(words[at])
        run = word & 0x7F
        if not run:
            raise ValueError("a row ends early")
        if word & 0x80:
            part = words[at + 1 : at + 1 + run]
            at += 1 + run
        else:
            part = np.repeat(words[at + 1], run)
            at += 2
        parts.append(part)
        done += len(part)
        if len(part) < run:
            raise ValueError("a row ends early")
    row = np.concatenate(parts)
    if len(row) != width:
        raise ValueError("a row is too long")
    return row
