"""Degrade images for training: motion, black bars, blur, other downscalers, noise, JPEG.

Mild by design: the aim is what cameras and encoders do to ordinary videos. Everything is drawn from a given generator,
so a degraded image is a function of its seed.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
T = TypeVar("T")

Kernel = Literal["bicubic", "bilinear", "box"]
DOWNSCALERS: tuple[Kernel, ...] = ("bicubic",) * 8 + ("bilinear", "box")  # each equally likely
KERNELS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "box": Image.Resampling.BOX}


@dataclass(frozen=True, slots=True)
class Degradation:
    """Steps of a degradation, in the order they are applied; 0 leaves a step out.

    Attributes:
        blur: standard deviation of a Gaussian on HR, HR px.
        kernel: the antialiased downscaler.
        noise: standard deviation of Gaussian noise on LR, samples of 8 bit, new in every frame.
        grey_noise: whether the noise is the same in all channels.
        jpeg: JPEG quality of every LR frame.
        codec: video encoder of the LR frames; empty: none.
        crf: its quality.
        preset: its preset.
    """

    blur: float
    kernel: Kernel
    noise: float
    grey_noise: bool
    jpeg: int
    codec: Literal["", "libx264", "libx265"]
    crf: int
    preset: Literal["veryfast", "medium"]


def draw_degradation(random: Generator) -> Degradation:
    """Draw a degradation from the distribution that ``video`` models are trained on."""

    def one_of(*options: T) -> T:
        return options[int(random.integers(len(options)))]

    return Degradation(
        blur=float(random.uniform(0.2, 1.2)) if random.random() < 0.1 else 0.0,
        kernel=one_of(*DOWNSCALERS),
        noise=float(random.uniform(0.5, 5)) if random.random() < 0.15 else 0.0,
        grey_noise=bool(random.random() < 0.4),
        jpeg=int(random.integers(60, 96)) if random.random() < 0.1 else 0,
        codec=one_of("libx264", "libx264", "libx264", "libx265", "libx265", ""),
        crf=int(random.integers(18, 36)),
        preset=one_of("veryfast", "medium"),
    )


def degrade_still(hr: Pixels, scale: int, degradation: Degradation, random: Generator) -> Pixels:
    """All steps but the codec, on one frame.

    Args:
        hr: (height, width, 3), both multiples of the scale.
        scale: enlargement factor to be undone.
        degradation: what to do.
        random: of the noise.

    Returns:
        lr: (height / scale, width / scale, 3).
    """
    image = Image.fromarray(hr)
    if degradation.blur:
        image = image.filter(ImageFilter.GaussianBlur(degradation.blur))
    size = (hr.shape[1] // scale, hr.shape[0] // scale)
    lr = np.asarray(image.resize(size, KERNELS[degradation.kernel]))
    if degradation.noise:
        shape = (*lr.shape[:2], 1 if degradation.grey_noise else 3)
        noisy = lr + random.normal(0, degradation.noise, shape)
        lr = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if degradation.jpeg:
        file = io.BytesIO()
        Image.fromarray(lr).save(file, "JPEG", quality=degradation.jpeg)
        lr = np.asarray(Image.open(file))
    return lr


def softened(image: Pixels, random: Generator) -> Pixels:
    """Enlarge part of an image to its full size, which makes it as soft as video frames, or return it unchanged.

    Bicubic interpolation restores videos downscaled by four at 35 dB (train/studies/video/study.py --crf 1), the same
    as images that were enlarged by three before; sharp images reach 25 dB.

    Args:
        image: (height, width, 3).
        random: decides whether, how much (1.2 to 5 times) and which part.
    """
    if random.random() >= 0.85:
        return image
    height, width = image.shape[:2]
    factor = math.exp(random.uniform(math.log(1.2), math.log(5)))
    part_height, part_width = int(height / factor), int(width / factor)
    top, left = int(random.integers(height - part_height + 1)), int(random.integers(width - part_width + 1))
    part = Image.fromarray(image[top : top + part_height, left : left + part_width])
    return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS))


def moving_windows(image: Pixels, side: int, frames: int, random: Generator) -> list[Pixels]:
    """A window that pans over an image at constant speed, as a short shot.

    Args:
        image: (height, width, 3), at least ``side`` on both axes.
        side: of the window, px.
        frames: length of the shot.
        random: of start and speed; at most 6 px per frame and axis, mostly 1 or 0, as in videos.

    Returns:
        ``frames`` views of (side, side, 3).
    """
    path = []
    for length in image.shape[:2]:
        free = length - side
        most = 6 if random.random() < 0.3 else 1
        speed = int(random.integers(-most, most + 1))
        speed = int(np.sign(speed)) * min(abs(speed), free // max(1, frames - 1))
        travel = speed * (frames - 1)
        start = int(random.integers(max(0, -travel), free - max(0, travel) + 1))
        path.append([start + speed * t for t in range(frames)])
    return [image[y : y + side, x : x + side] for y, x in zip(*path, strict=True)]


def letterboxed(shot: list[Pixels], random: Generator) -> list[Pixels]:
    """Add black bars to one shot in five, above and below or at the sides; return the others unchanged.

    Without them in training, a network for soft videos smears the hard edge of the bars.

    Args:
        shot: frames of one size (height, width, 3).
        random: decides whether, where, and how wide (4 px to a fifth of the frame, on each side).

    Returns:
        As many frames of the same size.
    """
    if random.random() >= 0.2:
        return shot
    axis = 0 if random.random() < 0.75 else 1
    length = shot[0].shape[axis]
    bar = int(random.integers(4, max(5, length // 5)))
    place = np.arange(length).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    inside = (place >= bar) & (place < length - bar)
    return [frame * inside for frame in shot]
