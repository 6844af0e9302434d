"""Find out which parts of an image a format cannot hold, before the work starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repsr_cli.errors import UsageError
from repsr_cli.image.exif import EXIF, RATIONAL, SHORT, Entry, build_exif, parse_exif, rational, shorts
from repsr_cli.image.formats import FORMATS, Format
from repsr_cli.image.icc import is_srgb, profile_for
from repsr_cli.image.jpeg import SEGMENT_BYTES
from repsr_cli.image.page import Metadata, Page

_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _MAKER_NOTE = 282, 283, 296, 37500
_EXIF_BYTES = SEGMENT_BYTES - len(b"Exif\0\0")
_XMP_BYTES = SEGMENT_BYTES - len(b"http://ns.adobe.com/xap/1.0/\0")
_IPTC = b"8BIM\x04\x04"
_HDR = (b"mDCV", b"cLLI")


def losses(
    fmt: Format,
    page: Page,
    size: tuple[int, int],
    *,
    count: int = 1,
    loop: int | None = None,
    strip_metadata: bool = False,
) -> tuple[str, ...]:
    """What of an image a format cannot hold.

    Args:
        page: the first page. An alpha channel that is opaque throughout is not a loss.
        size: (height, width) to be written.
        loop: how often an animation plays, 0: for ever; None: not an animation.
        strip_metadata: metadata are not wanted.

    Returns:
        Phrases such as ``transparency``, none if nothing is lost.

    Raises:
        UsageError: the size itself is beyond the format: nothing could be left out to make it fit.
    """
    if max(size) > fmt.side:
        others = ", ".join(other.name for other in FORMATS if other.side >= max(size) and not other.package)
        raise UsageError(
            f"{size[1]} x {size[0]} px",
            f"{fmt.name} holds at most {fmt.side} px a side",
            f"Choose a smaller size or another format: {others}.",
        )
    lost = []
    if 8 * page.dtype.itemsize > max(fmt.depths):
        lost.append("floating-point values" if page.dtype.itemsize == 4 else "16 bits per channel")
    if page.alpha and not fmt.alpha and not _opaque(page):
        lost.append("transparency")
    if count > 1 and fmt.many != ("pages" if loop is None else "frames"):
        lost.append("more than one page" if loop is None else "animation")
    elif loop is not None and count > 1:
        if loop > 0 and not fmt.loops:
            lost.append("how often the animation plays")
        if page.duration is None and fmt.name != "PNG":
            lost.append("the still shown where animations are not understood")
    return (*lost, *(() if strip_metadata else _metadata_losses(fmt, page.metadata, page.channels)))


def fitting_metadata(fmt: Format, metadata: Metadata, channels: int) -> Metadata:
    """Metadata in the words of a format: colours as an ICC profile, resolution in EXIF, where it knows nothing else."""
    if "ICC" not in fmt.kept:
        metadata = replace(metadata, icc=None)
    elif metadata.icc is None and not _describes_colour(fmt, metadata):
        metadata = replace(metadata, icc=profile_for(metadata.colour, channels))
    if "resolution" not in fmt.kept and "EXIF" in fmt.kept and metadata.dpi is not None:
        metadata = replace(metadata, exif=_with_resolution(metadata.exif, metadata.dpi))
    if fmt.name == "JPEG":
        large = len(metadata.exif or b"") > _EXIF_BYTES, len(metadata.xmp or b"") > _XMP_BYTES
        metadata = replace(metadata, exif=None if large[0] else metadata.exif, xmp=None if large[1] else metadata.xmp)
    return metadata


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes | None:
    """EXIF that gives a resolution, where it does not yet; unchanged where makers' notes would not survive that."""
    tags = parse_exif(exif or b"")
    nested = tags.get(EXIF)
    if _X_RESOLUTION in tags or (exif and not tags) or (isinstance(nested, dict) and _MAKER_NOTE in nested):
        return exif
    return build_exif({**tags, _X_RESOLUTION: rational(dpi[0]), _Y_RESOLUTION: rational(dpi[1]), _UNIT: shorts(2)})


