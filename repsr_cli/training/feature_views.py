"""Choose which parts of a step's crops a feature distance sees, at times zoomed and rotated.

VGG's pooling halves on a fixed grid. A network that enlarges has a grid of its own, and patterns on it cost least where
both grids meet in the same way at every step: a cross-hatch in dense texture, or dots. So the place moves over all
phases of the pooling, and some steps sample the crops on another grid, as the transforms of E-LPIPS do (arXiv
1906.03973). All images of a step are seen alike. A step's view depends on nothing but the step and the seed, so that a
resumed run sees the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from repsr_cli.training.perceptual import POOLING

View = Callable[[Tensor], Tensor]

# Range of the magnification, and the largest angle (radians) either way.
ZOOM = (0.75, 1.3)
TURN = 0.3


@dataclass(frozen=True, slots=True)
class FeatureViews:
    """The views of a run.

    Attributes:
        side: side of what is seen, px; 0: the whole crop.
        crops: how many of a step's crops are seen; 0: all.
        warped: share of the steps that see them zoomed and turned.
    """

    seed: int
    side: int = 0
    crops: int = 0
    warped: float = 0.0

    def at(self, step: int, height: int, width: int) -> View:
        """The view of a step on images of (N, C, height, width); it gives (n, C, side, side)."""
        random = np.random.default_rng((self.seed, step, 1))
        if random.random() >= 1 - self.warped:
            return self._warped(random, height, width)
        return self._moved(step, height, width)

    def _moved(self, step: int, height: int, width: int) -> View:
        """A part near the middle, elsewhere in every step."""
        random = np.random.default_rng((self.seed, step))
        places = []
        for length in (height, width):
            side = self._side(length)
            slack = length - side
            first = max((slack - POOLING + 1) // 2, 0)
            start = int(random.integers(first, min(first + POOLING, slack + 1)))
            places.append(slice(start, start + side))
        part = (slice(self.crops or None), slice(None), *places)
        return lambda images: images[part]

    def _warped(self, random: np.random.Generator, height: int, width: int) -> View:
        """A part anywhere that was zoomed and turned; beyond the borders the crops are mirrored."""
        zoom = math.exp(random.uniform(math.log(ZOOM[0]), math.log(ZOOM[1])))
        angle = random.uniform(-TURN, TURN)
        tall, wide = self._side(height), self._side(width)
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        right, down = (
            random.uniform(-1, 1) * max(0.0, 1 - side / zoom / length)
            for side, length in ((wide, width), (tall, height))
        )
        # From places in the view to places in the images, both from -1 to 1 between the borders.
        placing = torch.tensor(
            [
                [cos * wide / width, -sin * tall / width, right],
                [sin * wide / height, cos * tall / height, down],
            ]
        )

        def view(images: Tensor) -> Tensor:
            seen = images[: self.crops or None]
            size = [len(seen), seen.shape[1], tall, wide]
            grid = F.affine_grid(placing.to(seen).expand(len(seen), 2, 3), size, align_corners=False)
            return F.grid_sample(seen, grid, padding_mode="reflection", align_corners=False)

        return view

    def _side(self, length: int) -> int:
        return self.side if 0 < self.side < length else length
