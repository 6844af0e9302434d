"""Convert between samples of a plane format and RGB: affine maps and their luma weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from repsr_cli.yuv.formats import PlaneFormat

# ITU-R BT.709-6 3.2, BT.601-7 2.5.1, FCC 73.682, SMPTE 240M, BT.2020-2 table 4: the luma weights of red and blue.
LUMA_WEIGHTS: dict[str, tuple[float, float]] = {
    "bt709": (0.2126, 0.0722),
    "bt601": (0.299, 0.114),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}


def rgb_from_samples(fmt: PlaneFormat) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map from samples to RGB.

    Args:
        fmt: the meaning of the planes; of ``grey`` only the first column and row are used by callers.

    Returns:
        (matrix (3, 3), offset (3,)) such that ``rgb = matrix @ samples + offset`` with samples ``(Y, U, V)`` (or
        ``(R, G, B)``) and RGB nominally in [0, 1]. Samples outside the nominal range give RGB outside [0, 1]; nothing
        is clipped, so that the map can be inverted.

    Source: ITU-R BT.709-6 sec. 3 and 4; the scaling of ranges at depth n is (219, 224) * 2**(n - 8).
    """
    unit = float(2 ** (fmt.depth - 8))
    luma_scale, luma_zero = (fmt.peak, 0.0) if fmt.full_range else (219 * unit, 16 * unit)
    chroma_scale, chroma_zero = (float(fmt.peak) if fmt.full_range else 224 * unit), 128 * unit
    if fmt.matrix == "rgb":
        return np.eye(3) / luma_scale, np.full(3, -luma_zero / luma_scale)
    if fmt.matrix == "grey":
        return np.array([[1.0, 0, 0]] * 3) / luma_scale, np.full(3, -luma_zero / luma_scale)
    kr, kb = LUMA_WEIGHTS[fmt.matrix]
    kg = 1 - kr - kb
    from_normal = np.array(
        [
            [1, 0, 2 * (1 - kr)],
            [1, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg],
            [1, 2 * (1 - kb), 0],
        ]
    )
    scale = np.array([1 / luma_scale, 1 / chroma_scale, 1 / chroma_scale])
    zero = np.array([luma_zero, chroma_zero, chroma_zero])
    matrix = from_normal * scale
    return matrix, -matrix @ zero


def samples_from_rgb(fmt: PlaneFormat) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map from RGB to samples: the inverse of ``rgb_from_samples``; for ``grey`` the BT.709 luma.

    Returns:
        (matrix (3, 3), offset (3,)) such that ``samples = matrix @ rgb + offset``, not rounded.
    """
    if fmt.matrix == "grey":
        # A grey image enters the network as R = G = B, and its luma must come back: weights that sum to one.
        kr, kb = LUMA_WEIGHTS["bt709"]
        matrix, offset = rgb_from_samples(fmt)
        scale = 1 / matrix[0, 0]
        return np.array([[kr, 1 - kr - kb, kb], [0, 0, 0], [0, 0, 0]]) * scale, np.array([-offset[0] * scale, 0, 0])
    matrix, offset = rgb_from_samples(fmt)
    inverse = np.linalg.inv(matrix).astype(np.float64)
    return inverse, -inverse @ offset
