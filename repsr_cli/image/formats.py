"""List the image formats: how to recognize them, and what each can hold."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from repsr_cli.errors import UsageError
from repsr_cli.files import reading

Kept = Literal["ICC", "EXIF", "XMP", "IPTC", "resolution", "aspect ratio", "text", "comments", "cICP", "chunks"]
"""Metadata that formats hold or do not. *aspect ratio*: pixel density without a unit; *cICP*: colour code points;
*chunks*: private data of the format itself."""

KEPT: tuple[Kept, ...] = get_args(Kept)

_PHOTO: frozenset[Kept] = frozenset({"ICC", "EXIF", "XMP"})


@dataclass(frozen=True, slots=True)
class Format:
    """What a kind of file can hold.

    Attributes:
        name: as Pillow names it.
        suffixes: of files, the usual one first.
        side: most pixels along one side.
        depths: bits per channel; 32 stands for floats.
        alpha: whether transparency.
        many: several pages, several frames in time, or neither.
        package: what must be installed besides, by the extra's name and the module's.
        kept: metadata it holds.
        loops: whether an animation may play a given number of times.
    """

    name: str
    suffixes: tuple[str, ...]
    side: int
    depths: tuple[int, ...] = (8,)
    alpha: bool = False
    many: Literal["pages", "frames"] | None = None
    package: tuple[str, str] | None = None
    kept: frozenset[Kept] = frozenset()
    loops: bool = True


FORMATS = (
    Format("PNG", (".png", ".apng"), 2**31 - 1, (8, 16), True, "frames", kept=frozenset(KEPT)),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        2**31 - 1,
        (8, 16, 32),
        True,
        "pages",
        kept=_PHOTO | {"IPTC", "resolution", "aspect ratio"},
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jfif", ".jpe"),
        65535,
        kept=_PHOTO | {"IPTC", "resolution", "aspect ratio", "comments", "chunks"},
    ),
    Format("WEBP", (".webp",), 16383, alpha=True, many="frames", kept=_PHOTO),
    Format("AVIF", (".avif", ".avifs"), 16384, alpha=True, many="frames", kept=_PHOTO | {"cICP"}, loops=False),
    Format("GIF", (".gif",), 65535, alpha=True, many="frames", kept=frozenset({"XMP", "comments"})),
    Format("BMP", (".bmp", ".dib"), 32767, kept=frozenset({"resolution"})),
    Format("JPEG2000", (".jp2", ".j2k", ".jpx"), 65535, alpha=True, kept=frozenset({"comments"})),
    Format("ICO", (".ico",), 256, alpha=True),
    Format("PPM", (".ppm", ".pgm", ".pnm"), 65535, (8, 16)),
    Format("PAM", (".pam",), 2**31 - 1, (8, 16), True),
    Format("PFM", (".pfm",), 2**31 - 1, (32,)),
    Format("HEIF", (".heic", ".heif"), 16384, alpha=True, package=("heif", "pillow_heif"), kept=_PHOTO),
    Format("JXL", (".jxl",), 65535, alpha=True, package=("jxl", "pillow_jxl"), kept=_PHOTO),
)

_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II\x2a\0", "TIFF"),
    (0, b"MM\0\x2a", "TIFF"),
    (0, b"II\x2b\0", "TIFF"),
    (0, b"MM\0\x2b", "TIFF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda\0", "SGI"),
    (0, b"\x01\xda\x01", "SGI"),
    (0, b"icns", "ICNS"),
    (0, b"\x76\x2f\x31\x01", "EXR"),
    (0, b"#?RADIANCE\n", "HDR"),
    (0, b"#?RGBE\n", "HDR"),
    (0, b"P7\n", "PAM"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


def format_for(target: Path) -> Format:
    """The format that a file of this name is written in."""
    for fmt in FORMATS:
        if target.suffix.lower() in fmt.suffixes:
            return fmt
    known = " ".join(fmt.suffixes[0] for fmt in FORMATS)
    raise UsageError(target, f"no image format has the suffix {target.suffix!r}", f"Use one of {known}.")


def is_image(path: Path) -> bool:
    """Whether a file's first bytes are an image's (readable here or not); False if it cannot be read at all."""
    try:
        return format_of(path) is not None
    except OSError:
        return False


def format_of(path: Path) -> str | None:
    """The format that a file's content says, None if it is not an image's."""
    with reading(path) as file:
        head = file.read(64)
        tail = b""
        if len(head) == 64 and _may_be_tga(head):
            file.seek(-len(_TGA_FOOTER), 2)
            tail = file.read()
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[4:8] == b"ftyp":
        stop = min(len(head) - 3, int.from_bytes(head[:4], "big"))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, stop, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & set(_HEIF_BRANDS) else None
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and len(head) > 9 and head[4] and not head[5] and not head[9]:
        return "ICO" if head[2] == 1 else "CUR"
    if re.match(rb"P[1-6][\s#]", head):
        return "PPM"
    if re.match(rb"P[Ff]\s", head):
        return "PFM"
    if len(head) == 64 and head[0] == 10 and head[1] in (0, 2, 3, 4, 5) and head[2] == 1 and head[3] in (1, 2, 4, 8):
        return "PCX"
    if _may_be_tga(head) and (tail == _TGA_FOOTER or path.suffix.lower() in (".tga", ".icb", ".vda", ".vst")):
        return "TGA"
    return None


def is_lossless(path: Path, kind: str) -> bool:
    """Whether a file's pixels are stored without loss; of a JPEG 2000 or JPEG XL, which can be either, assumed not."""
    if kind == "WEBP":
        with reading(path) as file:
            found = re.search(rb"VP8([L ])", file.read(1 << 20))
            return found is not None and found[1] == b"L"
    return kind not in ("JPEG", "AVIF", "HEIF", "JPEG2000", "JXL")


def _may_be_tga(head: bytes) -> bool:
    """Whether a header could be Targa's, which has no signature at its start."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    return all(struct.unpack_from("<HH", head, 12)) and head[16] in (8, 15, 16, 24, 32)
