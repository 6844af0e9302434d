"""Judge patches: a small U-Net with spectral normalisation, for adversarial training.

Source: the discriminator's shape is that of Real-ESRGAN (arXiv 2107.10833, section 3.3), narrower.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Says of each pixel how real its surroundings look.

    Args:
        channels: width of the first layer; three times halved in size, it doubles.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)) for a, b in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(b, a, 3, padding=1, bias=False))
            for a, b in reversed(list(itertools.pairwise(widths)))
        )
        self.refine = spectral_norm(nn.Conv2d(widths[0], widths[0], 3, padding=1, bias=False))
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Scores before the sigmoid.

        Args:
            rgb: (N, 3, H, W) in [0, 1], both sides multiples of 8.

        Returns:
            (N, 1, H, W).
        """
        features = F.leaky_relu(self.first(rgb), 0.2)
        skips = []
        for layer in self.down:
            skips.append(features)
            features = F.leaky_relu(layer(features), 0.2)
        for layer in self.up:
            features = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = F.leaky_relu(layer(features), 0.2) + skips.pop()
        return self.last(F.leaky_relu(self.refine(features), 0.2))  # type: ignore[no-any-return]


def generator_loss(scores: Tensor) -> Tensor:
    """How far the scores of a network's images are from those of real ones: non-saturating, 0 at best."""
    return F.softplus(-scores).mean()


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """How badly real images are distinguished from a network's: 0 at best, 2 ln 2 when guessing."""
    return F.softplus(-real).mean() + F.softplus(generated).mean()
