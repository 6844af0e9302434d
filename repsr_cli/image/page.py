"""Describe an image apart from its file format: pixels, transparency and metadata.

A *page* is one image of a file: the only one of a photograph, one of several in a fax, one frame of an animation. It
says what it is at once and hands out its rows from top to bottom on demand, so that a page larger than memory is no
special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metadata:
    """What surrounds the pixels and must survive them.

    Attributes:
        icc: ICC profile that fits the pixels as decoded (RGB or GRAY), None: none, that is, sRGB.
        exif: a TIFF structure of EXIF tags, without the six bytes that JPEG puts before it.
        dpi: (horizontal, vertical) pixels per inch.
        text: (keyword, text) pairs: PNG text chunks, JPEG and GIF comments (keyword ``Comment``).
        colour: PNG chunks (type, payload) that say what the colours mean: cICP, gAMA, cHRM, sRGB, mDCV, cLLI.
        aspect: relative (horizontal, vertical) pixel density where no unit is given; None: square or unknown.
        photoshop: Photoshop's image resource blocks, which hold IPTC captions.
        chunks: other PNG chunks (type, payload) that an editor may copy unseen.
        segments: other JPEG segments (marker, payload) to copy.
        trailer: what follows a JPEG image in its file: the video of a motion photo.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    colour: tuple[tuple[bytes, bytes], ...] = ()
    aspect: tuple[float, float] | None = None
    photoshop: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, bytes], ...] = ()
    trailer: bytes | None = None


class Strip(NamedTuple):
    """Some consecutive rows of a page.

    Attributes:
        pixels: (rows, W, C), uint8, uint16 or float32; C is 1 (grey) or 3 (RGB).
        alpha: (rows, W) of the same type, straight (not multiplied in), or None.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None

    @classmethod
    def of(cls, samples: NDArray[Any], *, alpha: bool) -> Strip:
        """Samples (rows, W, channels + alpha) taken apart."""
        if not alpha:
            return cls(np.ascontiguousarray(samples))
        return cls(np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1]))

    @property
    def samples(self) -> NDArray[Any]:
        """(rows, W, channels + alpha)."""
        return self.pixels if self.alpha is None else np.concatenate([self.pixels, self.alpha[..., None]], axis=2)


@dataclass(frozen=True, slots=True)
class Page:
    """One image of a file: what it is, and its rows on demand.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        dtype: uint8, uint16 or float32; opaque is the largest code, or 1.0.
        alpha: whether strips carry transparency.
        strips: starts reading at the top; yields strips that cover the rows once, in order. May be called again, but
            only while the file's next page has not been asked for.
        duration: seconds this frame of an animation stays; None for pages, and for the still that an animated PNG
            shows where animation is not understood.
        notes: sentences for the user: what was converted while reading.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    alpha: bool
    strips: Callable[[], Iterator[Strip]]
    metadata: Metadata = Metadata()
    duration: Fraction | None = None
    notes: tuple[str, ...] = ()

    def read(self) -> Strip:
        """The whole page in memory."""
        strips = self.strips()
        first = next(strips)
        if len(first.pixels) == self.height:
            return first
        # Only now: a damaged header may claim any height, and then the first strip has failed already.
        pixels: NDArray[Any] = np.empty((self.height, self.width, self.channels), self.dtype)
        alpha: NDArray[Any] | None = np.empty(pixels.shape[:2], self.dtype) if self.alpha else None
        top = 0
        for strip in chain((first,), strips):
            rows = slice(top, top + len(strip.pixels))
            pixels[rows] = strip.pixels
            if alpha is not None:
                alpha[rows] = strip.alpha
            top = rows.stop
        return Strip(pixels, alpha)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds, as stored: before any rotation that its metadata ask for.

    Attributes:
        height: rows of the first page.
        width: columns of the first page.
        pages: reads the pages in order; may be called again.
        metadata: of the first page.
        loop: how often an animation plays, 0: for ever; None for what is none.
        streamed: whether pages are read in strips, so that memory holds a few hundred rows at most.
    """

    height: int
    width: int
    pages: Callable[[], Iterator[Page]]
    metadata: Metadata
    count: int = 1
    loop: int | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A whole page in memory.

    Attributes:
        pixels: (H, W, C), uint8, uint16 or float32; C is 1 (grey) or 3 (RGB).
        alpha: (H, W) of the same type, straight, or None.
        format: the file format it came from, e.g. ``PNG``; empty for one that came from no file.
        duration: seconds, for a frame of an animation.
        notes: sentences for the user: what was converted while reading.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = ""
    duration: Fraction | None = None
    notes: tuple[str, ...] = ()

    def page(self) -> Page:
        """The same as a page of one strip."""
        return page_of(self.pixels, self.alpha, self.metadata, self.duration, self.notes)


def page_of(
    pixels: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    metadata: Metadata = Metadata(),
    duration: Fraction | None = None,
    notes: tuple[str, ...] = (),
) -> Page:
    """A page whose rows are in memory: pixels (H, W, C), alpha (H, W) or None."""
    strip = Strip(pixels, alpha)
    height, width, channels = pixels.shape
    return Page(
        height, width, channels, pixels.dtype, alpha is not None, lambda: iter((strip,)), metadata, duration, notes
    )


def upright(page: Page, orientation: int) -> Page:
    """The page as it is meant to be seen.

    Args:
        page: as stored.
        orientation: EXIF's tag 274, 1 to 8; anything else counts as 1.

    Returns:
        The page itself for 1; else one that holds all its rows when asked for the first, since its top row may be a
        column of the file. The metadata is untouched.

    Source: CIPA DC-008 (EXIF 2.32), tag Orientation.
    """
    if orientation not in range(2, 9):
        return page

    def turn(samples: NDArray[Any]) -> NDArray[Any]:
        if orientation >= 5:
            samples = np.swapaxes(samples, 0, 1)
        if orientation in (3, 4, 7, 8):
            samples = samples[::-1]
        if orientation in (2, 3, 6, 7):
            samples = samples[:, ::-1]
        return np.ascontiguousarray(samples)

    def strips() -> Iterator[Strip]:
        pixels, alpha = page.read()
        yield Strip(turn(pixels), None if alpha is None else turn(alpha))

    height, width = (page.width, page.height) if orientation >= 5 else (page.height, page.width)
    return replace(page, height=height, width=width, strips=strips)
