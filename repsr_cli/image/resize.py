"""Resize with antialiased bicubic interpolation, sample for sample as MATLAB's ``imresize``.

Super-resolution figures are comparable only if everyone shrinks the same way, and that way is ``imresize``: Keys' cubic
with a = -1/2, stretched by the factor when shrinking, the image mirrored at its borders with the edge repeated, one
axis after the other, integers rounded and clipped after *each* axis.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixels = TypeVar("Pixels", bound=NDArray[Any])

# Output samples per matrix product: each product sees only the stretch of input that its outputs reach.
_BLOCK = 48
# A sum that is n + 1/2 on paper may come out a few ulp below it, by another BLAS elsewhere: it rounds up all the same.
_TIE = 1e-9


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' interpolation kernel with a = -1/2, zero from 2 on.

    Source: Keys 1981, Cubic convolution interpolation, eq. 15.
    """
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def taps(length: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which input samples make each output sample of an axis, and with what weight.

    Args:
        length: input samples.
        target: output samples.

    Returns:
        (indices (target, taps) in [0, length), weights (target, taps) that sum to one along the last axis). An index
        occurs more than once in a row where the mirror folds taps onto each other.
    """
    factor = target / length
    stretch = min(factor, 1.0)
    centre = (np.arange(target) + 0.5) / factor - 0.5
    first = np.floor(centre - 2 / stretch).astype(np.intp)
    indices = first[:, None] + np.arange(int(np.ceil(4 / stretch)) + 2)
    weights = cubic((centre[:, None] - indices) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    indices = indices[:, weights.any(axis=0)]
    weights = weights[:, weights.any(axis=0)]
    folded = np.mod(indices, 2 * length)
    return np.minimum(folded, 2 * length - 1 - folded), weights


def imresize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize by antialiased bicubic interpolation.

    Args:
        pixels: (H, W) or (H, W, C), uint8, uint16 or floating point.
        size: target (height, width), each at least 1.

    Returns:
        (height, width) or (height, width, C) of the same type. Integers are rounded half up and clipped to the range of
        their type after each axis; floats are neither. The axis that shrinks most goes first, rows on a tie.

    Source: MATLAB's imresize; equal to its output on Set5 at 1/2, 1/3 and 1/4 in every sample.
    """
    return imresize_rows(pixels, 0, len(pixels), size, (0, size[0]))


def imresize_rows(part: Pixels, first: int, height: int, size: tuple[int, int], rows: tuple[int, int]) -> Pixels:
    """Some rows of what ``imresize`` makes of an image, from the rows of the image that they depend on.

    Args:
        part: rows ``first`` to ``first + len(part)`` of the image; at least those that ``rows_needed`` names.
        first: where the part begins.
        size: target (height, width) of the whole.
        rows: which rows of the target to make, (start, stop).

    Returns:
        (stop - start, width) or (stop - start, width, C), equal to these rows of the whole.
    """
    if min(size) < 1:
        raise ValueError(f"size must be at least (1, 1), not {size}")
    out: NDArray[Any] = part
    for axis in sorted((0, 1), key=lambda a: size[a] / (height, part.shape[1])[a]):
        if axis == 0:
            out = _resize(out, first, height, size[0], rows)
        else:
            columns = _resize(np.swapaxes(out, 0, 1), 0, part.shape[1], size[1], (0, size[1]))
            out = np.ascontiguousarray(np.swapaxes(columns, 0, 1))
    return out  # type: ignore[return-value]


def rows_needed(height: int, target: int, rows: tuple[int, int]) -> tuple[int, int]:
    """Which rows, (start, stop), of an image of ``height`` the target's rows (start, stop) depend on."""
    indices = taps(height, target)[0][slice(*rows)]
    return int(indices.min()), int(indices.max()) + 1


def downscale(pixels: Pixels, scale: int) -> Pixels:
    """Shrink by a whole factor.

    Args:
        pixels: (H, W) or (H, W, C); crop H and W to multiples of ``scale`` first to get what benchmarks use.
        scale: factor, 1 or more.

    Returns:
        (H // scale, W // scale[, C]), as ``imresize`` makes them.
    """
    return imresize(pixels, (pixels.shape[0] // scale, pixels.shape[1] // scale))


def _resize(part: NDArray[Any], first: int, length: int, target: int, span: tuple[int, int]) -> NDArray[Any]:
    """Samples ``span`` of the first axis, resized from ``length`` to ``target``, of a part that begins at ``first``."""
    if length == target:
        return part[span[0] - first : span[1] - first]
    indices, weights = taps(length, target)
    indices, weights = indices[slice(*span)], weights[slice(*span)]
    out = np.empty((len(indices), *part.shape[1:]), part.dtype)
    for start in range(0, len(out), _BLOCK):
        block = slice(start, start + _BLOCK)
        low, high = int(indices[block].min()), int(indices[block].max()) + 1
        matrix = np.zeros((len(indices[block]), high - low))
        np.add.at(matrix, (np.arange(len(matrix))[:, None], indices[block] - low), weights[block])
        samples = matrix @ part[low - first : high - first].astype(np.float64).reshape(high - low, -1)
        out[block] = _as_type(samples, part.dtype).reshape(len(matrix), *part.shape[1:])
    return out


def _as_type(samples: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Samples as ``dtype``: rounded half up and clipped for integers, converted for floats."""
    if not np.issubdtype(dtype, np.integer):
        return samples.astype(dtype)
    samples += 0.5 + _TIE
    np.floor(samples, out=samples)
    return np.clip(samples, 0, np.iinfo(dtype).max, out=samples).astype(dtype)
