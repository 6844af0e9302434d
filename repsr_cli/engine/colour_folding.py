"""Make the network between planes from folded weights (``repsr_cli.engine.plane_folding``), for torch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from repsr_cli.engine.body import Body
from repsr_cli.engine.plane_folding import Convolution, FoldedArrays, fold_arrays
from repsr_cli.model.plain import PlainSR
from repsr_cli.yuv.formats import PlaneFormat


@dataclass(frozen=True, slots=True)
class Folded(FoldedArrays):
    """A network from planes to planes.

    Attributes:
        body: the same weights as a module, from (N, planes in, H, W) to (N, H, W, K).
    """

    body: Body


def folds(net: nn.Module, fmt_out: PlaneFormat) -> TypeGuard[PlainSR]:
    """Whether ``fold`` applies: plain RGB networks, and samples that half precision can hold."""
    return isinstance(net, PlainSR) and net.spec.colors == 3 and fmt_out.depth < 16


def fold(net: nn.Module, fmt_in: PlaneFormat, fmt_out: PlaneFormat, crossing: bool = True) -> Folded:
    """Fold plane formats into a network.

    Args:
        net: a network for which ``folds`` says so; left untouched.
        crossing: whether parts may be crossing; otherwise such chroma is written at luma size, for a filter to shrink.
    """
    assert isinstance(net, PlainSR), "only plain networks fold"
    convolutions = [(_numbers(each.weight), _numbers(each.bias)) for each in net.convolutions]
    slopes = [_numbers(each.weight) for each in net.activations]
    folded = fold_arrays(convolutions, slopes, net.spec.scale, (fmt_in, fmt_out), crossing)
    layers = copy.deepcopy(net.body).requires_grad_(False)
    # A network of one convolution would have its only one folded at both ends; PlainSR has two at least.
    layers[0], layers[-1] = _convolution(folded.convolutions[0]), _convolution(folded.convolutions[-1])
    body = Body(layers, torch.from_numpy(folded.skip))
    return Folded(folded.convolutions, folded.slopes, folded.skip, folded.black, folded.gain, folded.parts, body)


def _numbers(parameter: torch.Tensor | None) -> NDArray[np.float32]:
    assert parameter is not None, "PlainSR's convolutions have a bias"
    return np.asarray(parameter.detach().cpu().float().numpy())


def _convolution(numbers: Convolution) -> nn.Conv2d:
    weight, bias = numbers
    layer = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1).requires_grad_(False)
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
    return layer
