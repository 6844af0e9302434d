"""Read a degradation mix: the TOML file that says what happens to images before a model sees them.

A *share* is the probability of a step, from 0 to 1; a *range* is a pair of bounds between which a value is drawn.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from repsr_cli.errors import RecipeError
from repsr_cli.training.sections import build_section, read_toml

Range = tuple[float, float]

# The quality scale of each encoder that a mix may name: smallest and largest value that it takes.
ENCODERS = {
    "libx264": (0, 51),
    "libx265": (0, 51),
    "libvpx-vp9": (0, 63),
    "mpeg2video": (1, 31),
    "mpeg4": (1, 31),
}


@dataclass(frozen=True, slots=True)
class Shot:
    """How an image becomes a short video.

    Attributes:
        frames: length; the first frame is a keyframe, the others are predicted.
        side: largest side of the window, HR px.
        fast: share of shots that pan by up to 6 px a frame; the others move by 1 px or stand still.
        letterbox: share of shots between black bars.
        text: share of shots that show lines of text.
        soften: share of images enlarged first, so that they are as soft as frames of video are.
        soften_factor: by how much.
        shrink: share of images shrunk first, so that they are as full of detail as small photographs are; those are
            not softened.
        shrink_factor: by how much, at least 1.
    """

    frames: int = 9
    side: int = 384
    fast: float = 0.3
    letterbox: float = 0.2
    text: float = 0.0
    soften: float = 0.85
    soften_factor: Range = (1.2, 5.0)
    shrink: float = 0.0
    shrink_factor: Range = (1.3, 2.5)


@dataclass(frozen=True, slots=True)
class Optics:
    """What cameras and editors do before an image is shrunk. Lengths are HR px.

    Attributes:
        blur: share blurred by a Gaussian.
        blur_sigma: its standard deviation on either axis; the axes are drawn apart.
        sharpen: share sharpened by an unsharp mask, which draws halos.
        sharpen_radius: radius of the mask.
        sharpen_amount: strength of the mask, 1 doubles the contrast of edges.
    """

    blur: float = 0.0
    blur_sigma: Range = (0.2, 1.2)
    sharpen: float = 0.0
    sharpen_radius: Range = (0.5, 2.0)
    sharpen_amount: Range = (0.3, 1.5)


@dataclass(frozen=True, slots=True)
class Rescale:
    """How an image is shrunk.

    Attributes:
        kernels: downscalers, one of which is drawn; a name given twice is twice as likely.
        twice: share that goes through a second size, by a kernel of its own.
        twice_factor: that size over the final one; below 1 loses detail.
        uneven: share of those whose two axes have factors of their own.
        deinterlace: share whose frames come from a bad deinterlacer: combed, or every second line doubled.
    """

    kernels: tuple[str, ...] = ("bicubic",)
    twice: float = 0.0
    twice_factor: Range = (0.6, 1.8)
    uneven: float = 0.0
    deinterlace: float = 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise on the shrunk frames, new in every frame.

    Attributes:
        share: share of shots with noise.
        sigma: its standard deviation, in code values of 8 bit.
        grey: share of those whose noise is the same in all channels.
    """

    share: float = 0.0
    sigma: Range = (0.5, 5.0)
    grey: float = 0.4


@dataclass(frozen=True, slots=True)
class Jpeg:
    """JPEG compression of the shrunk frames.

    Attributes:
        share: share of shots that go through it.
        twice: share of those that go through it again, on a shifted grid.
    """

    share: float = 0.0
    quality: Range = (60.0, 95.0)
    twice: float = 0.0


@dataclass(frozen=True, slots=True)
class Codec:
    """One video encoder of the mix.

    Attributes:
        name: an encoder of ``ENCODERS``.
        weight: how often it is drawn, over the sum of all weights.
        quality: crf of x264, x265 and VP9; quantiser of MPEG-2 and MPEG-4 part 2.
    """

    name: str
    weight: float = 1.0
    quality: Range = (18.0, 35.0)


@dataclass(frozen=True, slots=True)
class Video:
    """Video compression of the shrunk frames.

    Attributes:
        passes: weights of no, one, two, ... encodings in a row.
        codecs: the encoders, of which each encoding draws one.
    """

    passes: tuple[float, ...] = (1.0,)
    codecs: tuple[Codec, ...] = ()


@dataclass(frozen=True, slots=True)
class Mix:
    """Everything that decides how images are degraded."""

    shot: Shot = field(default_factory=Shot)
    optics: Optics = field(default_factory=Optics)
    rescale: Rescale = field(default_factory=Rescale)
    noise: Noise = field(default_factory=Noise)
    jpeg: Jpeg = field(default_factory=Jpeg)
    video: Video = field(default_factory=Video)


def load_mix(path: Path) -> Mix:
    """Read a mix.

    Args:
        path: a TOML file; ``train/mixes`` has those that the shipped models saw.

    Raises:
        RecipeError: no such file, not TOML, unknown section or key, or a value out of bounds.
    """
    values = read_toml(path, "mix", "train/mixes")
    mix = build_section(Mix, values, str(path))
    _check(mix, str(path))
    return mix


def _check(mix: Mix, subject: str) -> None:
    for section in dataclasses.fields(mix):
        part = getattr(mix, section.name)
        for item in dataclasses.fields(part):
            value, where = getattr(part, item.name), f"{section.name}.{item.name}"
            if type(value) is float and not 0 <= value <= 1:
                raise RecipeError(subject, f"{where} must be between 0 and 1, not {value}")
            if item.type == "Range" and not 0 <= value[0] <= value[1] < float("inf"):
                raise RecipeError(subject, f"{where} must be two ascending bounds of 0 or more, not {list(value)}")
    if not 2 <= mix.shot.frames <= 250 or mix.shot.side < 64:
        raise RecipeError(subject, "shot.frames must lie between 2 and 250, and shot.side be 64 or more")
    if mix.shot.shrink_factor[0] < 1:
        raise RecipeError(subject, "shot.shrink_factor must be 1 or more")
    if not 1 <= mix.jpeg.quality[0] <= mix.jpeg.quality[1] <= 100:
        raise RecipeError(subject, "jpeg.quality must lie between 1 and 100")
    if not mix.rescale.kernels or set(mix.rescale.kernels) - {"bicubic", "bilinear", "box", "lanczos"}:
        raise RecipeError(subject, "rescale.kernels must name bicubic, bilinear, box or lanczos")
    if mix.rescale.twice_factor[0] < 0.25 or mix.rescale.twice_factor[1] > 4:
        raise RecipeError(subject, "rescale.twice_factor must lie between 0.25 and 4")
    _check_video(mix.video, subject)


def _check_video(video: Video, subject: str) -> None:
    if not video.passes or min(video.passes) < 0 or sum(video.passes) <= 0:
        raise RecipeError(subject, "video.passes must be weights of 0 or more, not all 0")
    if len(video.passes) > 1 and not video.codecs:
        raise RecipeError(subject, "video.passes asks for encodings, and video.codecs names no encoder")
    for codec in video.codecs:
        if codec.name not in ENCODERS:
            raise RecipeError(subject, f"unknown encoder '{codec.name}'", f"Known: {', '.join(ENCODERS)}.")
        least, most = ENCODERS[codec.name]
        if codec.weight < 0 or not least <= codec.quality[0] <= codec.quality[1] <= most:
            raise RecipeError(subject, f"quality of {codec.name} must lie between {least} and {most}")
