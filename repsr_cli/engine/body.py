"""Split a network before its pixel shuffle, and shuffle its features into place.

On full-size float images, shuffling, adding the skip and rounding cost as much as a small network's convolutions. So
the body stops before the shuffle, at LR resolution: the skip is added to the features, where it touches the least
memory, and the shuffle happens while a tile's core is written.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repsr_cli.model.foreign import ForeignBody, ForeignSR
from repsr_cli.model.plain import LUMA, PlainSR

# Copying s samples side by side as one wide number; the kind of number does not matter, only its size in bytes.
_WIDE = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


class Body(nn.Module):
    """Convolutions and activations, and a linear skip past them.

    Args:
        layers: from (N, C, H, W) to (N, K, H, W).
        skip: (C, K): what each input channel adds to each output channel.
    """

    skip: Tensor

    def __init__(self, layers: nn.Sequential, skip: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("skip", skip)

    def forward(self, lr: Tensor) -> Tensor:
        """Compute the features of every LR pixel.

        Args:
            lr: (N, C, H, W).

        Returns:
            (N, H, W, K), contiguous: the K samples that an LR pixel becomes lie side by side.
        """
        return add_skip(self.layers(lr), lr, self.skip)


def add_skip(residual: Tensor, lr: Tensor, skip: Tensor) -> Tensor:
    """Add the skip to the output of a body's layers.

    Args:
        residual: (N, K, H, W), in any order in memory; may be changed.
        lr: (N, C, H, W), the layers' input.
        skip: (C, K): what each input channel adds to each output channel.

    Returns:
        (N, H, W, K), contiguous.
    """
    features = residual.permute(0, 2, 3, 1).contiguous()
    pixels = lr.permute(0, 2, 3, 1)
    # Not a matrix product: for so few channels this is as fast, and it runs in the calling thread only.
    for channel, weights in enumerate(skip):
        features.addcmul_(pixels[..., channel : channel + 1], weights)
    return features


class MixedBody(nn.Module):
    """A body whose layers run in half precision, on a CPU.

    What would lose most stays in fp32, for little: the bias of the last layer, which in a folded network is as large as
    samples, the skip, and their sum with what the layers give.

    Args:
        body: float32; left untouched.
    """

    linear: Tensor

    def __init__(self, body: Body, precision: torch.dtype) -> None:
        super().__init__()
        self.precision = precision
        self.layers = copy.deepcopy(body.layers)
        tail = self.layers[-1]
        assert isinstance(tail, nn.Conv2d), "bodies end in a convolution"
        assert tail.bias is not None, "their convolutions have a bias"
        # One matrix product adds skip and bias: for it, a channel of ones follows those of the input.
        self.register_buffer("linear", torch.cat([body.skip, tail.bias.detach()[None]]))
        tail.bias = None
        self.layers.to(dtype=precision, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, lr: Tensor) -> Tensor:
        """As ``Body.forward``; float32 in and out."""
        features = lr.to(self.precision, memory_format=torch.channels_last)
        for layer in self.layers:
            features = _prelu(features, layer.weight) if isinstance(layer, nn.PReLU) else layer(features)
        samples = features.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        pixels = torch.cat([lr, torch.ones_like(lr[:, :1])], 1).permute(0, 2, 3, 1)
        samples.view(-1, samples.shape[-1]).addmm_(pixels.reshape(-1, pixels.shape[-1]), self.linear)
        return samples


def _prelu(features: Tensor, slopes: Tensor) -> Tensor:
    """PReLU of (N, C, H, W) in channels-last order, with the bits of torch's.

    Torch's takes its numbers C at a time, fewer than a vector of half precision holds. Here it sees whole rows of the
    image: measured 27 times as fast for 16 channels, 1.3 times for 32.
    """
    n, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(n * height, width * channels)
    return F.prelu(rows, slopes.repeat(width)).view(n, height, width, channels).permute(0, 3, 1, 2)


class LumaBody(nn.Module):
    """A luma network applied to RGB: luma by the network, chroma by bicubic interpolation.

    In Y'CbCr every primary is luma plus a combination of the chroma differences, so that replacing the luma of a
    image adds one and the same number to R, G and B: no matrix is inverted.

    Args:
        net: a network with ``spec.colors == 1``.
    """

    luma: Tensor
    bicubic: Tensor

    def __init__(self, net: PlainSR) -> None:
        super().__init__()
        self.body = plain_body(net)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        self.register_buffer("bicubic", bicubic_phases(net.spec.scale))

    def forward(self, lr: Tensor) -> Tensor:
        """As ``Body.forward``: (N, 3, H, W) RGB to (N, H, W, 3 * scale**2)."""
        n, _, height, width = lr.shape
        sharp: Tensor = self.body((lr * self.luma).sum(1, keepdim=True))
        # Phases of a fixed kernel rather than F.interpolate, whose float coordinates would depend on where a tile lies.
        padded = F.pad(lr.reshape(n * 3, 1, height, width), (2, 2, 2, 2), mode="replicate")
        smooth = F.conv2d(padded, self.bicubic).reshape(n, 3, -1, height, width)
        smooth_luma = (smooth * self.luma[..., None]).sum(1)
        added = sharp.permute(0, 3, 1, 2) - smooth_luma
        return (smooth + added[:, None]).flatten(1, 2).permute(0, 2, 3, 1).contiguous()


def body_of(net: PlainSR | ForeignSR) -> nn.Module:
    """The body of an RGB network; shares its weights. K = 3 * scale**2, in pixel-shuffle order."""
    if isinstance(net, ForeignSR):
        return ForeignBody(net)
    return LumaBody(net) if net.spec.colors == 1 else plain_body(net)


def plain_body(net: PlainSR) -> Body:
    """The body of a plain network; shares its weights. K = colors * scale**2, in pixel-shuffle order."""
    colors = net.spec.colors
    return Body(net.body, torch.eye(colors).repeat_interleave(net.spec.scale**2, dim=1))


def place(features: Tensor, target: Tensor, rows: int, columns: int) -> None:
    """Shuffle the samples of one plane to their place.

    Args:
        features: (h, w, rows * columns): the samples of every LR pixel, row by row. May be a window too.
        target: (h * rows, w * columns), same type; written. May be a window of a larger plane.
        rows: samples per LR pixel, down.
        columns: samples per LR pixel, across.
    """
    h, w = features.shape[:2]
    wide = _WIDE.get(columns * features.element_size())
    if wide is not None and columns > 1 and _holds(features, columns) and _holds(target, columns):
        target.view(wide).view(h, rows, w).copy_(features.view(wide).permute(0, 2, 1))
    else:
        target.view(h, rows, w, columns).copy_(features.view(h, w, rows, columns).permute(0, 2, 1, 3))


def _holds(tensor: Tensor, columns: int) -> bool:
    """Whether groups of ``columns`` samples can be seen as one number each."""
    *outer, last = tensor.stride()
    return last == 1 and all(step % columns == 0 for step in outer) and tensor.storage_offset() % columns == 0


def bicubic_phases(scale: int) -> Tensor:
    """Bicubic enlargement by an integer as a convolution.

    Returns:
        (scale**2, 1, 5, 5): the kernel of every position inside an LR pixel, in pixel-shuffle order. Cubic convolution
        with a = -0.5 (Keys 1981), pixel centres aligned.
    """
    position = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    distance = (position[:, None] - torch.arange(-2, 3, dtype=torch.float64)).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))
    kernels = torch.einsum("iy,jx->ijyx", taps, taps)
    return kernels.reshape(scale * scale, 1, 5, 5).float()
