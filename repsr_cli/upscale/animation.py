"""Turn animations in image formats into videos.

Animated GIF, WebP, PNG and AVIF are rewritten as animated PNG, which is lossless and which FFmpeg reads with all times.
The file lives in a temporary folder until the process ends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from repsr_cli.errors import RepsrError
from repsr_cli.image.files import open_image, write_image
from repsr_cli.image.page import Metadata, Page, Strip


@dataclass(frozen=True, slots=True)
class Animation:
    """An animation as a video.

    Attributes:
        path: the file to read in its place.
        losses: what no video holds of it.
        notes: what changes, a sentence each.
    """

    path: Path
    losses: tuple[str, ...]
    notes: tuple[str, ...]


@functools.cache
def is_animation(path: Path) -> bool:
    """Whether an image file holds frames that follow each other in time; False if it cannot be opened."""
    try:
        image = open_image(path)
    except RepsrError:
        return False
    return image.animated and image.count > 1


@functools.cache
def as_video(path: Path) -> Animation:
    """Rewrite an animation as a file that can be read as a video.

    Raises:
        MediaError: it cannot be read, or there is no space for it.
    """
    image = open_image(path)
    count, hidden, zero, metadata = 0, False, False, Metadata()
    for page in _frames(image.pages()):
        metadata = page.metadata if not count else metadata
        count += 1
        zero = zero or not page.duration
        hidden = hidden or _hides(page)
    target = Path(_folder().name) / f"{path.stem[:100]}.{abs(hash(path.absolute())):x}.apng"
    pages = (replace(page if hidden else _opaque(page), metadata=Metadata()) for page in _frames(image.pages()))
    write_image(target, pages, count=count, loop=image.loop, overwrite=True)
    carried = {"its ICC profile": metadata.icc, "EXIF": metadata.exif, "XMP": metadata.xmp, "text": metadata.text}
    losses = tuple(f"{name}, which no video holds" for name, value in carried.items() if value)
    notes = []
    if image.loop != 1:
        notes.append("an animation that repeats: a video says nothing of that")
    if zero:
        notes.append("frames that are shown for no time at all are shown for 1/15 s")
    return Animation(target, losses, tuple(notes))


@functools.cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="repsr-")


def _frames(pages: Iterator[Page]) -> Iterator[Page]:
    """Without the still that an animated PNG shows where animation is not understood."""
    return (page for page in pages if page.duration is not None)


def _hides(page: Page) -> bool:
    """Whether a page has transparency anywhere."""
    peak = page.dtype.type(1) if page.dtype.kind == "f" else 2 ** (8 * page.dtype.itemsize) - 1
    return page.alpha and any(alpha is not None and bool((alpha < peak).any()) for _, alpha in page.strips())


def _opaque(page: Page) -> Page:
    """A page without its alpha."""
    return replace(page, alpha=False, strips=lambda: (Strip(pixels) for pixels, _ in page.strips()))
