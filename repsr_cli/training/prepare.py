"""Pack degraded pairs for training ``real`` and ``detail`` models.

Done ahead of training, since it needs encoders, which ``repsr train`` must not, and since artefacts between frames need
a video: each image becomes a short shot, is degraded, encoded, decoded, and one of its frames is kept. A teacher, a
larger model, may add what it makes of that frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator, Philox

from repsr_cli.engine.pixels import to_8_bit, to_tensor
from repsr_cli.engine.planes import planes_from_rgb, rgb_from_planes
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RecipeError, UsageError
from repsr_cli.image.resize import imresize
from repsr_cli.training.conditions import REPEATABLE
from repsr_cli.training.dataset import Pair, folder_pairs, held_out_groups, pack_digest, photographs
from repsr_cli.training.degradations import (
    Encoding,
    degrade_shot,
    draw_degradation,
    letterboxed,
    moving_windows,
    shrunk,
    softened,
    with_text,
)
from repsr_cli.training.evaluate import upscale_pixels
from repsr_cli.training.metrics import Pixels
from repsr_cli.training.mix import Mix
from repsr_cli.training.resumable import Task, write_resumable
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.yuv.formats import PlaneFormat

# LR px. x265 was measured to code frames of a single 64 px block differently from run to run.
MIN_LR_SIDE, LR_UNIT = 80, 16

Teacher = Callable[[Pixels], Pixels]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What to make of a folder of images.

    Attributes:
        variants: degradations of each image.
        holdout: photographs that are kept out of training, to validate on.
        teacher: digest of the teacher; empty: none.
    """

    scale: int
    mix: Mix
    variants: int = 2
    seed: int = 0
    holdout: int = 24
    teacher: str = ""


def encoder_options(encoding: Encoding) -> dict[str, str]:
    """The options by which an encoder works at a quality, alike in every run."""
    quality = str(encoding.quality)
    if encoding.codec in ("mpeg2video", "mpeg4"):
        # A constant quantiser: FFmpeg's own switch for it is a property of frames, which PyAV does not set.
        return {"qmin": quality, "qmax": quality, "b": "50M"}
    if encoding.codec == "libvpx-vp9":
        speed = {"deadline": "good", "cpu-used": "8" if encoding.fast else "4", "lag-in-frames": "0"}
    else:
        speed = {"preset": "veryfast" if encoding.fast else "medium"}
    return {"crf": quality} | speed | REPEATABLE[encoding.codec]


def compress(shot: list[Pixels], encodings: tuple[Encoding, ...], fmt: PlaneFormat) -> list[Pixels]:
    """RGB frames through encoders, by way of 4:2:0 planes; unchanged without one.

    Args:
        shot: frames (height, width, 3), sizes even.
        encodings: one after the other.
    """
    if not encodings:
        return shot
    planes = [planes_from_rgb(to_tensor(frame), fmt) for frame in shot]
    for encoding in encodings:
        planes = through_codec(planes, "yuv420p", encoding.codec, encoder_options(encoding))
    return [to_8_bit(rgb_from_planes(frame, fmt)) for frame in planes]


def degraded_pair(pair: Pair, preparation: Preparation, variant: int, index: int, teacher: Teacher | None) -> Pair:
    """One image as one degraded LR frame beside its HR window, by (seed, index, variant) alone.

    With a teacher, what that makes of the LR frame too.
    """
    random = Generator(Philox(key=[preparation.seed, index * 1000 + variant]))
    mix, scale = preparation.mix, preparation.scale
    degradation = draw_degradation(mix, random)
    unit = LR_UNIT * scale
    side = min(mix.shot.side, *pair.hr.shape[:2]) // unit * unit
    image = shrunk(pair.hr, mix.shot.shrink, mix.shot.shrink_factor, random)
    if image is pair.hr:
        image = softened(image, mix.shot.soften, mix.shot.soften_factor, random)
    image = with_text(image, mix.shot.text, random)
    windows = moving_windows(image, side, mix.shot.frames, mix.shot.fast, random)
    windows = letterboxed(windows, mix.shot.letterbox, random)
    shot = degrade_shot(windows, scale, degradation, random)
    fmt = PlaneFormat("bt709" if random.random() < 0.5 else "bt601", False, 8, (2, 2), "left")
    kept = int(random.integers(1, mix.shot.frames))
    lr = np.ascontiguousarray(compress(shot, degradation.encodings, fmt)[kept])
    hr, taught = np.ascontiguousarray(windows[kept]), None if teacher is None else teacher(lr)
    return Pair(f"{pair.name}#{variant}", pair.group, hr, lr, pair.held_out, taught)


