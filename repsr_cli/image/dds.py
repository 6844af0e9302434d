"""Read uncompressed DDS textures that Pillow does not read: 16-bit and floating-point channels.

Source: Microsoft, Programming Guide for DDS; the enumeration DXGI_FORMAT.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repsr_cli.errors import MediaError
from repsr_cli.files import reading
from repsr_cli.image.damage import Damaged, reporting_damage
from repsr_cli.image.page import Metadata, Page, Stored, Strip, page_of


@dataclass(frozen=True, slots=True)
class _Layout:
    """How pixels are stored: type of a sample, and where the shown channels are (alpha last of 2 or 4)."""

    type: str
    samples: int
    order: tuple[int, ...]


_RGBA, _RGB = (0, 1, 2, 3), (0, 1, 2)
_DXGI = {
    2: _Layout("<f4", 4, _RGBA),
    6: _Layout("<f4", 3, _RGB),
    10: _Layout("<f2", 4, _RGBA),
    11: _Layout("<u2", 4, _RGBA),
    41: _Layout("<f4", 1, (0,)),
    54: _Layout("<f2", 1, (0,)),
    56: _Layout("<u2", 1, (0,)),
    61: _Layout("<u1", 1, (0,)),
    87: _Layout("<u1", 4, (2, 1, 0, 3)),
    88: _Layout("<u1", 4, (2, 1, 0)),
    91: _Layout("<u1", 4, (2, 1, 0, 3)),
    93: _Layout("<u1", 4, (2, 1, 0)),
}
_D3D = {36: _DXGI[11], 111: _DXGI[54], 113: _DXGI[10], 114: _DXGI[41], 116: _DXGI[2]}
_LUMINANCE_16 = (0x20000, 16)


def open_dds(path: Path) -> Stored | None:
    """Read the header of a texture.

    Returns:
        None if Pillow is to read it.

    Raises:
        MediaError: later, from pages: pixels are missing.
    """
    with reading(path) as file:
        head = file.read(148)
    if len(head) < 128:
        return None
    height, width = struct.unpack_from("<II", head, 12)
    flags, name, bits = struct.unpack_from("<I4sI", head, 80)
    start = 148 if name == b"DX10" and flags & 4 else 128
    layout = None
    if start == 148 and len(head) == 148:
        layout = _DXGI.get(struct.unpack_from("<I", head, 128)[0])
    elif flags & 4:
        layout = _D3D.get(int.from_bytes(name, "little"))
    elif (flags, bits) == _LUMINANCE_16:
        layout = _DXGI[56]
    if layout is None or not height or not width:
        return None

    def pages() -> Iterator[Page]:
        yield _page(path, layout, start, height, width)

    return Stored(height, width, pages, Metadata())


def _page(path: Path, layout: _Layout, start: int, height: int, width: int) -> Page:
    count = height * width * layout.samples
    with reporting_damage(path, "DDS texture"), reading(path) as file:
        file.seek(start)
        data = file.read(count * np.dtype(layout.type).itemsize)
        if len(data) < count * np.dtype(layout.type).itemsize:
            raise Damaged("it ends early")
    stored = np.frombuffer(data, layout.type).reshape(height, width, layout.samples)[..., layout.order]
    samples = stored.astype(np.float32 if stored.dtype.kind == "f" else stored.dtype.newbyteorder("="))
    if not np.isfinite(samples).all():
        raise MediaError(path, "the DDS texture holds values that are not numbers", "Re-export it.")
    return page_of(*Strip.of(samples, alpha=len(layout.order) == 4))
