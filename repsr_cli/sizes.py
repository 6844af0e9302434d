"""Compute target sizes, for images and videos alike.

All arithmetic is exact and rounds once, half up. Videos have one more rule: chroma subsampling halves sides, so a side
that follows from the other one, or that is not a whole number at the given factor, becomes an even number. A side that
was asked for, or that is a whole number at the given factor, is never changed.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

Size = tuple[int, int]
"""(height, width) in px."""

# Computed sides of videos become multiples of this.
VIDEO_STEP = 2


class SizeRequest(Protocol):
    """What may be asked of a size; None where it is not."""

    @property
    def scale(self) -> float | None:
        """Enlargement factor."""

    @property
    def width(self) -> int | None:
        """Target width in px; the height follows from the aspect ratio unless it is given too."""

    @property
    def height(self) -> int | None:
        """Target height in px, likewise."""

    @property
    def fit(self) -> Size | None:
        """(height, width) of a box; the target is the largest that fits."""

    @property
    def short_side(self) -> int | None:
        """Length in px of the shorter side."""


def target_size(source: Size, asked: SizeRequest, default_factor: float, step: int = 1) -> Size:
    """The size of the result.

    Args:
        source: size of the source, as shown.
        default_factor: used where the request names neither a factor nor a side.
        step: computed sides become multiples of this; ``VIDEO_STEP`` for videos.
    """
    height, width = source
    wanted_height, wanted_width = asked_sides(source, asked)
    if wanted_height is not None and wanted_width is not None:
        return wanted_height, wanted_width
    limit_height, limit_width = asked.fit or (None, None)
    if wanted_width is not None:
        return _rounded(Fraction(height * wanted_width, width), step, limit_height), wanted_width
    if wanted_height is not None:
        return wanted_height, _rounded(Fraction(width * wanted_height, height), step, limit_width)
    factor = exact_factor(default_factor if asked.scale is None else asked.scale)
    scaled_height, scaled_width = (
        max(1, int(side)) if side.denominator == 1 else _rounded(side, step)
        for side in (height * factor, width * factor)
    )
    return scaled_height, scaled_width


def video_size(source: Size, asked: SizeRequest, default_factor: float) -> tuple[Size, str | None]:
    """The size of a video.

    Returns:
        The size, as shown; and what to tell the user where it is not what an image's would be.
    """
    size = target_size(source, asked, default_factor, VIDEO_STEP)
    image = target_size(source, asked, default_factor)
    if size == image:
        return size, None
    return (
        size,
        f"written at {size[1]}x{size[0]}: {image[1]}x{image[0]} is odd, and computed sides of a video are even numbers",
    )


def needed_factor(source: Size, asked: SizeRequest) -> Fraction | None:
    """The enlargement that a request needs, on the side that grows more; None where it does not say."""
    if asked.scale is not None:
        return exact_factor(asked.scale)
    factors = [
        Fraction(wanted, side)
        for wanted, side in zip(asked_sides(source, asked), source, strict=True)
        if wanted is not None
    ]
    return max(factors, default=None)


def asked_sides(source: Size, asked: SizeRequest) -> tuple[int | None, int | None]:
    """(height, width) as far as the request settles them for this source, shown this size; None: it does not."""
    height, width = source
    if asked.fit is not None:
        box_height, box_width = asked.fit
        return (None, box_width) if width * box_height >= height * box_width else (box_height, None)
    if asked.short_side is not None:
        return (asked.short_side, None) if height <= width else (None, asked.short_side)
    return asked.height, asked.width


def exact_factor(factor: float) -> Fraction:
    """A factor as it was meant: 1.1 is 11/10."""
    return Fraction(factor).limit_denominator(10_000)


def _rounded(side: Fraction, step: int, limit: int | None = None) -> int:
    """The nearest multiple of a step, half up, at least one step, and at most the limit."""
    steps = max(1, (2 * side + step) // (2 * step))
    if limit is not None and steps * step > limit:
        steps = max(1, limit // step)
    return steps * step
