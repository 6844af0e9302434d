"""Pack degraded, compressed LR/HR pairs, to train ``video`` models on.

This is done ahead of training, which must not need an encoder. A single frame has no artefacts of inter prediction, so
each image becomes a short shot, which is degraded, encoded and decoded, and one of its frames is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.planes import planes_from_rgb, rgb_from_planes
from repsr_cli.training.dataset import Pair, folder_pairs, write_pack
from repsr_cli.training.degradations import (
    Degradation,
    degrade_still,
    draw_degradation,
    letterboxed,
    moving_windows,
    softened,
)
from repsr_cli.video.roundtrip import through_codec
from repsr_cli.yuv.formats import PlaneFormat

FRAMES = 9  # of a shot: the first is a keyframe, the rest are predicted
MAX_SIDE = 384  # HR px of the window, which moves on a tile of 512
# LR px. x265 encodes frames of a single 64 px block differently from run to run (measured).
MIN_LR_SIDE, LR_UNIT = 80, 16

Pixels = NDArray[np.uint8]


def compress(shot: list[Pixels], degradation: Degradation, fmt: PlaneFormat) -> list[Pixels]:
    """Encode and decode RGB frames as 4:2:0 planes with the encoder of a degradation; unchanged without one.

    Args:
        shot: frames (height, width, 3), sizes even.
        degradation: names encoder, quality and preset.
        fmt: meaning of the planes.
    """
    if not degradation.codec:
        return shot
    options = {"crf": str(degradation.crf), "preset": degradation.preset}
    if degradation.codec == "libx265":
        options["x265-params"] = "log-level=none:pools=none:frame-threads=1"
    else:
        # Without this, x264's macroblock tree encodes the same frames differently in one run out of five (measured).
        options["x264-params"] = "cpu-independent=1"
    planes = [planes_from_rgb(to_tensor(frame), fmt) for frame in shot]
    decoded = through_codec(planes, "yuv420p", degradation.codec, options)
    return [
        to_pixels(rgb_from_planes(frame, fmt), np.dtype(np.uint8), grey=False).astype(np.uint8) for frame in decoded
    ]


def degraded_pair(pair: Pair, scale: int, variant: int, seed: int, index: int) -> Pair:
    """One compressed LR frame and its HR window, a function of image and (seed, index, variant)."""
    random = Generator(Philox(key=[seed, index * 1000 + variant]))
    degradation = draw_degradation(random)
    unit = LR_UNIT * scale
    side = min(MAX_SIDE, *pair.hr.shape[:2]) // unit * unit
    windows = letterboxed(moving_windows(softened(pair.hr, random), side, FRAMES, random), random)
    shot = [degrade_still(np.ascontiguousarray(window), scale, degradation, random) for window in windows]
    matrix = "bt709" if random.random() < 0.5 else "bt601"
    fmt = PlaneFormat("bt709" if matrix == "bt709" else "bt601", False, 8, (2, 2), "left")
    kept = int(random.integers(1, FRAMES))
    lr = compress(shot, degradation, fmt)[kept]
    return Pair(f"{pair.name}#{variant}", pair.group, np.ascontiguousarray(windows[kept]), lr)


def degraded_pairs(
    folder: Path, scale: int, variants: int, seed: int, progress: Callable[[int, int], None]
) -> Iterator[Pair]:
    """Every image of a folder, ``variants`` times; errors as ``folder_pairs``."""
    for index, pair in enumerate(folder_pairs(folder, scale, progress)):
        if min(pair.hr.shape[:2]) >= MIN_LR_SIDE * scale:
            for variant in range(variants):
                yield degraded_pair(pair, scale, variant, seed, index)


def prepare(
    folder: Path,
    target: Path,
    scale: int,
    variants: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a packed file of degraded pairs.

    Args:
        folder: HR images; smaller ones than 80 * scale px are left out.
        target: the packed file, for ``data.train`` of a recipe.
        scale: enlargement factor.
        variants: degradations of each image.
        seed: of all of them.
        progress: called with (images done, images in all).
        overwrite: replace an existing file.

    Raises:
        RecipeError: an image cannot be used.
    """
    write_pack(target, scale, degraded_pairs(folder, scale, variants, seed, progress), overwrite=overwrite)
