"""Make the backend that runs a folded network, by the engine chosen."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from repsr_cli.engine.backends.backend import LayersBackend, MakeBackend
from repsr_cli.engine.backends.eager import TorchBackend
from repsr_cli.engine.backends.ncnn import ncnn_layers
from repsr_cli.engine.backends.onnxruntime import onnxruntime_layers
from repsr_cli.engine.backends.openvino_graphs import OpenVinoGraphs, compiles
from repsr_cli.engine.backends.registry import engine_name
from repsr_cli.engine.colour_folding import Folded
from repsr_cli.engine.settings import RunSettings, precision_name
from repsr_cli.engine.side_by_side import tiles_at_once
from repsr_cli.engine.tiling import Tile
from repsr_cli.yuv.formats import PlaneFormat

_LAYERS = {"onnxruntime": onnxruntime_layers, "ncnn": ncnn_layers}


def folded_backend(folded: Folded, fmt: PlaneFormat, settings: RunSettings) -> tuple[MakeBackend, str]:
    """What runs a folded network.

    Returns:
        What makes the backend for a precision, and what computes: ``torch``, or another engine's name and version.
        OpenVINO does not support all formats: torch computes the others, which is reported.

    Raises:
        ImportError: the engine is not installed.
    """
    engine, name, threads = settings.engine, engine_name(settings.engine), settings.thread_count
    if engine == "openvino" and compiles(folded.parts):
        return lambda precision: _OpenVino(OpenVinoGraphs(folded, fmt, threads, precision_name(precision))), name
    if engine == "openvino":
        scale = folded.parts[0].rows
        settings.notify(f"{name} does not support chroma of this siting at x{scale}: torch computes the frames")
        name = "torch"
    elif engine in _LAYERS:
        each = max(threads // tiles_at_once(threads), 1)
        backend = LayersBackend(_LAYERS[engine](folded.body.layers, each), folded.body.skip)
        return lambda _precision: backend, name
    return partial(TorchBackend, folded.body, settings.device, engine=engine), name


class _OpenVino:
    """Runs graphs on tiles that are torch tensors."""

    def __init__(self, graphs: OpenVinoGraphs) -> None:
        self._graphs = graphs

    def run(self, context: Tensor, tile: Tile) -> Tensor:
        """As ``Backend.run``, for N = 1: finished samples, uint8, or int16 at depths above 8."""
        found = self._graphs.run(context.numpy(), tile)
        return torch.from_numpy(found if found.dtype == np.uint8 else found.view(np.int16))
