"""Pack images with targets from a larger network, for training smaller ones.

Most of an image's detail cannot be inferred from its LR version, and is noise to a small network. The output of a
larger network contains what can be inferred, and a smaller one learns it in half the steps (train/studies/gains.md).
Targets take their luma from that output, averaged over eight flips and rotations; colour stays that of the image, which
measured better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.pixels import to_tensor
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import UsageError
from repsr_cli.image.resize import downscale
from repsr_cli.model.plain import LUMA
from repsr_cli.training.dataset import Pair, folder_pairs, held_out_groups, photographs, write_pack
from repsr_cli.training.metrics import Pixels
from repsr_cli.upscale.tta import ensemble


def with_luma_of(hr: Pixels, sr: NDArray[np.float32]) -> Pixels:
    """An image with the luma of another one.

    Args:
        hr: (height, width, 3); its colour differences are kept.
        sr: (height, width, 3), values of 0 to 255; its luma is used.
    """
    difference = (sr - hr.astype(np.float32)) @ np.array(LUMA, np.float32)
    result: Pixels = np.clip(np.rint(hr + difference[..., None]), 0, 255).astype(np.uint8)
    return result


def distilled_pairs(
    folder: Path, teacher: Upscaler, holdout: int, progress: Callable[[int, int], None]
) -> Iterator[Pair]:
    """Every image of a folder with a teacher's target; of each held-out photograph one image, unchanged.

    Args:
        teacher: of the wanted scale.
        holdout: photographs to hold out, 1 or more, chosen as ``Pack.split`` does.
        progress: called with (images done, images in all).
    """
    held_out = set(held_out_groups(photographs(folder).values(), holdout))
    kept: set[str] = set()
    for pair in folder_pairs(folder, teacher.scale, progress):
        if pair.group in held_out:
            if pair.group not in kept:
                kept.add(pair.group)
                yield replace(pair, held_out=True)
            continue
        lr = downscale(pair.hr, teacher.scale)
        sr = ensemble(teacher, to_tensor(lr), 8)[0].permute(1, 2, 0).numpy() * 255
        yield replace(pair, hr=with_luma_of(pair.hr, sr), lr=lr)


def distil(
    folder: Path,
    target: Path,
    scale: int,
    teacher: Upscaler,
    holdout: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a packed file with targets from a larger network, for ``data.train`` of a recipe.

    Arguments as ``distilled_pairs``.

    Raises:
        RecipeError: an image cannot be used.
        UsageError: the teacher has another scale, or is a luma network.
    """
    if teacher.scale != scale:
        raise UsageError(teacher.spec.name, f"enlarges by {teacher.scale}, not {scale}", f"Add -s {teacher.scale}.")
    if teacher.spec.colors != 3:
        raise UsageError(teacher.spec.name, "upscales luma only", "Choose an RGB model as the teacher.")
    write_pack(target, teacher.scale, distilled_pairs(folder, teacher, holdout, progress), overwrite=overwrite)
