"""Evaluate models on HR images: fidelity by the protocol of super-resolution papers, and how results look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from repsr_cli.engine.pixels import to_8_bit, to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.files import read_image
from repsr_cli.image.resize import downscale, imresize
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.repsr import RepSR, fuse
from repsr_cli.training.dataset import find_images
from repsr_cli.training.metrics import Pixels, psnr_rgb, psnr_y, ssim_y
from repsr_cli.training.perceptual import looks_beside

BICUBIC = "bicubic"
SHOWN = 4  # validation images in a run's validation.png

Scores = Mapping[str, float]
# Makes (H / scale, W / scale, 3) of (H, W, 3) and the scale.
MakeLr = Callable[[Pixels, int], Pixels]
CLEAN: Mapping[str, MakeLr] = {"clean": downscale}


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image's row of a table.

    Attributes:
        folder: name of the folder of the HR image.
        condition: how LR was made, e.g. ``jpeg:75``.
    """

    model: str
    folder: str
    condition: str
    image: str
    scores: Scores


def mean_scores(scores: Sequence[Scores]) -> dict[str, float]:
    """The mean of each figure over the images that have it, as papers report it."""
    names = dict.fromkeys(name for each in scores for name in each)
    return {name: float(np.mean([each[name] for each in scores if name in each])) for name in names}


def fidelity(sr: Pixels, hr: Pixels, border: int) -> dict[str, float]:
    """PSNR and SSIM of a result (H, W, 3) beside its original, without ``border`` px on each side."""
    return {"psnr_y": psnr_y(sr, hr, border), "psnr_rgb": psnr_rgb(sr, hr, border), "ssim_y": ssim_y(sr, hr, border)}


def upscale_pixels(upscaler: Upscaler, lr: Pixels) -> Pixels:
    """Upscale an image (H, W, 3) tile by tile to 8-bit pixels (H * scale, W * scale, 3)."""
    return to_8_bit(upscaler(to_tensor(lr)))


@dataclass(frozen=True, slots=True)
class Validated:
    """Mean figures over the validation images, dB, and the first few results."""

    psnr_y: float
    psnr_rgb: float
    shown: tuple[Pixels, ...]


def validate(net: RepSR | PlainSR, images: Sequence[tuple[Pixels, Pixels]], device: str, threads: int) -> Validated:
    """Measure the fused network on (lr, hr) images while it trains, through the tiled engine."""
    plain = fuse(net) if isinstance(net, RepSR) else net
    upscaler = Upscaler(plain, device=device, precision="fp32", threads=threads)
    border = plain.spec.scale
    figures: list[tuple[float, float]] = []
    shown: list[Pixels] = []
    for lr, hr in images:
        sr = upscale_pixels(upscaler, lr)
        figures.append((psnr_y(sr, hr, border), psnr_rgb(sr, hr, border)))
        if len(shown) < SHOWN:
            shown.append(sr)
    mean = np.mean(figures, axis=0)
    return Validated(float(mean[0]), float(mean[1]), tuple(shown))


def pairs_of(
    folder: Path, scale: int, lr_folder: Path | None = None, make_lr: MakeLr = downscale
) -> Iterator[tuple[str, Pixels, Pixels]]:
    """(name, lr, hr) of every image of a folder, one at a time.

    HR is cropped to a multiple of the scale and grey becomes RGB. LR is made of it by ``make_lr``, or comes from
    ``lr_folder``: the image of the same name, also as ``name_LRBI_x4``, ``namex4`` or ``name_x4``.

    Raises:
        UsageError: an image or its LR partner is not 8 bit, or it has no partner of the right size.
    """
    for path in find_images(folder):
        hr = rgb_of(path, scale)
        height, width = hr.shape[:2]
        check_measurable(path, height, width, scale)
        if lr_folder is None:
            lr = make_lr(hr, scale)
        else:
            lr = _partner(path, lr_folder, scale)
            if lr.shape[0] * scale != height or lr.shape[1] * scale != width:
                size = f"{lr.shape[1]}x{lr.shape[0]}"
                raise UsageError(path, f"its LR partner is {size}, not {width // scale}x{height // scale}")
        yield path.relative_to(folder).as_posix(), lr, hr


def check_measurable(name: object, height: int, width: int, scale: int) -> None:
    """Check that something remains of an image without its border of ``scale`` px."""
    if min(height, width) <= 2 * scale:
        raise UsageError(name, f"is {width}x{height}, too small to measure at x{scale}", "Remove it.")


def rgb_of(path: Path, multiple: int = 1) -> Pixels:
    """An image as RGB, (H, W, 3), cropped at the bottom and the right to multiples of a number.

    Raises:
        UsageError: it is not 8 bit.
    """
    pixels = read_image(path).pixels
    if pixels.dtype != np.uint8:
        raise UsageError(path, f"is {pixels.dtype}; figures are defined on 8-bit images", "Convert it.")
    height, width = (side - side % multiple for side in pixels.shape[:2])
    return np.array(np.broadcast_to(pixels[:height, :width], (height, width, 3)), np.uint8)


def _partner(path: Path, lr_folder: Path, scale: int) -> Pixels:
    stems = (path.stem, f"{path.stem}x{scale}", f"{path.stem}_x{scale}", f"{path.stem}_LRBI_x{scale}")
    if not lr_folder.is_dir():
        raise UsageError(lr_folder, "no such folder", "Give the folder of LR images.")
    for candidate in sorted(lr_folder.iterdir()):
        if candidate.stem in stems:
            return rgb_of(candidate)
    raise UsageError(path, f"has no partner in {lr_folder}", f"Expected one of the names {', '.join(stems)}.")


def evaluate(
    models: Sequence[tuple[str, Upscaler]],
    folders: Sequence[Path],
    scale: int,
    lr_folder: Path | None = None,
    conditions: Mapping[str, MakeLr] = CLEAN,
    *,
    perceptual: bool = False,
) -> Iterator[ImageScore]:
    """Evaluate models and bicubic interpolation on folders of HR images.

    Args:
        models: (name, upscaler) of models of this scale.
        scale: enlargement factor; also the border cropped before measuring.
        lr_folder: LR partners for one HR folder; None: made from HR.
        conditions: how they are made, by name.

    Yields:
        One row per image, condition and model, bicubic first.

    Raises:
        UsageError: a model of another scale, or an image that cannot be used.
    """
    check_scales(models, scale)
    if lr_folder is not None and len(folders) != 1:
        raise UsageError(lr_folder, "LR partners belong to one HR folder", "Give one folder.")
    if lr_folder is not None and conditions != CLEAN:
        raise UsageError(lr_folder, "LR partners are not degraded", "Leave out --lr or --degrade.")
    for folder, (condition, make_lr) in product(folders, conditions.items()):
        for image, lr, hr in pairs_of(folder, scale, lr_folder, make_lr):
            height, width = hr.shape[:2]
            rows = [(BICUBIC, imresize(lr, (height, width)))]
            rows += [(name, upscale_pixels(upscaler, lr)) for name, upscaler in models]
            looks = looks_beside(hr) if perceptual else None
            for name, sr in rows:
                figures = fidelity(sr, hr, scale) | (looks(sr) if looks else {})
                yield ImageScore(name, folder.name, condition, image, figures)


def check_scales(models: Sequence[tuple[str, Upscaler]], scale: int) -> None:
    """Check that all models enlarge by a factor."""
    for name, upscaler in models:
        if upscaler.scale != scale:
            raise UsageError(name, f"enlarges by {upscaler.scale}, not {scale}", "Give models of one scale.")
