"""Run a folded network with OpenVINO on tiles that are torch tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repsr_cli.engine.backends.openvino_graphs import OpenVinoGraphs
from repsr_cli.engine.plane_folding import FoldedArrays
from repsr_cli.engine.settings import precision_name
from repsr_cli.engine.tiling import Tile
from repsr_cli.yuv.formats import PlaneFormat


class OpenVinoBackend:
    """Runs a folded network up to the pixel shuffle, on the CPU.

    Args:
        folded: the network; every part finished or crossing.
        fmt: the planes to write.
        threads: CPU threads.
        precision: of convolutions, fp32 or bf16.

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, folded: FoldedArrays, fmt: PlaneFormat, threads: int, precision: torch.dtype) -> None:
        self._graphs = OpenVinoGraphs(folded, fmt, threads, precision_name(precision))

    def run(self, context: Tensor, tile: Tile) -> Tensor:
        """As ``Backend.run``, for N = 1: finished samples, uint8, or int16 at depths above 8."""
        found = self._graphs.run(context.numpy(), tile)
        return torch.from_numpy(found if found.dtype == np.uint8 else found.view(np.int16))
