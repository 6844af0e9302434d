"""Maintain the exponential moving average of a network, and measure BN statistics for given weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from repsr_cli.model.repsr import RepSR


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """``ema = decay * ema + (1 - decay) * net``, parameters only: statistics are measured, not averaged."""
    get_ema_multi_avg_fn(decay)(list(ema.parameters()), list(net.parameters()), None)  # type: ignore[no-untyped-call]


@torch.no_grad()
def copy_weights(target: nn.Module, net: nn.Module) -> None:
    """Make ``target`` equal to ``net``: parameters, buffers, and whether BN is frozen."""
    target.load_state_dict(net.state_dict())
    if isinstance(net, RepSR) and isinstance(target, RepSR) and net.bn_frozen and not target.bn_frozen:
        target.freeze_bn()


@torch.no_grad()
def measure_statistics(net: RepSR, batches: Iterable[Tensor]) -> None:
    """Replace a network's population statistics by those of its present weights.

    Statistics belong to the weights they were measured with. So before the switch the average needs this for every
    validation, and at the switch the raw network needs it once.

    Args:
        net: any training network whose BN is not frozen; its mode is kept.
        batches: LR crops, each (N, 3, H, W); their statistics are averaged with equal weight.
    """
    if net.bn_frozen:
        raise RuntimeError("statistics of a frozen network are constants")
    mode, momenta = net.training, [norm.momentum for norm in net.norms()]
    for norm in net.norms():
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for lr in batches:
        net(lr)
    for norm, momentum in zip(net.norms(), momenta, strict=True):
        norm.momentum = momentum
    net.train(mode)
