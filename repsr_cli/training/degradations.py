"""Degrade images as cameras, editors and encoders do: motion, text, blur, halos, rescaling, noise, JPEG.

Everything is drawn from a given generator and a ``Mix``, so a degraded image is a function of both and of its seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from repsr_cli.training.metrics import Pixels
from repsr_cli.training.mix import Codec, Mix, Range

KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
_WORDS = (
    *("The", "quick", "brown", "fox", "jumps", "over", "13", "lazy", "dogs;", "WARRANTY,"),
    *("Exit", "24:", "price", "9.95", "&", "up", "(see", "page", "167)"),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """One pass through a video encoder.

    Attributes:
        quality: its crf, or the quantiser of MPEG-2 and MPEG-4 part 2.
        fast: whether a fast preset is used, as by live encoders.
    """

    codec: str
    quality: int
    fast: bool


@dataclass(frozen=True, slots=True)
class Degradation:
    """What one shot goes through, in this order; 0, None and () leave a step out.

    Attributes:
        blur: standard deviations of a Gaussian on HR (vertical, horizontal), HR px.
        sharpen: radius in HR px and strength of an unsharp mask on HR.
        between: (kernel, vertical factor, horizontal factor) of a size between HR and LR, over LR.
        deinterlace: ``comb`` or ``double``, as bad deinterlacers leave frames; empty: progressive.
        kernel: the antialiased downscaler to the final size.
        noise: standard deviation of Gaussian noise on LR, code values of 8 bit, new in every frame.
        grey_noise: whether the noise is the same in all channels.
        jpeg: JPEG qualities of every LR frame, one after the other.
        encodings: video encoders of the LR frames, one after the other.
    """

    blur: tuple[float, float] = (0.0, 0.0)
    sharpen: tuple[float, float] | None = None
    between: tuple[str, float, float] | None = None
    deinterlace: str = ""
    kernel: str = "bicubic"
    noise: float = 0.0
    grey_noise: bool = False
    jpeg: tuple[int, ...] = ()
    encodings: tuple[Encoding, ...] = ()


class _Dice:
    """Draws from a generator in the terms of a mix."""

    def __init__(self, random: Generator) -> None:
        self._random = random

    def happens(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def within(self, bounds: Range) -> float:
        return float(self._random.uniform(*bounds))

    def whole(self, bounds: Range) -> int:
        return int(self._random.integers(math.ceil(bounds[0]), math.floor(bounds[1]) + 1))

    def index(self, weights: Sequence[float]) -> int:
        return int(self._random.choice(len(weights), p=np.array(weights) / sum(weights)))


def draw_degradation(mix: Mix, random: Generator) -> Degradation:
    """Draw the steps of one shot."""
    dice = _Dice(random)
    optics, rescale = mix.optics, mix.rescale
    blur = (0.0, 0.0)
    if dice.happens(optics.blur):
        blur = (dice.within(optics.blur_sigma), dice.within(optics.blur_sigma))
    sharpen = None
    if dice.happens(optics.sharpen):
        sharpen = (dice.within(optics.sharpen_radius), dice.within(optics.sharpen_amount))
    between = None
    if dice.happens(rescale.twice):
        vertical = dice.within(rescale.twice_factor)
        horizontal = dice.within(rescale.twice_factor) if dice.happens(rescale.uneven) else vertical
        between = (rescale.kernels[dice.index([1] * len(rescale.kernels))], vertical, horizontal)
    jpeg: tuple[int, ...] = ()
    if dice.happens(mix.jpeg.share):
        jpeg = tuple(dice.whole(mix.jpeg.quality) for _ in range(1 + dice.happens(mix.jpeg.twice)))
    noisy = dice.happens(mix.noise.share)
    return Degradation(
        blur=blur,
        sharpen=sharpen,
        between=between,
        deinterlace=("comb", "double")[dice.index((1, 1))] if dice.happens(rescale.deinterlace) else "",
        kernel=rescale.kernels[dice.index([1] * len(rescale.kernels))],
        noise=dice.within(mix.noise.sigma) if noisy else 0.0,
        grey_noise=noisy and dice.happens(mix.noise.grey),
        jpeg=jpeg,
        encodings=tuple(_draw_encoding(mix.video.codecs, dice) for _ in range(dice.index(mix.video.passes))),
    )


def _draw_encoding(codecs: Sequence[Codec], dice: _Dice) -> Encoding:
    codec = codecs[dice.index([codec.weight for codec in codecs])]
    return Encoding(codec.name, dice.whole(codec.quality), dice.happens(0.5))


def degrade_shot(hr: Sequence[Pixels], scale: int, degradation: Degradation, random: Generator) -> list[Pixels]:
    """All steps but the encoders, on the frames of a shot.

    Args:
        hr: frames (height, width, 3), both multiples of the scale.
        scale: enlargement factor to be undone.

    Returns:
        lr: as many frames (height / scale, width / scale, 3).
    """
    height, width = (side // scale for side in hr[0].shape[:2])
    shot = [_optics(Image.fromarray(np.ascontiguousarray(frame)), degradation) for frame in hr]
    if degradation.between is not None:
        kernel, vertical, horizontal = degradation.between
        size = (max(8, round(width * horizontal)), max(8, round(height * vertical)))
        shot = [frame.resize(size, KERNELS[kernel]) for frame in shot]
    if degradation.deinterlace:
        # Deinterlacers work at the size of the source, which is near that of the result.
        size = shot[0].size if degradation.between is not None else (width, height)
        frames = [np.asarray(frame.resize(size, KERNELS["bicubic"])) for frame in shot]
        shot = [Image.fromarray(frame) for frame in _badly_deinterlaced(frames, degradation.deinterlace)]
    lr = [np.asarray(frame.resize((width, height), KERNELS[degradation.kernel])) for frame in shot]
    if degradation.noise:
        lr = [_noisy(frame, degradation, random) for frame in lr]
    for number, quality in enumerate(degradation.jpeg):
        # The second time blocks begin elsewhere, as after a crop.
        lr = [through_jpeg(frame, quality, 4 * number) for frame in lr]
    return lr


def _optics(image: Image.Image, degradation: Degradation) -> Image.Image:
    vertical, horizontal = degradation.blur
    if vertical or horizontal:
        image = image.filter(ImageFilter.GaussianBlur((horizontal, vertical)))
    if degradation.sharpen is not None:
        radius, amount = degradation.sharpen
        image = image.filter(ImageFilter.UnsharpMask(radius, round(100 * amount), 0))
    return image


def _badly_deinterlaced(frames: Sequence[Pixels], how: str) -> list[Pixels]:
    """Frames with the odd lines of the next one (``comb``), or with every even line doubled (``double``)."""
    result = []
    for number, frame in enumerate(frames):
        made = frame.copy()
        odd = made[1::2]
        if how == "comb":
            odd[:] = frames[min(number + 1, len(frames) - 1)][1::2]
        else:
            odd[:] = frame[: 2 * len(odd) : 2]
        result.append(made)
    return result


def _noisy(lr: Pixels, degradation: Degradation, random: Generator) -> Pixels:
    shape = (*lr.shape[:2], 1 if degradation.grey_noise else 3)
    noisy = lr + random.normal(0, degradation.noise, shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def through_jpeg(lr: Pixels, quality: int, shift: int = 0) -> Pixels:
    """A frame through JPEG, whose blocks begin ``shift`` px above and left of it."""
    padded = np.pad(lr, ((shift, 0), (shift, 0), (0, 0)), mode="reflect")
    file = io.BytesIO()
    Image.fromarray(padded).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))[shift:, shift:]


def with_text(image: Pixels, share: float, random: Generator) -> Pixels:
    """An image with a few lines of text, or the image itself.

    Args:
        image: (height, width, 3).
        random: of whether, where, which words, their size and colours.
    """
    if random.random() >= share:
        return image
    drawn = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(drawn)
    height, width = image.shape[:2]
    for _ in range(int(random.integers(1, 5))):
        words = " ".join(random.choice(_WORDS, int(random.integers(1, 7))))
        place = (int(random.integers(-width // 8, width // 2)), int(random.integers(0, height - 8)))
        ink = tuple(int(value) for value in random.integers(0, 256, 3))
        outline = tuple(255 - value for value in ink)
        font = ImageFont.load_default(int(random.integers(14, 72)))
        pen.text(place, words, fill=ink, font=font, stroke_width=int(random.integers(0, 3)), stroke_fill=outline)
    return np.asarray(drawn)


def softened(image: Pixels, share: float, factors: Range, random: Generator) -> Pixels:
    """Part of an image as large as all of it was, as soft as frames of videos are, or the image itself.

    Videos that are shrunk by four come back by bicubic interpolation at 35 dB (train/studies/video/study.py --crf 1),
    as images do that were enlarged by three; sharp images come back at 25.

    Args:
        image: (height, width, 3).
        random: of whether, how much and where.
    """
    if random.random() >= share:
        return image
    height, width = image.shape[:2]
    factor = _log_uniform(factors, random)
    part_height, part_width = int(height / factor), int(width / factor)
    top, left = int(random.integers(height - part_height + 1)), int(random.integers(width - part_width + 1))
    part = Image.fromarray(image[top : top + part_height, left : left + part_width])
    return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS))


def shrunk(image: Pixels, share: float, factors: Range, random: Generator) -> Pixels:
    """An image made smaller and mirrored at its edges to its former size, or the image itself.

    Small photographs have detail at every pixel; tiles of large ones rarely do.

    Args:
        image: (height, width, 3).
        random: of whether and how much; not drawn from where ``share`` is 0.
    """
    if share == 0 or random.random() >= share:
        return image
    height, width = image.shape[:2]
    factor = _log_uniform(factors, random)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return np.pad(small, ((0, height - size[1]), (0, width - size[0]), (0, 0)), mode="symmetric")


def _log_uniform(bounds: Range, random: Generator) -> float:
    """A factor between two bounds, any ratio as likely as any other."""
    return math.exp(random.uniform(math.log(bounds[0]), math.log(bounds[1])))


def moving_windows(image: Pixels, side: int, frames: int, fast: float, random: Generator) -> list[Pixels]:
    """A window that pans over an image at constant speed, as a short shot.

    Args:
        image: (height, width, 3), at least ``side`` on both axes.
        side: of the window, px.
        fast: how often it pans by up to 6 px a frame on each axis; otherwise by 1 px or not at all.
        random: of start and speed.

    Returns:
        ``frames`` views of (side, side, 3).
    """
    path = []
    for length in image.shape[:2]:
        space = length - side
        most = 6 if random.random() < fast else 1
        speed = int(random.integers(-most, most + 1))
        speed = int(np.sign(speed)) * min(abs(speed), space // max(1, frames - 1))
        travel = speed * (frames - 1)
        start = int(random.integers(max(0, -travel), space - max(0, travel) + 1))
        path.append([start + speed * t for t in range(frames)])
    return [image[y : y + side, x : x + side] for y, x in zip(*path, strict=True)]


def letterboxed(shot: list[Pixels], share: float, random: Generator) -> list[Pixels]:
    """A shot with black bars, above and below or at the sides, as videos carry them; the others unchanged.

    A network for soft videos that never met their one hard edge smears it.

    Args:
        shot: frames of one size (height, width, 3).
        random: of whether, where, and how wide (4 px to a fifth of the frame, on each side).

    Returns:
        as many frames of the same size.
    """
    if random.random() >= share:
        return shot
    axis = 0 if random.random() < 0.75 else 1
    length = shot[0].shape[axis]
    bar = int(random.integers(4, max(5, length // 5)))
    place = np.arange(length).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    inside = (place >= bar) & (place < length - bar)
    return [frame * inside for frame in shot]
