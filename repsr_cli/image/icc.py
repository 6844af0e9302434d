"""Make ICC profiles for colours that PNG chunks or nclx describe, for formats that can hold nothing else.

Source: ICC.1:2022, matrix and curve profiles; ITU-T H.273, tables 2 and 3; PNG, chunks gAMA and cHRM.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
# Parameters of ICC's curves: exponent alone, or exponent, a, b, c, d.
_BT709 = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_for(colour: tuple[tuple[bytes, bytes], ...], channels: int) -> bytes | None:
    """A profile of the colours that PNG chunks describe.

    Args:
        colour: chunks as (type, payload): cICP, gAMA, cHRM, sRGB.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        The profile; None if they say sRGB, or nothing a profile of this kind can express.
    """
    described = _described(colour)
    return None if described is None or is_srgb(colour) else _profile(*described, channels)


def is_srgb(colour: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether PNG chunks describe sRGB, or nothing."""
    chunks = dict(colour)
    if b"cICP" in chunks:
        return chunks[b"cICP"][0] == 1 and chunks[b"cICP"][1] in (1, 6, 13)
    if b"sRGB" in chunks or not (b"gAMA" in chunks or b"cHRM" in chunks):
        return True
    white, curve = _described(colour) or (_SRGB, _SRGB_CURVE)
    close = np.allclose(white, _SRGB, atol=0.002)
    return close and (curve is _SRGB_CURVE or (len(curve) == 1 and abs(curve[0] - 2.2) < 0.01))


def _described(colour: tuple[tuple[bytes, bytes], ...]) -> tuple[Chromaticities, tuple[float, ...]] | None:
    """(primaries, curve), None if they are beyond a curve's parameters."""
    chunks = dict(colour)
    if b"cICP" in chunks:
        primaries, transfer = chunks[b"cICP"][:2]
        if primaries not in _PRIMARIES or transfer not in _CURVES:
            return None
        return _PRIMARIES[primaries], _CURVES[transfer]
    found: Chromaticities = _SRGB
    if b"cHRM" in chunks:
        w_x, w_y, r_x, r_y, g_x, g_y, b_x, b_y = (n / 100_000 for n in struct.unpack(">8I", chunks[b"cHRM"]))
        found = (w_x, w_y, r_x, r_y, g_x, g_y, b_x, b_y)
        if min(found[1::2]) <= 0 or np.linalg.matrix_rank(_columns(found)) < 3:
            return None
    if b"gAMA" in chunks:
        return found, (100_000 / struct.unpack(">I", chunks[b"gAMA"])[0],)
    return found, _SRGB_CURVE


def _columns(colours: Chromaticities) -> NDArray[np.float64]:
    """XYZ of red, green and blue as columns, each of luminance 1."""
    points = [colours[at : at + 2] for at in (2, 4, 6)]
    return np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T


def _profile(colours: Chromaticities, curve: tuple[float, ...], channels: int) -> bytes:
    white = np.array([colours[0] / colours[1], 1, (1 - colours[0] - colours[1]) / colours[1]])
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    columns = _columns(colours)
    matrix = adapted @ (columns * np.linalg.solve(columns, white))
    kind = 0 if len(curve) == 1 else 3
    para = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(*curve)
    tags = [(b"desc", _text("Described by the image")), (b"cprt", _text("No copyright")), (b"wtpt", _xyz(*_D50))]
    tags.append((b"chad", b"sf32\0\0\0\0" + _fixed(*adapted.ravel())))
    if channels == 1:
        tags.append((b"kTRC", para))
    else:
        tags += [(name, _xyz(*matrix[:, n])) for n, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
        tags += [(name, para) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _assembled(tags, b"GRAY" if channels == 1 else b"RGB ")


def _assembled(tags: list[tuple[bytes, bytes]], space: bytes) -> bytes:
    table, values = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", start + len(values), len(value))
        values += value.ljust(-(-len(value) // 4) * 4, b"\0")
    size = start + len(values)
    header = struct.pack(">I4xI4s4s4s", size, 0x04300000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + values


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(x, y, z)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
