"""Prepare colours under transparency, and enlarge alpha without halos.

A network must not see the arbitrary colours that files keep where nothing shows: they would bleed into what does show.
And an enlarged alpha channel must stay within what was there: no halo, opaque stays opaque, hidden stays hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.image.resize import imresize_rows


def spread(reach: int) -> int:
    """How far away ``bleed`` looks: rows of context that its result depends on. Units: LR pixels."""
    return sum(_radii(reach))


def bleed(pixels: NDArray[Any], alpha: NDArray[Any], reach: int) -> NDArray[Any]:
    """Extend the visible colours under what is fully transparent.

    Args:
        pixels: (H, W, C) integers or floats.
        alpha: (H, W); zero hides.
        reach: how far a network looks: so far from anything visible, colours are replaced.

    Returns:
        (H, W, C) like ``pixels``: visible pixels untouched, hidden ones within ``reach`` of them the mean of near known
        colours. A pixel depends on those up to ``spread(reach)`` away and on nothing else.
    """
    known = alpha > 0
    if known.all() or not known.any():
        return pixels
    integers = np.issubdtype(pixels.dtype, np.integer)
    # Integer sums are exact, so that a strip gives what the whole image gives.
    colours = np.where(known[..., None], pixels, 0).astype(np.int64 if integers else np.float64)
    for radius in _radii(reach):
        count = box_sum(known.astype(np.int64)[..., None], radius)
        total = box_sum(colours, radius)
        fresh = ~known & (count[..., 0] > 0)
        mean = total[fresh] / count[fresh]
        colours[fresh] = np.floor(mean + 0.5) if integers else mean
        known |= fresh
    return np.where(known[..., None], colours, pixels).astype(pixels.dtype)


def enlarge_alpha(
    part: NDArray[Any], first: int, height: int, size: tuple[int, int], rows: tuple[int, int]
) -> NDArray[Any]:
    """Rows of an enlarged alpha channel: bicubic, but never beyond the samples it lies between.

    Args:
        part: (rows, W) of the channel, from row ``first`` on; at least what ``rows_needed`` names.
        first: where the part begins.
        size: target (height, width) of the whole.
        rows: which rows of the target to make, (start, stop).

    Returns:
        (stop - start, width) of the same type.
    """
    if (part == part[0, 0]).all():
        return np.tile(part[:1, :1], (rows[1] - rows[0], size[1]))
    out = imresize_rows(part, first, height, size, rows)
    low = high = part
    for axis, (length, target, span, begin) in enumerate(
        ((height, size[0], rows, first), (part.shape[1], size[1], (0, size[1]), 0))
    ):
        if target < length:
            return out  # where it shrinks, a sample stands for more than two, and antialiasing hardly rings
        centre = (np.arange(*span) + 0.5) * length / target - 0.5
        below = np.clip(np.floor(centre).astype(np.intp), 0, length - 1) - begin
        above = np.clip(np.ceil(centre).astype(np.intp), 0, length - 1) - begin
        low = np.minimum(low.take(below, axis), low.take(above, axis))
        high = np.maximum(high.take(below, axis), high.take(above, axis))
    clipped: NDArray[Any] = np.clip(out, low, high)
    return clipped


def _radii(reach: int) -> list[int]:
    """Radii 1, 2, 4, ... that together cover ``reach``: near neighbours first."""
    radii: list[int] = []
    while sum(radii) < reach:
        radii.append(min(2 ** len(radii), reach - sum(radii)))
    return radii


def box_sum(values: NDArray[Any], radius: int, gaps: tuple[int, int] = (0, 0)) -> NDArray[Any]:
    """Sums over squares of 2 * radius + 1 pixels a side, of (H, W, C); zero beyond the borders.

    Args:
        values: one for each pixel; along an axis with a 1 in ``gaps``, for each gap between two pixels: one fewer.
        gaps: for rows and columns.
    """
    for axis, gap in enumerate(gaps):
        length = values.shape[axis] + gap
        running = np.concatenate(
            [
                np.zeros_like(values, shape=(*values.shape[:axis], 1, *values.shape[axis + 1 :])),
                np.cumsum(values, axis),
            ],
            axis,
        )
        ends = np.minimum(np.arange(length) + radius + 1, length) - gap
        starts = np.maximum(np.arange(length) - radius, 0)
        values = running.take(ends, axis) - running.take(starts, axis)
    return values