def teacher_of(upscaler: Upscaler, scale: int) -> Teacher:
    """What makes targets: a model's 8-bit output, shrunk where the model enlarges by more.

    Args:
        scale: of the targets, at most the model's.

    Raises:
        UsageError: the model enlarges by less.
    """
    if upscaler.scale < scale:
        raise UsageError(upscaler.spec.name, f"enlarges by {upscaler.scale}, not {scale}", "Choose another teacher.")

    def teach(lr: Pixels) -> Pixels:
        sr = upscale_pixels(upscaler, lr)
        height, width = (side * scale for side in lr.shape[:2])
        return sr if upscaler.scale == scale else imresize(sr, (height, width))

    return teach


def degraded_tasks(
    folder: Path,
    preparation: Preparation,
    teacher: Teacher | None,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
) -> Iterator[Task]:
    """Every image of a folder, ``variants`` times; of held-out photographs only the first image, once.

    Images smaller than 80 * scale px are left out, and named.

    Raises:
        RecipeError: as ``folder_pairs``; or all images are too small.
    """
    small: list[str] = []
    least = MIN_LR_SIDE * preparation.scale
    held_out = set(held_out_groups(photographs(folder).values(), preparation.holdout))
    kept: set[str] = set()
    made = False
    for index, pair in enumerate(folder_pairs(folder, preparation.scale, progress, shuffled=True)):
        if min(pair.hr.shape[:2]) < least:
            small.append(pair.name)
            continue
        variants = preparation.variants
        if pair.group in held_out:
            if pair.group in kept:
                continue
            kept.add(pair.group)
            pair, variants = replace(pair, held_out=True), 1
        for variant in range(variants):
            yield f"{pair.name}#{variant}", partial(degraded_pair, pair, preparation, variant, index, teacher)
        made = True
    if not made:
        raise RecipeError(folder, f"all its images are smaller than {least} px", "Add larger ones.")
    if small:
        others = f" and {len(small) - 5} more" if len(small) > 5 else ""
        say(f"left out, smaller than {least} px: {', '.join(small[:5])}{others}")


def prepare(
    folder: Path,
    target: Path,
    preparation: Preparation,
    teacher: Teacher | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _line: None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a packed file of degraded pairs. A stopped run continues where it was.

    Args:
        folder: HR images; smaller ones than 80 * scale px are left out.
        target: the packed file, for ``data.train`` of a recipe.
        teacher: gives (height * scale, width * scale, 3) for (height, width, 3).
        progress: called with (images done, images in all).
        say: gets a line on what is left out, and on what cannot be removed afterwards.

    Raises:
        RecipeError: an image cannot be used, or the file not written.
        UsageError: an unfinished file of other settings lies there, or the file exists.
    """
    job = asdict(preparation) | {
        "mix": hashlib.sha256(json.dumps(asdict(preparation.mix), sort_keys=True).encode()).hexdigest(),
        "images": pack_digest(folder, preparation.scale),
    }
    tasks = degraded_tasks(folder, preparation, teacher, progress, say)
    write_resumable(target, preparation.scale, job, tasks, overwrite=overwrite, say=say)
