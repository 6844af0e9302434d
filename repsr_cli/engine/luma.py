"""A network that knows luma only, made to take and give RGB. Floor 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repsr_cli.model.plain import PlainSR

# ITU-R BT.601-7 2.5.1, full range: the luma that one-channel networks are trained on.
RED, GREEN, BLUE = 0.299, 0.587, 0.114


class LumaSR(nn.Module):
    """Enlarges luma by the network and chroma by bicubic interpolation.

    In Y'CbCr every primary is luma plus a combination of the chroma differences, so that replacing the luma of a
    picture adds one and the same number to R, G and B: no matrix is inverted.

    Args:
        net: a network with ``spec.colors == 1``.
    """

    weights: Tensor
    bicubic: Tensor

    def __init__(self, net: PlainSR) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("weights", torch.tensor([RED, GREEN, BLUE]).view(1, 3, 1, 1))
        self.register_buffer("bicubic", bicubic_phases(net.spec.scale))

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge.

        Args:
            lr: (N, 3, H, W) RGB.

        Returns:
            (N, 3, H * scale, W * scale), not clamped.
        """
        luma = (lr * self.weights).sum(1, keepdim=True)
        n, _, h, w = lr.shape
        # Phases of a fixed kernel rather than F.interpolate, whose float coordinates would depend on where a tile lies.
        padded = F.pad(lr.reshape(n * 3, 1, h, w), (2, 2, 2, 2), mode="replicate")
        enlarged = F.pixel_shuffle(F.conv2d(padded, self.bicubic), self.net.spec.scale)
        enlarged = enlarged.reshape(n, 3, h * self.net.spec.scale, w * self.net.spec.scale)
        sharp: Tensor = self.net(luma)
        return enlarged + (sharp - (enlarged * self.weights).sum(1, keepdim=True))


def bicubic_phases(scale: int) -> Tensor:
    """Bicubic enlargement by an integer as a convolution.

    Returns:
        (scale**2, 1, 5, 5): the kernel of every position inside an LR pixel, in pixel-shuffle order. Cubic convolution
        with a = -0.5 (Keys 1981), pixel centres aligned.
    """
    position = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    distance = (position[:, None] - torch.arange(-2, 3, dtype=torch.float64)).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros(())))
    kernels = torch.einsum("iy,jx->ijyx", taps, taps)
    return kernels.reshape(scale * scale, 1, 5, 5).float()