def _metadata_losses(fmt: Format, metadata: Metadata, channels: int) -> tuple[str, ...]:
    comments = [text for keyword, text in metadata.text if keyword == "Comment"]
    texts = [keyword for keyword, _ in metadata.text if keyword != "Comment"]
    texts += [data.partition(b"\0")[0].decode("latin-1") for kind, data in metadata.chunks if kind == b"iTXt"]
    kept = fitting_metadata(fmt, metadata, channels)
    foreign = [kind.decode("latin-1") for kind, _ in metadata.chunks if kind != b"iTXt"]
    foreign = list(dict.fromkeys(foreign)) if fmt.name != "PNG" else []
    segments = [] if fmt.name == "JPEG" else sorted({f"APP{marker - 0xE0}" for marker, _ in metadata.segments})
    lacking = {
        "EXIF": metadata.exif is not None and ("EXIF" not in fmt.kept or kept.exif is None),
        "XMP": metadata.xmp is not None and ("XMP" not in fmt.kept or kept.xmp is None),
        "its ICC profile": metadata.icc is not None and "ICC" not in fmt.kept and not _is_srgb_profile(metadata.icc),
        _colour_name(metadata): metadata.icc is None and _colour_is_lost(fmt, metadata, kept),
        "HDR metadata (mDCV, cLLI)": fmt.name != "PNG" and any(kind in _HDR for kind, _ in metadata.colour),
        "IPTC captions": _IPTC in (metadata.photoshop or b"") and "IPTC" not in fmt.kept,
        "its resolution": metadata.dpi is not None and not _resolution_is_kept(fmt, kept),
        "its pixel aspect ratio": metadata.aspect is not None and "aspect ratio" not in fmt.kept,
        f"text ({', '.join(dict.fromkeys(texts))})": bool(texts) and "text" not in fmt.kept,
        "comments": bool(comments) and not {"text", "comments"} & fmt.kept,
        "all comments but the first": len(comments) > 1 and fmt.name == "JPEG2000",
        f"PNG chunks ({', '.join(foreign)})": bool(foreign),
        f"application data ({', '.join(segments)})": bool(segments),
        "the video of a motion photo": metadata.trailer is not None and fmt.name != "JPEG",
    }
    named = [phrase for phrase, lost in lacking.items() if lost]
    large = " of more than 64 KB" if fmt.name == "JPEG" else ""
    return tuple(phrase + large if phrase in ("EXIF", "XMP") else phrase for phrase in named)


def _describes_colour(fmt: Format, metadata: Metadata) -> bool:
    """Whether a format holds the very description of colour that an image has."""
    if fmt.name == "PNG":
        return True
    return "cICP" in fmt.kept and b"cICP" in dict(metadata.colour)


def _colour_is_lost(fmt: Format, metadata: Metadata, kept: Metadata) -> bool:
    return not (_describes_colour(fmt, metadata) or is_srgb(metadata.colour) or kept.icc is not None)


def _colour_name(metadata: Metadata) -> str:
    chunks = dict(metadata.colour)
    if b"cICP" in chunks:
        primaries, transfer = chunks[b"cICP"][:2]
        return f"its colours (cICP: primaries {primaries}, transfer {transfer})"
    names = " and ".join(kind.decode() for kind in (b"gAMA", b"cHRM") if kind in chunks)
    return f"its colours ({names})"


def _resolution_is_kept(fmt: Format, kept: Metadata) -> bool:
    if "resolution" in fmt.kept:
        return True
    entry = parse_exif(kept.exif or b"").get(_X_RESOLUTION) if "EXIF" in fmt.kept else None
    return isinstance(entry, Entry) and entry.type in (RATIONAL, SHORT)


def _is_srgb_profile(icc: bytes) -> bool:
    """Whether a profile's description says sRGB."""
    return any(name in icc for name in (b"sRGB", "sRGB".encode("utf-16-be")))


def _opaque(page: Page) -> bool:
    """Whether a page's alpha hides nothing anywhere."""
    peak = 1.0 if page.dtype.kind == "f" else np.iinfo(page.dtype).max
    return all(alpha is None or bool((alpha >= peak).all()) for _, alpha in page.strips())
