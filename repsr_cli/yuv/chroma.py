"""Resample chroma between its own size and that of luma, and convert samples to integers.

Chroma is resampled by biorthogonal pairs of filters: shrinking inverts enlarging exactly, for any values. At the
borders, for n luma and m = ceil(n / 2) chroma samples on an axis:

* centred: enlarging repeats the edge sample of chroma, shrinking repeats the edge sample of luma; where n is odd, the
  last chroma sample has a single luma sample, and equals it;
* co-sited: enlarging repeats the edge sample of chroma (needed only where n is even), shrinking mirrors about the edge
  sample of luma.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsr_cli.yuv.filters import filter_for
from repsr_cli.yuv.formats import PlaneFormat


def rounded(plane: Tensor, fmt: PlaneFormat) -> NDArray[Any]:
    """Integers from (H, W) samples to which one half was added: the fraction dropped, clipped to ``[0, fmt.peak]``."""
    return integers(plane.clamp(0, fmt.peak).contiguous(), fmt).numpy().view(fmt.dtype)


def integers(samples: Tensor, fmt: PlaneFormat) -> Tensor:
    """Samples in ``[0, fmt.peak]`` as integers, fractions dropped.

    Returns:
        A CPU tensor of uint8 or, at depths above 8, int16 with the bits of uint16, for which torch has no arithmetic.
    """
    if not samples.is_cpu and fmt.depth < 16:
        return samples.to(torch.uint8 if fmt.depth == 8 else torch.int16).cpu()
    # On the CPU torch converts to bytes one by one, numpy does not: measured three times as fast.
    array = samples.cpu().numpy().astype(fmt.dtype)
    return torch.from_numpy(array if fmt.depth == 8 else array.view(np.int16))


def enlarge_chroma(chroma: Tensor, fmt: PlaneFormat, height: int, width: int) -> Tensor:
    """Chroma at the size of luma: (..., chroma size) to (..., height, width)."""
    for axis, size in ((-2, height), (-1, width)):
        if fmt.subsample[axis] == 2:
            chroma = _doubled(chroma, axis, size, fmt.cosited[axis])
    return chroma


def shrink_chroma(chroma: Tensor, fmt: PlaneFormat, axes: tuple[bool, bool] = (True, True)) -> Tensor:
    """Chroma at its own size from chroma at the size of luma; the exact inverse of ``enlarge_chroma``.

    Args:
        chroma: (..., H, W).
        fmt: its siting and subsampling.
        axes: which of the subsampled axes, (vertical, horizontal), still are at the size of luma.
    """
    for axis in (-2, -1):
        if fmt.subsample[axis] == 2 and axes[axis]:
            chroma = _halved(chroma, axis, fmt.cosited[axis])
    return chroma


def _doubled(chroma: Tensor, axis: int, size: int, cosited: bool) -> Tensor:
    """Up by two along an axis, to ``size`` = 2 m or 2 m - 1 samples."""
    dim = axis % chroma.ndim
    m = chroma.shape[dim]
    last = chroma.narrow(dim, m - 1, 1)
    after = torch.cat([chroma.narrow(dim, 1, m - 1), last], dim)
    taps = filter_for(cosited)
    if cosited:
        even, odd = chroma, (chroma + after) * taps.odd[2]
    else:
        before = torch.cat([chroma.narrow(dim, 0, 1), chroma.narrow(dim, 0, m - 1)], dim)
        slope = (after - before) * taps.odd[2]
        even, odd = chroma - slope, chroma + slope
        if size % 2:
            even = torch.cat([even.narrow(dim, 0, m - 1), last], dim)
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)


def _halved(full: Tensor, axis: int, cosited: bool) -> Tensor:
    """Down by two along an axis, to half the samples, rounded up."""
    dim = axis % full.ndim
    size = full.shape[dim]
    if size == 1:
        return full
    # Contiguous halves first: everything after runs over whole rows.
    even = full.unfold(dim, 1, 2).squeeze(-1).contiguous()
    odd = full.narrow(dim, 1, size - 1).unfold(dim, 1, 2).squeeze(-1).contiguous()
    m = even.shape[dim]
    first, last = even.narrow(dim, 0, 1), even.narrow(dim, m - 1, 1)
    if size % 2:
        # The odd sample after the last even one: that one repeated, or the one before it mirrored.
        odd = torch.cat([odd, odd.narrow(dim, m - 2, 1) if cosited else last], dim)
    taps = filter_for(cosited).down
    if not cosited:
        return even.add_(odd).mul_(taps[0])
    # Symmetric: outer x[2k-2] + near x[2k-1] + centre x[2k] + near x[2k+1] + outer x[2k+2], here in units of ``near``.
    # Mirrored about the ends: x[-1] = x[1], x[-2] = x[2] (x[0] where there is no x[2]); after the last even sample
    # x[n] = x[n-2] for even n and x[n+1] = x[n-3] for odd n.
    outer, near, centre = taps[:3]
    half = (centre / near) * even
    half.add_(odd)
    half.narrow(dim, 1, m - 1).add_(odd.narrow(dim, 0, m - 1))
    half.narrow(dim, 0, 1).add_(odd.narrow(dim, 0, 1))
    half.narrow(dim, 1, m - 1).add_(even.narrow(dim, 0, m - 1), alpha=outer / near)
    half.narrow(dim, 0, 1).add_(even.narrow(dim, 1, 1) if m > 1 else first, alpha=outer / near)
    half.narrow(dim, 0, m - 1).add_(even.narrow(dim, 1, m - 1), alpha=outer / near)
    half.narrow(dim, m - 1, 1).add_(even.narrow(dim, m - 2, 1) if size % 2 else last, alpha=outer / near)
    return half.mul_(near)
