"""Define what a backend does: run a body over the context of a tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from repsr_cli.engine.body import add_skip
from repsr_cli.engine.tiling import Tile


class Backend(Protocol):
    """Runs a body. May be called from several threads at once."""

    def run(self, context: Tensor, tile: Tile) -> Tensor:
        """Compute what the pixels of a tile's context become.

        Args:
            context: (N, C, h, w) float32 on the CPU, in inference mode.
            tile: where the context lies in its image.

        Returns:
            (N, h, w, K): features in floating point, on any device, or finished samples as integers on the CPU: of
            luma, then of each chroma plane. Valid until the calling thread's next call.

        Raises:
            MemoryError, RuntimeError: among others where memory is short, as ``errors.lacks_memory`` finds out.
        """


# Makes a backend that computes in a precision. Engines that only know fp32 are not asked for another.
MakeBackend = Callable[[torch.dtype], Backend]

# Convolutions and activations, (N, C, H, W) to (N, K, H, W) float32. May be called from several threads at once.
Layers = Callable[[Tensor], Tensor]


class LayersBackend:
    """Runs the layers of a body by another engine, on the CPU in fp32, and adds the skip by torch.

    Args:
        layers: the body's, as the engine computes them.
    """

    def __init__(self, layers: Layers, skip: Tensor) -> None:
        self._layers = layers
        self._skip = skip

    def run(self, context: Tensor, tile: Tile) -> Tensor:
        """As ``Backend.run``."""
        return add_skip(self._layers(context.contiguous()), context, self._skip)
