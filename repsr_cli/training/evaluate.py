"""Evaluate models on HR images: Y-PSNR, RGB-PSNR and SSIM by the protocol of super-resolution papers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.files import read_image
from repsr_cli.image.resize import downscale, imresize
from repsr_cli.training.dataset import find_images
from repsr_cli.training.metrics import psnr_rgb, psnr_y, ssim_y

Pixels = NDArray[np.uint8]

BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Score:
    """Similarity of an image to the original: dB, dB and 0 to 1. Also a mean over images."""

    psnr_y: float
    psnr_rgb: float
    ssim_y: float


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image's row of a table."""

    model: str
    folder: str
    image: str
    score: Score


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean of each figure over images, as papers report it."""
    table = np.array([(s.psnr_y, s.psnr_rgb, s.ssim_y) for s in scores])
    return Score(*(float(value) for value in table.mean(axis=0)))


def score(sr: Pixels, hr: Pixels, border: int) -> Score:
    """All figures of one image, ``border`` px cropped on each side."""
    return Score(psnr_y(sr, hr, border), psnr_rgb(sr, hr, border), ssim_y(sr, hr, border))


def upscale_pixels(upscaler: Upscaler, lr: Pixels) -> Pixels:
    """Upscale an image (H, W, 3) tile by tile to 8-bit pixels (H * scale, W * scale, 3)."""
    return to_pixels(upscaler(to_tensor(lr)), np.dtype(np.uint8), grey=False).astype(np.uint8, copy=False)


def pairs_of(folder: Path, scale: int, lr_folder: Path | None = None) -> Iterator[tuple[str, Pixels, Pixels]]:
    """(name, lr, hr) of every image of a folder, one at a time.

    HR is cropped to a multiple of the scale and grey becomes RGB. LR is MATLAB's bicubic of it, or comes from
    ``lr_folder``: the image of the same name, also as ``name_LRBI_x4``, ``namex4`` or ``name_x4``.

    Raises:
        UsageError: an image is not 8 bit, or has no LR partner of the right size.
    """
    for path in find_images(folder):
        pixels = read_image(path).pixels
        if pixels.dtype != np.uint8:
            raise UsageError(path, f"is {pixels.dtype}; figures are defined on 8-bit images", "Convert it.")
        height, width = (side - side % scale for side in pixels.shape[:2])
        hr = np.ascontiguousarray(np.broadcast_to(pixels[:height, :width], (height, width, 3))).astype(np.uint8)
        if lr_folder is None:
            lr = downscale(hr, scale)
        else:
            lr = _partner(path, lr_folder, scale)
            if lr.shape[0] * scale != height or lr.shape[1] * scale != width:
                size = f"{lr.shape[1]}x{lr.shape[0]}"
                raise UsageError(path, f"its LR partner is {size}, not {width // scale}x{height // scale}")
        yield path.relative_to(folder).as_posix(), lr, hr


def _partner(path: Path, lr_folder: Path, scale: int) -> Pixels:
    stems = (path.stem, f"{path.stem}x{scale}", f"{path.stem}_x{scale}", f"{path.stem}_LRBI_x{scale}")
    for candidate in sorted(lr_folder.iterdir()):
        if candidate.stem in stems:
            pixels = read_image(candidate).pixels
            return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))).astype(np.uint8)
    raise UsageError(path, f"has no partner in {lr_folder}", f"Expected one of the names {', '.join(stems)}.")


def evaluate(
    models: Sequence[tuple[str, Upscaler]], folders: Sequence[Path], scale: int, lr_folder: Path | None = None
) -> Iterator[ImageScore]:
    """Evaluate models and bicubic interpolation on folders of HR images.

    Args:
        models: (name, upscaler) of models of this scale.
        folders: HR images, 8 bit.
        scale: enlargement factor; also the border cropped before measuring.
        lr_folder: LR partners for one HR folder; None: made from HR by MATLAB's bicubic.

    Yields:
        One row per image and model, bicubic first.

    Raises:
        UsageError: a model of another scale, or an image that cannot be used.
    """
    for name, upscaler in models:
        if upscaler.scale != scale:
            raise UsageError(name, f"enlarges by {upscaler.scale}, not {scale}", "Give models of one scale.")
    if lr_folder is not None and len(folders) != 1:
        raise UsageError(lr_folder, "LR partners belong to one HR folder", "Give one folder.")
    for folder in folders:
        for image, lr, hr in pairs_of(folder, scale, lr_folder):
            height, width = hr.shape[:2]
            rows = [(BICUBIC, imresize(lr, (height, width)))]
            rows += [(name, upscale_pixels(upscaler, lr)) for name, upscaler in models]
            for name, sr in rows:
                yield ImageScore(name, folder.name, image, score(sr, hr, scale))
