"""Cut an LR image into cores that cover it exactly once, each with the context its pixels depend on.

A pixel of the output depends on the LR pixels within the network's reach and on nothing else, so a tile that carries
this much context computes its core exactly as the whole image would. Contexts are clipped at the borders of the
image: there, and only there, the zero padding of the convolutions is the one that the whole image gets.
Integers only; units are LR pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from repsr_cli.errors import UsageError

# Called with (tiles done, tiles in total); may raise to cancel.
Progress = Callable[[int, int], None]

SMALLEST_TILE = 32

# Measured with 16, 32 and 64 channels: contexts of this size run at the speed of the machine's matrix
# products; larger ones do not fit the cache that cores share, smaller ones spend too much on overlap.
CPU_CONTEXT_PIXELS = 80_000


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of LR pixels: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    def grown(self, by: int, within: Box) -> Box:
        """This box and ``by`` pixels more on every side, clipped to another."""
        return Box(
            max(self.top - by, within.top),
            max(self.left - by, within.left),
            min(self.bottom + by, within.bottom),
            min(self.right + by, within.right),
        )

    def common(self, other: Box) -> Box | None:
        """The pixels in both boxes; None if there are none."""
        box = Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )
        return box if box.height > 0 and box.width > 0 else None

    def seen_from(self, other: Box) -> Box:
        """This box counted from the corner of another."""
        return Box(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)

    def slices(self, scale: int = 1) -> tuple[slice, slice]:
        """(rows, columns) of this box in an image ``scale`` times as large."""
        return (
            slice(self.top * scale, self.bottom * scale),
            slice(self.left * scale, self.right * scale),
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of work.

    Attributes:
        core: the pixels this tile is responsible for.
        context: the pixels it reads: the core and up to ``overlap`` more on every side.
        image: all pixels of the image.
    """

    core: Box
    context: Box
    image: Box

    @property
    def inner(self) -> Box:
        """The core, counted from the corner of the context."""
        return self.core.seen_from(self.context)

    def with_margin(self, margin: int) -> Box:
        """The core and ``margin`` pixels more on every side, as far as the context goes."""
        return self.core.grown(margin, self.context)


def plan_tiles(height: int, width: int, tile: tuple[int, int], overlap: int, align: int = 1) -> list[Tile]:
    """Cut an image into tiles of nearly equal size, in reading order.

    Args:
        tile: largest core, (rows, columns); rounded up to a multiple of ``align``.
        overlap: context on every side; the network's reach makes the cuts invisible.
        align: cuts lie at multiples of this.

    Returns:
        Tiles whose cores cover every pixel exactly once.
    """
    if height < 1 or width < 1 or min(tile) < 1 or overlap < 0 or align < 1:
        raise ValueError(f"cannot cut {height}x{width} into tiles of {tile} with overlap {overlap}")
    whole = Box(0, 0, height, width)
    cores = [
        Box(top, left, bottom, right)
        for top, bottom in _cuts(height, tile[0], align)
        for left, right in _cuts(width, tile[1], align)
    ]
    return [Tile(core, core.grown(overlap, whole), whole) for core in cores]


def fit_tile(height: int, width: int, overlap: int, pixels: int, at_once: int = 1) -> tuple[int, int]:
    """The core size that takes the least time while no context exceeds a budget of pixels.

    Args:
        overlap: context on every side.
        pixels: largest context, in pixels. Where even the smallest cores exceed it, the budget yields: cores are never
            cut below 32 x 32.
        at_once: how many tiles are computed side by side. An odd one out then costs as much as a pair.

    Returns:
        (rows, columns) of the core.
    """
    candidates: list[tuple[int, float, int, int]] = []
    for columns in range(1, -(-width // 32) + 1):
        core_width = -(-width // columns)
        context_width = min(core_width + 2 * overlap, width) if columns > 1 else width
        rows_allowed = pixels // context_width
        core_height = height if rows_allowed >= height else min(max(rows_allowed - 2 * overlap, 32), height)
        rows = -(-height // core_height)
        context_height = min(core_height + 2 * overlap, height) if rows > 1 else height
        excess = max(context_height * context_width - pixels, 0)
        read = (height + 2 * overlap * (rows - 1)) * (width + 2 * overlap * (columns - 1))
        count = rows * columns
        time = read * (-(-count // at_once) * at_once) / count
        candidates.append((excess, time, core_height, core_width))
    return min(candidates)[2:]


def _cuts(length: int, most: int, align: int) -> list[tuple[int, int]]:
    """Pieces of nearly equal length, none longer than ``most``, all but the end at multiples of ``align``."""
    units = -(-length // align)
    pieces = -(-units // -(-most // align))
    edges = [min(piece * units // pieces * align, length) for piece in range(pieces + 1)]
    return list(pairwise(edges))


def pick_tile(name: str | int) -> str | int:
    """The tile size of a name.

    Args:
        name: ``auto``; ``auto:N``, the same within a budget of N LR pixels, context included; ``off``; or the side of a
            core in LR pixels.

    Raises:
        UsageError: anything else.
    """
    if name in ("auto", "off"):
        return name
    automatic, _, number = str(name).rpartition(":")
    if automatic in ("", "auto") and number.isdecimal() and int(number) > 0:
        return f"auto:{int(number)}" if automatic else int(number)
    raise UsageError(f"tile {name}", "not a tile size", "Give auto, auto:PIXELS, off or a positive number of pixels.")
