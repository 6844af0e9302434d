"""Run a body with torch, layer by layer."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from repsr_cli.engine.backends.torch_compile import compiled
from repsr_cli.engine.body import Body, MixedBody
from repsr_cli.engine.tiling import Tile


class TorchBackend:
    """Runs a body with torch, or with what a compiler for torch makes of it.

    Args:
        body: float32 module from (N, C, H, W) to features (N, H, W, K); copied.
        engine: ``compile`` or ``tensorrt`` for a compiled body.
    """

    def __init__(self, body: nn.Module, device: torch.device, precision: torch.dtype, engine: str = "torch") -> None:
        self._device = device
        # On a CPU, conversions are a part of the network.
        mixed = isinstance(body, Body) and device.type == "cpu" and precision is not torch.float32
        self._precision = torch.float32 if mixed else precision
        net = MixedBody(body, precision) if mixed else copy.deepcopy(body)  # type: ignore[arg-type]
        net.eval().requires_grad_(False)
        if not mixed:
            net.to(device=device, dtype=precision, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net = compiled(net, engine, precision)

    def run(self, context: Tensor, tile: Tile) -> Tensor:
        """As ``Backend.run``; features on the device, on a CPU in fp32, else in the precision."""
        with full_precision(self._device, self._precision):
            placed = context.to(self._device, self._precision, memory_format=torch.channels_last)
            features: Tensor = self._net(placed)
            return features


def full_precision(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Make cuDNN compute fp32 in fp32: by default it rounds operands to ten bits."""
    if device.type == "cuda" and precision is torch.float32:
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
    return nullcontext()
