"""Hold the planes of a frame in the memory of a GPU, where decoder, network and encoder exchange them.

No CUDA library is used: memory is exchanged by DLPack, which numpy, torch and PyAV support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch, which videos on the CPU may do without
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DevicePlanes:
    """The planes of one frame in the memory of a device, 4:2:0 with U and V interleaved.

    From the decoder: the copy is queued on the device's default stream, so another stream has to wait for that one, and
    must be done with the planes before the last reference to them is dropped, because the memory is then reused.
    For the encoder: the stream that wrote the planes has finished; they are one allocation (``frame_of``).

    Attributes:
        planes: Y (height, width) and UV (height / 2, width / 2, 2), objects with ``__dlpack__``; uint8 for ``nv12``,
            uint16 for ``p010le`` and ``p016le``. Lines may be padded. Read only.
        pix_fmt: ``nv12``, ``p010le`` or ``p016le``.
        height: rows of Y, even.
        width: columns of Y, even.
        shift: bits below the samples: a sample holds ``code << shift``. 0 for ``nv12``, 6 for ``p010le``, 4 where
            ``p016le`` holds 12 bits.
    """

    planes: tuple[Any, ...]
    pix_fmt: str
    height: int
    width: int
    shift: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in the planes."""
        return self.height * self.width * 3 // 2 * (1 if self.pix_fmt == "nv12" else 2)

    def separated(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views of Y, U and V on the device, uint8 or, unshifted, int16."""
        import torch
        import torch.utils.dlpack

        luma, chroma = (torch.utils.dlpack.from_dlpack(plane) for plane in self.planes)
        if self.pix_fmt != "nv12":
            # Samples lie in the upper bits, of which int16 takes the first for a sign.
            luma, chroma = (
                ((plane.view(torch.int16).int() & 0xFFFF) >> self.shift).short() for plane in (luma, chroma)
            )
        return luma, chroma[..., 0], chroma[..., 1]

    def on_host(self) -> tuple[NDArray[Any], ...]:
        """A copy of Y, U and V in memory."""
        dtype = np.uint8 if self.pix_fmt == "nv12" else np.uint16
        return tuple(np.array(plane.cpu().numpy(), order="C").view(dtype) for plane in self.separated())


def on_host(planes: Sequence[NDArray[Any]] | DevicePlanes) -> tuple[NDArray[Any], ...]:
    """Planes in memory, copied from a device if they are on one."""
    return planes.on_host() if isinstance(planes, DevicePlanes) else tuple(planes)
