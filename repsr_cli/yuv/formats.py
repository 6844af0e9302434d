"""Describe what the integers in an image's planes mean: matrix, range, depth, subsampling, siting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Matrix = Literal["rgb", "grey", "bt709", "bt601", "fcc", "smpte240m", "bt2020"]
Siting = Literal["left", "center", "topleft"]


@dataclass(frozen=True, slots=True)
class PlaneFormat:
    """How planes of integers stand for colour.

    Attributes:
        matrix: ``rgb`` for planes R, G, B in this order, ``grey`` for one plane of luma, else the YCbCr matrix of
            planes Y, U, V.
        full_range: True if samples span 0 .. 2**depth - 1, False for the video range (16-235 and 16-240 at 8 bit).
        depth: significant bits of a sample, 8 to 16; arrays are uint8 at 8, uint16 above.
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
        """The largest code value."""
        return int(2**self.depth - 1)

    @property
    def cosited(self) -> tuple[bool, bool]:
        """Whether chroma sits on luma samples, (vertical, horizontal); meaningless on an axis not subsampled."""
        return self.siting == "topleft", self.siting in ("left", "topleft")

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """Type of the arrays that hold samples."""
        return np.uint8 if self.depth == 8 else np.uint16

    def plane_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """(height, width) of each plane, given that of luma: one plane of grey, else three."""
        chroma = self.chroma_size(height, width)
        return ((height, width),) if self.matrix == "grey" else ((height, width), chroma, chroma)

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of a chroma plane beside a luma plane of (height, width): rounded up, as codecs do."""
        v, h = self.subsample
        return -(-height // v), -(-width // h)
