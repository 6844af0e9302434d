"""Interpret colour tags and HDR metadata, and fill in missing tags.

Tags are the numbers of ITU-T H.273 (and FFmpeg): matrix 1 is BT.709, 5 and 6 are BT.601, 9 is BT.2020, 2 means
"unspecified"; range 1 is limited, 2 is full, 0 is unspecified.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from av.video.format import VideoFormat

from repsr_cli.errors import MediaError, UsageError
from repsr_cli.video.planes import subsampling
from repsr_cli.yuv.formats import Matrix, PlaneFormat, Siting

UNSPECIFIED = 2
PQ, HLG = 16, 18

_MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
    # Constant luminance differs from 9 in how luma is computed, not in how samples are scaled: the conversion and its
    # inverse cancel, and the network gets nearly the right colours.
    10: "bt2020",
}
_TAGS_BY_NAME = {"bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "bt2020": 9}


@dataclass(frozen=True, slots=True)
class ColourTags:
    """The colour tags of a stream, as numbers of ITU-T H.273.

    Attributes:
        matrix: YCbCr matrix (FFmpeg's ``colorspace``).
        range: 1 limited, 2 full, 0 unspecified.
        siting: chroma siting; None if the stream does not specify it.
    """

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    siting: Siting | None = None

    @property
    def hdr(self) -> bool:
        """Whether the transfer is one of BT.2100: perceptual quantiser or hybrid log-gamma."""
        return self.transfer in (PQ, HLG)


def resolve_tags(
    tags: ColourTags, pix_fmt: str, height: int, width: int, rate: Fraction | None
) -> tuple[ColourTags, tuple[str, ...]]:
    """Fill in tags that a stream lacks.

    The rule depends on the size of the source: from 720 lines or 1280 columns on it is BT.709; smaller ones are BT.601,
    the 625-line variant at 25 or 50 frames per second and the 525-line variant at other rates. A tag that is present
    determines the missing ones. Range is limited unless the pixel format implies full; chroma is co-sited to the left,
    as in MPEG-2 and its successors, or centred for JPEG's pixel formats.

    Returns:
        (complete tags, one sentence for every assumption made).
    """
    notes: list[str] = []
    layout = VideoFormat(pix_fmt)
    if layout.is_rgb or layout.has_palette:
        return replace(
            tags,
            matrix=0,
            range=2,
            primaries=1 if tags.primaries == UNSPECIFIED else tags.primaries,
            transfer=13 if tags.transfer == UNSPECIFIED else tags.transfer,
            siting="left",
        ), ()
    why = f"by its size of {width}x{height}"
    if tags.hdr or tags.primaries == 9 or tags.matrix in (9, 10):
        family, name = (9, 9, 14 if layout.components[0].bits == 10 else 15), "BT.2020"
        why = "as its other tags say"
    elif tags.matrix in (1, 5, 6, 7):
        family, name = {1: (1, 1, 1), 5: (5, 5, 6), 6: (6, 6, 6), 7: (7, 7, 7)}[tags.matrix], "its matrix"
    elif height >= 720 or width >= 1280:
        family, name = (1, 1, 1), "BT.709"
    elif rate is not None and round(rate) in (25, 50):
        family, name = (5, 5, 6), "BT.601 (625 lines)"
    else:
        family, name = (6, 6, 6), "BT.601 (525 lines)"
    found = (tags.matrix, tags.primaries, tags.transfer)
    matrix, primaries, transfer = (
        rule if tag in (UNSPECIFIED, 0, 3) else tag for tag, rule in zip(found, family, strict=True)
    )
    if tags.matrix in (UNSPECIFIED, 0, 3) and len(layout.components) > 1:
        notes.append(f"no colour matrix in the stream: taken as {name}, {why}")
    full = pix_fmt.startswith("yuvj")
    range_ = tags.range or (2 if full else 1)
    siting = tags.siting
    if siting is None:
        siting = "center" if full else "left"
        if subsampling(layout)[1] > 1:
            notes.append(f"no chroma siting in the stream: taken as {siting}")
    return ColourTags(matrix, range_, primaries, transfer, siting), tuple(notes)


def override_tags(tags: ColourTags, matrix: str | None, full_range: bool | None) -> ColourTags:
    """Replace tags by those that the user gave."""
    if matrix is not None:
        if matrix not in _TAGS_BY_NAME:
            raise UsageError(f"--matrix {matrix}", "not a known matrix", f"Choose from: {', '.join(_TAGS_BY_NAME)}.")
        tags = replace(tags, matrix=_TAGS_BY_NAME[matrix])
    if full_range is not None:
        tags = replace(tags, range=2 if full_range else 1)
    return tags


def plane_format(pix_fmt: str, tags: ColourTags, subject: object = "") -> PlaneFormat:
    """The meaning of planes in a planar pixel format.

    Args:
        pix_fmt: a planar name: ``yuv420p10le``, ``gbrp``, ``gray`` ...

    Raises:
        MediaError: the matrix is one that is not linear in the samples (YCgCo, ICtCp).
    """
    layout = VideoFormat(pix_fmt)
    depth = max(8, layout.components[0].bits)
    if layout.is_rgb:
        return PlaneFormat("rgb", True, depth)
    if len(layout.components) == 1:
        return PlaneFormat("grey", tags.range == 2, depth)
    if tags.matrix not in _MATRICES:
        remedy = "Name the matrix to use with --matrix."
        raise MediaError(subject, f"colour matrix {tags.matrix} of ITU-T H.273 is not supported", remedy)
    return PlaneFormat(_MATRICES[tags.matrix], tags.range == 2, depth, subsampling(layout), tags.siting or "left")


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """Static metadata of an HDR stream (SMPTE ST 2086, CTA-861.3).

    Attributes:
        primaries: chromaticities (x, y) of red, green, blue and white; None if absent.
        luminance: (min, max) of the mastering display in cd/m2; None if absent.
        content: (MaxCLL, MaxFALL) in cd/m2; None if absent.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None
    luminance: tuple[Fraction, Fraction] | None
    content: tuple[int, int] | None

    def x26x(self) -> str | None:
        """Mastering display in the notation of x264 and x265: ``G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)``."""
        return self._display(lambda value: f"{round(value * 50000)}", lambda value: f"{round(value * 10000)}")

    def svtav1(self) -> str | None:
        """Mastering display in the notation of SVT-AV1: the same in decimals."""
        return self._display(lambda value: f"{float(value):.5f}", lambda value: f"{float(value):.4f}")

    def _display(self, coordinate: Callable[[Fraction], str], luminance: Callable[[Fraction], str]) -> str | None:
        if self.primaries is None:
            return None
        red, green, blue, white = (",".join(map(coordinate, point)) for point in self.primaries)
        low, high = map(luminance, self.luminance or (Fraction(0), Fraction(0)))
        return f"G({green})B({blue})R({red})WP({white})L({high},{low})"


def parse_hdr(mastering: bytes | None, content: bytes | None) -> HdrMetadata | None:
    """Read FFmpeg's side data structures; None if both are missing.

    Args:
        mastering: ``AVMasteringDisplayMetadata``: ten rationals and two flags.
        content: ``AVContentLightMetadata``: two unsigned integers.
    """
    primaries = luminance = None
    if mastering is not None and len(mastering) >= 88:
        numbers = struct.unpack("=22i", mastering[:88])
        values = [Fraction(a, b or 1) for a, b in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
        points = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
        primaries = points if numbers[20] else None
        luminance = (values[8], values[9]) if numbers[21] else None
    light = struct.unpack("=II", content[:8]) if content is not None and len(content) >= 8 else None
    if primaries is None and luminance is None and light is None:
        return None
    return HdrMetadata(primaries, luminance, (light[0], light[1]) if light else None)
