"""Read the elements of Matroska files, and write the display size that PyAV cannot hand to the muxer.

Source: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from repsr_cli.errors import MediaError

# Appended to the name of the upscaled track: its bytes become the display size. No name ends like this.
PLACEHOLDER = "\x1f" * 40

_SEGMENT, _TRACKS, _TRACK, _NAME, _VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\x53\x6e", b"\xe0"
_CLUSTER, _CRC, _VOID = b"\x1f\x43\xb6\x75", b"\xbf", b"\xec"
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"
# The header is in the first megabytes, unless a cover of more is attached, which follows it.
_HEADER_BYTES = 1 << 24


def ebml_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-width length: (value, bytes)."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if width > 8 or at + width > len(data):
        return 0, 1
    value = first & (1 << (8 - width)) - 1
    for byte in data[at + 1 : at + width]:
        value = value << 8 | byte
    return value, width


def elements(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The elements between two places: (identifier, where the content begins, where it ends)."""
    while at < end:
        width = 9 - data[at].bit_length()
        if width > 4:
            return
        length, more = ebml_length(data, at + width)
        begin = at + width + more
        yield data[at : at + width], begin, begin + length
        at = begin + length


def write_display_size(path: Path, width: int, height: int, sar: Fraction) -> None:
    """Write the display size of the track whose name ends in ``PLACEHOLDER``, into the place of that ending.

    The muxer reads the sample aspect ratio of a stream, which PyAV has no attribute for.

    Args:
        path: a file as the muxer wrote it.
        sar: its sample aspect ratio.

    Raises:
        MediaError: the file has no such track.
    """
    with path.open("r+b") as file:
        data = file.read(_HEADER_BYTES)
        for identifier, begin, end in _tracks(data):
            if identifier != _TRACKS:
                continue
            for kind, first, last in elements(data, begin, end):
                if kind == _TRACK and PLACEHOLDER.encode() in data[first:last]:
                    entry = _with_display_size(data[first:last], width, height, sar)
                    tracks = data[begin:first] + entry + data[last:end]
                    file.seek(begin)
                    file.write(_with_checksum(tracks))
                    return
    raise MediaError(path, "its header has no track that is upscaled")


def _tracks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The elements of the segment before its first cluster."""
    for identifier, begin, _ in elements(data, 0, len(data)):
        if identifier == _SEGMENT:
            for each in elements(data, begin, len(data)):
                if each[0] == _CLUSTER:
                    return
                yield each


def _with_display_size(entry: bytes, width: int, height: int, sar: Fraction) -> bytes:
    """The content of a track's entry with a display size; as long as it was."""
    shown, unit = Fraction(width) * sar, 0
    if shown.denominator == 1:
        display_width, display_height = shown.numerator, height
    else:  # not in whole pixels: the ratio alone
        unit, ratio = 3, shown / height
        display_width, display_height = ratio.numerator, ratio.denominator
    made = b""
    for kind, begin, end in elements(entry, 0, len(entry)):
        content = entry[begin:end]
        if kind == _NAME:
            content = content.removesuffix(PLACEHOLDER.encode())
            if not content:
                continue
        if kind == _VIDEO:
            content = b"".join(
                _element(inner, content[a:b])
                for inner, a, b in elements(content, 0, len(content))
                if inner not in (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
            )
            content += _element(_DISPLAY_WIDTH, _number(display_width))
            content += _element(_DISPLAY_HEIGHT, _number(display_height))
            content += _element(_DISPLAY_UNIT, _number(unit)) if unit else b""
        made += _element(kind, content)
    free = len(entry) - len(made) - 2
    assert 0 <= free < 127
    return made + _VOID + bytes([0x80 | free]) + bytes(free)


def _with_checksum(content: bytes) -> bytes:
    """The content of an element, with its checksum corrected if it has one."""
    if content[:2] != _CRC + b"\x84":
        return content
    return content[:2] + zlib.crc32(content[6:]).to_bytes(4, "little") + content[6:]


def _element(kind: bytes, content: bytes) -> bytes:
    """An element with its length in as few bytes as possible."""
    width = 1
    while len(content) >= (1 << 7 * width) - 1:
        width += 1
    return kind + (len(content) | 1 << 7 * width).to_bytes(width, "big") + content


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")
