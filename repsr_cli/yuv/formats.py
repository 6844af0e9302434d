"""What the numbers in an image's planes mean: matrix, range, depth, subsampling, siting. Floor 2, numpy only.

Chroma is resampled by biorthogonal pairs, so that enlarging it to luma size and shrinking it back is the identity
(measured on any image, not only smooth ones):

* an axis whose samples sit between two luma samples ("centred"): down ``(1, 1) / 2``, up ``(-1, 1, 8, 8, 1, -1) / 8``
  (Cohen-Daubechies-Feauveau 1.3), borders mirrored with the edge repeated;
* an axis whose samples sit on every other luma sample ("co-sited"): up ``(1, 2, 1) / 2``, that is, linear,
  down ``(-1, 2, 6, 2, -1) / 8`` (CDF 5/3), borders mirrored about the edge sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = Literal["rgb", "grey", "bt709", "bt601", "fcc", "smpte240m", "bt2020"]
Siting = Literal["left", "center", "topleft"]

# ITU-R BT.709-6 3.2, BT.601-7 2.5.1, FCC 73.682, SMPTE 240M, BT.2020-2 table 4: the luma weights of red and blue.
LUMA_WEIGHTS: dict[str, tuple[float, float]] = {
    "bt709": (0.2126, 0.0722),
    "bt601": (0.299, 0.114),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True)
class PlaneFormat:
    """How planes of integers stand for colour.

    Attributes:
        matrix: ``rgb`` for planes R, G, B in this order, ``grey`` for one plane of luma, else the YCbCr matrix of
            planes Y, U, V.
        full_range: True if samples span 0 .. 2**depth - 1, False for the video range (16-235 and 16-240 at 8 bit).
        depth: significant bits of a code, 8 to 16; arrays are uint8 at 8, uint16 above.
        subsample: luma samples per chroma sample, (vertical, horizontal): (2, 2) is 4:2:0, (1, 2) is 4:2:2.
        siting: where chroma samples sit. ``left``: co-sited horizontally, centred vertically (MPEG-2, H.264).
            ``center``: centred on both axes (JPEG, MPEG-1). ``topleft``: co-sited on both (BT.2020).
    """

    matrix: Matrix
    full_range: bool
    depth: int
    subsample: tuple[int, int] = (1, 1)
    siting: Siting = "left"

    @property
    def peak(self) -> int:
        """The largest code."""
        return int(2**self.depth - 1)

    @property
    def cosited(self) -> tuple[bool, bool]:
        """Whether chroma sits on luma samples, (vertical, horizontal); meaningless on an axis not subsampled."""
        return self.siting == "topleft", self.siting in ("left", "topleft")

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """What arrays of samples are made of."""
        return np.uint8 if self.depth == 8 else np.uint16

    def plane_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Sizes of all planes, luma's being (height, width): one of grey, else three."""
        chroma = self.chroma_size(height, width)
        return ((height, width),) if self.matrix == "grey" else ((height, width), chroma, chroma)

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of a chroma plane beside a luma plane of (height, width): rounded up, as codecs do."""
        v, h = self.subsample
        return -(-height // v), -(-width // h)


def rgb_from_samples(fmt: PlaneFormat) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The affine map from samples to RGB.

    Args:
        fmt: the meaning of the planes; of ``grey`` only the first column and row are used by callers.

    Returns:
        (matrix (3, 3), offset (3,)) such that ``rgb = matrix @ samples + offset`` with samples ``(Y, U, V)`` (or
        ``(R, G, B)``) and RGB nominally in [0, 1]. Codes outside the nominal range give RGB outside [0, 1]; nothing is
        clipped, so that the map can be undone.

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
    """The affine map from RGB to samples: the inverse of ``rgb_from_codes``; for ``grey`` the BT.709 luma.

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
