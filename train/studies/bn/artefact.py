"""Where batch norm shows: the smooth part of a held-out image on which it is wrong by most.

    python train/studies/bn/artefact.py PACK RUN_PLAIN RUN_BN RUN_SWITCHED -o artefact.png

In parts where the original hardly varies, the error of every network, averaged over 16x16 px, does not depend on
detail: it is a patch of wrong brightness or colour. The crop shown is the one where this error of the second
run exceeds that of the first by most, next to the errors, eight times enlarged about grey. Prints the mean error
of each run over all smooth parts, in code values.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.model.checkpoint import load_plain
from repsr_cli.training.dataset import Pack
from repsr_cli.training.evaluate import upscale_pixels

BLOCK, SIDE, SMOOTH = 16, 128, 2.5  # px, px, code values of standard deviation


def blocks(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W, 3) as (rows, columns, BLOCK * BLOCK, 3)."""
    rows, columns = (side // BLOCK for side in image.shape[:2])
    cut = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
    return cut.transpose(0, 2, 1, 3, 4).reshape(rows, columns, BLOCK * BLOCK, 3)


def main() -> None:
    """Find the place and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("runs", type=Path, nargs=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    pack = Pack(arguments.pack)
    engines = [Upscaler(load_plain(run / "best.pt"), device="cpu", precision="fp32") for run in arguments.runs]
    errors: list[list[NDArray[np.float64]]] = [[] for _ in engines]
    worst: tuple[float, list[NDArray[np.uint8]]] = (-np.inf, [])
    for image in pack.split(24)[1]:
        hr = np.array(pack.hr(image))
        images = [upscale_pixels(each, np.array(pack.lr(image))) for each in engines]
        smooth = blocks(hr.astype(np.float64)).std(2).max(-1) < SMOOTH
        wrong = [np.abs(blocks(sr.astype(np.float64) - hr).mean(2)).mean(-1) for sr in images]
        for kept, each in zip(errors, wrong, strict=True):
            kept.append(each[smooth])
        excess = np.where(smooth, wrong[1] - wrong[0], -np.inf)
        row, column = np.unravel_index(int(excess.argmax()), excess.shape)
        if excess[row, column] > worst[0]:
            place = zip((row, column), hr.shape, strict=False)
            top, left = (int(np.clip(at * BLOCK - SIDE // 2, 0, side - SIDE)) for at, side in place)
            crops = [each[top : top + SIDE, left : left + SIDE] for each in (hr, *images)]
            worst = (float(excess[row, column]), crops)
    for run, kept in zip(arguments.runs, errors, strict=True):
        sys.stdout.write(
            f"{run.name}: {np.concatenate(kept).mean():.3f} code values over {sum(map(len, kept))} blocks\n"
        )
    original, *others = worst[1]
    shown = [original, *others]
    amplified = [
        np.clip(128 + 8 * (crop.astype(int) - original), 0, 255).astype(np.uint8) for crop in (original, *others)
    ]
    sheet = np.concatenate([np.concatenate(shown, 1), np.concatenate(amplified, 1)])
    size = (sheet.shape[1] * 2, sheet.shape[0] * 2)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(arguments.output)


if __name__ == "__main__":
    main()
