"""Define the training network, and fuse it into the plain network that ships.

Source: RepSR (arXiv 2205.05671): VGG-style blocks of a clean identity path and two expand-and-squeeze paths
(3x3 -> BN -> 1x1), batch statistics first, population statistics in the later training period.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from repsr_cli.model.plain import PlainSR, enlarge
from repsr_cli.model.spec import Spec


class _GlobalMean(torch.autograd.Function):
    """Mean over all processes; the gradient of a mean is the mean of the gradients."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes together, on any device.

    With one process it equals ``torch.nn.BatchNorm2d``. torch's SyncBatchNorm refuses CPU tensors. Every process must
    have the same number of pixels.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the batch's statistics in training mode, else by the population's."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(features)
        # In half precision the difference between mean square and squared mean would be lost.
        whole = features.to(torch.promote_types(features.dtype, torch.float32))
        moments = torch.cat([whole.mean((0, 2, 3)), whole.square().mean((0, 2, 3))])
        reduced: Tensor = _GlobalMean.apply(moments)  # type: ignore[no-untyped-call]
        mean, square = reduced.chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            pixels = whole.numel() / whole.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance * (pixels / (pixels - 1))).to(self.running_var.dtype), rate)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], whole, scale[:, None, None]).to(features.dtype)


class ExpandSqueeze(nn.Module):
    """One path of a block: 3x3 convolution to ``expansion`` times the channels, BN, 1x1 convolution back.

    The zero-padded 3x3 comes first, so merging the path into one 3x3 is exact at image borders too. It has no bias: BN
    would cancel it, and without BN the bias of the 1x1 does the same.

    Args:
        expansion: ratio e of the inner width.
        norm: whether BN follows the 3x3 convolution.
    """

    def __init__(self, channels: int, expansion: int, norm: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, channels * expansion, 3, padding=1, bias=False)
        self.norm = BatchNorm(channels * expansion) if norm else None
        self.squeeze = nn.Conv2d(channels * expansion, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        inner = self.expand(features)
        return self.squeeze(inner if self.norm is None else self.norm(inner))  # type: ignore[no-any-return]

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The equivalent 3x3 convolution with population statistics: weight (C, C, 3, 3), bias (C,); differentiable."""
        inner = self.expand.weight
        squeeze = self.squeeze.weight[:, :, 0, 0]
        assert self.squeeze.bias is not None
        bias = self.squeeze.bias
        if self.norm is not None:
            assert self.norm.running_var is not None
            assert self.norm.running_mean is not None
            scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
            inner = inner * scale[:, None, None, None]
            bias = bias + squeeze @ (self.norm.bias - self.norm.running_mean * scale)
        return (squeeze @ inner.flatten(1)).view(-1, *inner.shape[1:]), bias


class RepBlock(nn.Module):
    """``out = x + P1(x) + P2(x)``: a clean identity path and two expand-and-squeeze paths.

    Args:
        expansion: inner width of a path over ``channels``.

    Source: RepSR fig. 2.
    """

    def __init__(self, channels: int, expansion: int = 2, norm: bool = True) -> None:
        super().__init__()
        self.paths = nn.ModuleList(ExpandSqueeze(channels, expansion, norm) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, through the branches."""
        first, second = self.paths
        return features + first(features) + second(features)  # type: ignore[no-any-return]

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The equivalent 3x3 convolution with population statistics: weight (C, C, 3, 3), bias (C,); differentiable."""
        first, second = (path.kernel() for path in self.paths if isinstance(path, ExpandSqueeze))
        centre = torch.eye(len(first[0]), dtype=first[0].dtype, device=first[0].device)
        return first[0] + second[0] + F.pad(centre[..., None, None], (1, 1, 1, 1)), first[1] + second[1]


class RepSR(nn.Module):
    """The training network: head 3x3, M blocks with PReLU, tail 3x3, pixel shuffle, nearest skip.

    Two forms are equivalent: ``forward`` through all branches, and ``forward_merged`` with one convolution per block,
    which needs population statistics and costs as much as the shipped network.

    Args:
        spec: size of the plain network it becomes.
        expansion: inner width of a path over the channels.
    """

    def __init__(self, spec: Spec, expansion: int = 2, norm: bool = True) -> None:
        super().__init__()
        self.spec, self.expansion, self.norm = spec, expansion, norm
        c = spec.channels
        self.head = nn.Conv2d(spec.colors, c, 3, padding=1)
        self.blocks = nn.ModuleList(RepBlock(c, expansion, norm) for _ in range(spec.blocks))
        self.activations = nn.ModuleList(nn.PReLU(c) for _ in range(spec.blocks + 1))
        self.tail = nn.Conv2d(c, spec.colors * spec.scale**2, 3, padding=1)
        # Whether BN uses population statistics for good.
        self.bn_frozen = not norm

    def norms(self) -> Iterator[BatchNorm]:
        """Every BN layer."""
        return (module for module in self.modules() if isinstance(module, BatchNorm))

    def freeze_bn(self) -> None:
        """Switch BN to population statistics for good; its affine part and everything else keep training."""
        self.bn_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``, but frozen BN stays frozen."""
        super().train(mode)
        if self.bn_frozen:
            for norm in self.norms():
                norm.eval()
        return self

    def _run(self, lr: Tensor, merged: bool) -> Tensor:
        features = self.activations[0](self.head(lr))
        for block, activation in zip(self.blocks, self.activations[1:], strict=True):
            assert isinstance(block, RepBlock)
            if merged:
                with torch.autocast(lr.device.type, enabled=False):  # round the kernel once, after merging
                    kernel, bias = block.kernel()
                features = F.conv2d(features, kernel, bias, padding=1)
            else:
                features = block(features)
            features = activation(features)
        return enlarge(self.tail(features), lr, self.spec.scale)

    def forward(self, lr: Tensor) -> Tensor:
        """(N, colors, H, W) in [0, 1] -> (N, colors, H * scale, W * scale), not clamped, through all branches."""
        return self._run(lr, merged=False)

    def forward_merged(self, lr: Tensor) -> Tensor:
        """As ``forward`` under population statistics, one convolution per block, gradients through the merge."""
        if not self.bn_frozen:
            raise RuntimeError("the merged form needs frozen BN: with batch statistics, a block is not linear")
        return self._run(lr, merged=True)


@torch.no_grad()
def fuse(net: RepSR) -> PlainSR:
    """The plain network equivalent to ``net`` under its population statistics.

    Args:
        net: any training network; left untouched.

    Returns:
        A new network on the same device and of the same type, merged in float64.

    Source: RepSR sec. 3; equivalent at image borders too, since each path pads before its 1x1.
    """
    plain = PlainSR(net.spec).to(net.head.weight.device, torch.float64)
    blocks = (copy.deepcopy(block).double() for block in net.blocks)
    inner = [block.kernel() for block in blocks if isinstance(block, RepBlock)]
    state: dict[str, Any] = {}
    for number, (weight, bias) in enumerate([net.head.parameters(), *inner, net.tail.parameters()]):
        state |= {f"body.{2 * number}.weight": weight, f"body.{2 * number}.bias": bias}
    for number, activation in enumerate(net.activations):
        state[f"body.{2 * number + 1}.weight"] = activation.weight
    plain.load_state_dict(state)
    return plain.to(net.head.weight.dtype).eval()
