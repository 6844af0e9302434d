"""A folder of images -> a packed file whose targets a larger network made, for training smaller ones.

Most of what an image holds cannot be told from its LR version: a small network that is asked for it learns from noise.
What a larger network makes of the same LR version is what can be told, and a smaller one gets there in half the steps
(train/studies/gains.md). Its luma is taken, in the mean over eight views of the image; colour stays the
image's own, which measured better.
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
from repsr_cli.upscale.tta import ensemble

Pixels = NDArray[np.uint8]


def taught(hr: Pixels, sr: NDArray[np.float32]) -> Pixels:
    """An image with the luma of another.

    Args:
        hr: (height, width, 3), whose colour differences are kept.
        sr: (height, width, 3) in samples of 8 bit, whose luma is taken.
    """
    difference = (sr - hr.astype(np.float32)) @ np.array(LUMA, np.float32)
    result: Pixels = np.clip(np.rint(hr + difference[..., None]), 0, 255).astype(np.uint8)
    return result


def taught_pairs(folder: Path, teacher: Upscaler, holdout: int, progress: Callable[[int, int], None]) -> Iterator[Pair]:
    """Every image of a folder as its teacher sees it; of held-out photographs one, as it is.

    Args:
        folder: HR images.
        teacher: of the scale that is wanted.
        holdout: photographs to keep out of training, chosen as ``Pack.split`` does.
        progress: called with (images done, images in all).

    Raises:
        RecipeError: as ``folder_pairs``.
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
        yield replace(pair, hr=taught(pair.hr, sr), lr=lr)


def distil(
    folder: Path,
    target: Path,
    scale: int,
    teacher: Upscaler,
    holdout: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write a packed file of what a network makes of a folder's images, for ``data.train`` of a recipe.

    Args:
        folder: as in ``taught_pairs``.
        target: the file.
        scale: enlargement factor.
        teacher: as in ``taught_pairs``.
        holdout: as in ``taught_pairs``; 1 or more.
        progress: as in ``taught_pairs``.

    Raises:
        RecipeError: an image cannot be used.
        UsageError: a teacher of another factor, or one that knows luma only.
    """
    if teacher.scale != scale:
        raise UsageError(teacher.spec.name, f"enlarges by {teacher.scale}, not {scale}", f"Add -s {teacher.scale}.")
    if teacher.spec.colors != 3:
        raise UsageError(teacher.spec.name, "knows luma only", "Choose an RGB network as the teacher.")
    write_pack(target, teacher.scale, taught_pairs(folder, teacher, holdout, progress))
