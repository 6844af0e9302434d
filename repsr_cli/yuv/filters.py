"""Define the filters that resample chroma, and enlarge it in NumPy.

Their taps are defined here only; ``repsr_cli.yuv.chroma`` says what they do at borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repsr_cli.yuv.formats import PlaneFormat

Planes = tuple[NDArray[Any], ...]
Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChromaFilter:
    """A pair of filters along one axis on which chroma has half as many samples as luma.

    All taps are binary fractions, so that exact integers stay exact in float32.

    Attributes:
        even: taps that give luma position 2k, over chroma samples k - 1, k and k + 1.
        odd: taps that give luma position 2k + 1, over the same.
        down: taps that give chroma sample k, over luma positions from 2k + ``start`` on.
        start: offset of the first of them.
    """

    even: tuple[float, float, float]
    odd: tuple[float, float, float]
    down: tuple[float, ...]
    start: int


# Chroma lies midway between two luma samples: Cohen-Daubechies-Feauveau 1.3.
CENTRED = ChromaFilter((1 / 8, 1, -1 / 8), (-1 / 8, 1, 1 / 8), (1 / 2, 1 / 2), 0)
# Chroma lies on every other luma sample: CDF 5/3; enlarging is linear.
COSITED = ChromaFilter((0, 1, 0), (0, 1 / 2, 1 / 2), (-1 / 8, 2 / 8, 6 / 8, 2 / 8, -1 / 8), -2)


def filter_for(cosited: bool) -> ChromaFilter:
    """The filters for an axis by its siting (``PlaneFormat.cosited``)."""
    return COSITED if cosited else CENTRED


def samples_of(planes: Sequence[NDArray[Any]], fmt: PlaneFormat) -> Samples:
    """Planes stacked at luma size.

    Args:
        planes: Y, U, V, or R, G, B, or one plane of luma, each (H, W) or the chroma size that goes with it; integers.

    Returns:
        (1, 3, H, W), of grey (1, 1, H, W), still in samples. Exact: float32 holds integers times the filters' taps.
    """
    expected = 1 if fmt.matrix == "grey" else 3
    if len(planes) != expected:
        raise ValueError(f"{fmt.matrix} has {expected} planes, not {len(planes)}")
    height, width = planes[0].shape
    chroma_size = fmt.chroma_size(height, width)
    for plane in planes[1:]:
        if tuple(plane.shape) != chroma_size:
            raise ValueError(f"luma of {height}x{width} needs chroma of {chroma_size}, not {tuple(plane.shape)}")
    samples = np.empty((1, expected, height, width), np.float32)
    samples[0, 0] = planes[0]
    for target, plane in zip(samples[0, 1:], planes[1:], strict=True):
        chroma = plane.astype(np.float32)
        # Down first: an axis is doubled as the first one, of the transposed plane where need be.
        if fmt.subsample[0] == 2:
            chroma = _doubled(chroma, height, fmt.cosited[0])
        if fmt.subsample[1] == 2:
            chroma = _doubled(chroma.T, width, fmt.cosited[1]).T
        target[...] = chroma
    return samples


def _doubled(chroma: Samples, size: int, cosited: bool) -> Samples:
    """Up by two along the first axis, to ``size`` = 2 m or 2 m - 1 samples."""
    after = np.concatenate([chroma[1:], chroma[-1:]])
    taps, full = filter_for(cosited), np.empty((2 * len(chroma), chroma.shape[1]), np.float32)
    if cosited:
        full[::2], full[1::2] = chroma, (chroma + after) * np.float32(taps.odd[2])
    else:
        slope = (after - np.concatenate([chroma[:1], chroma[:-1]])) * np.float32(taps.odd[2])
        full[::2], full[1::2] = chroma - slope, chroma + slope
        if size % 2:
            full[-2] = chroma[-1]
    return full[:size]
