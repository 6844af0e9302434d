"""Images and frames as arrays: what ``import repsr_cli`` offers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model import zoo
from repsr_cli.model.plain import PlainSR
from repsr_cli.upscale.constant_regions import upscale_flat


def load(
    network: str | Path | None = None,
    scale: float | None = None,
    *,
    family: Literal["clean", "video"] = "clean",
    device: str = "auto",
    precision: str = "auto",
    tile: str | int = "auto",
    threads: int | None = None,
) -> Upscaler:
    """A network made ready to enlarge.

    Args:
        network: ``fast``, ``balanced``, ``best``, a name that ``repsr models`` lists, or a file; None: the default.
        scale: wanted factor; the smallest trained one that is at least as large is taken. None: 4.
        family: ``clean`` for images, ``video`` for frames of compressed videos.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        tile: ``auto``, ``off`` or a size in LR pixels; the result is the same.
        threads: CPU threads; None: torch's own choice.

    Raises:
        CheckpointError: no such network.
        DeviceError: no such device.
        UsageError: an argument makes no sense.
    """
    weight = zoo.resolve(None if network is None else str(network), scale, family)
    return Upscaler(zoo.load(weight), device, precision, tile, threads)


def upscale_image(pixels: NDArray[Any], upscaler: Upscaler) -> NDArray[Any]:
    """Enlarge one image.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3), uint8, uint16 or float32 in [0, 1], grey or RGB.
        upscaler: from ``load``.

    Returns:
        The same shape but for H and W times ``upscaler.scale``, and the same type. Grey stays grey.

    Raises:
        ValueError: another shape or type.
        DeviceError: out of memory at the smallest tile, or results that are not finite.
    """
    if pixels.dtype.name not in ("uint8", "uint16", "float32"):
        raise ValueError(f"expected uint8, uint16 or float32, got {pixels.dtype}")
    image = pixels[..., None] if pixels.ndim == 2 else pixels
    sr = to_pixels(upscale_flat(upscaler, to_tensor(image)), pixels.dtype, grey=image.shape[-1] == 1)
    return sr[..., 0] if pixels.ndim == 2 else sr


def upscale_frames(frames: Iterable[NDArray[Any]], upscaler: Upscaler) -> Iterator[NDArray[Any]]:
    """Enlarge frame after frame, one held at a time.

    Args:
        frames: arrays as ``upscale_image`` takes them.
        upscaler: from ``load``, best with ``family="video"``.

    Yields:
        An enlarged frame for every frame, in order.
    """
    for frame in frames:
        yield upscale_image(frame, upscaler)


def measure_speed(net: PlainSR, device: str = "auto", size: tuple[int, int] = (135, 240)) -> float:
    """Millions of LR pixels per second that a network enlarges here, the better of two runs after one to warm up.

    Args:
        net: the network.
        device: as in ``load``.
        size: (height, width) of the image, LR px.
    """
    upscaler = Upscaler(net, device)
    lr = torch.rand(1, 3, *size)
    upscaler(lr)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        upscaler(lr)
        seconds.append(time.perf_counter() - started)
    return round(size[0] * size[1] / min(seconds) / 1e6, 3)
