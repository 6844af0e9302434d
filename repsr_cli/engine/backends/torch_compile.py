"""Compile a network with torch.compile or Torch-TensorRT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from repsr_cli.engine.backends.quiet_import import quiet_import

# Sizes that one network may be compiled for: tiles at borders and corners have sizes of their own.
_SIZES = 64


def compiled(net: nn.Module, engine: str, precision: torch.dtype) -> nn.Module:
    """A network as a compiler for torch runs it, or the network itself for other engines.

    It is compiled when it first sees images of a size, which takes seconds to minutes.

    Args:
        net: on its device, in its precision.
        engine: ``compile``, ``tensorrt`` or another.
    """
    if engine not in ("compile", "tensorrt"):
        return net
    quiet_import("torch._dynamo")  # which imports other engines

    torch._dynamo.config.recompile_limit = _SIZES
    settings: dict[str, Any] = {}
    if engine == "tensorrt":
        settings = {"backend": "torch_tensorrt", "options": {"enabled_precisions": {precision}}}
    result: nn.Module = torch.compile(net, dynamic=False, **settings)  # type: ignore[assignment]
    return result
