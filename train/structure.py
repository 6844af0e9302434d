"""Measure models on the held-out crops of regular structure.

    python train/structure.py IMAGES MODEL... [--scale 4]

IMAGES is the folder that ``data/structure.csv`` names files of. Prints the mean PSNR of luma and of RGB, dB.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.image.resize import downscale
from repsr_cli.model.zoo import load, resolve
from repsr_cli.training.evaluate import rgb_of, upscale_pixels
from repsr_cli.training.metrics import psnr_rgb, psnr_y

CROPS = Path(__file__).with_name("data") / "structure.csv"


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--scale", type=int, default=4)
    arguments = parser.parse_args()
    crops = []
    with CROPS.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            left, top, side = (int(row[key]) for key in ("left", "top", "side"))
            crops.append(rgb_of(arguments.images / row["image"])[top : top + side, left : left + side])
    for name in arguments.models:
        upscaler = Upscaler(load(resolve(name, arguments.scale, "clean")))
        figures = []
        for hr in crops:
            sr = upscale_pixels(upscaler, downscale(hr, arguments.scale))
            figures.append((psnr_y(sr, hr, arguments.scale), psnr_rgb(sr, hr, arguments.scale)))
        luma, rgb = np.mean(figures, axis=0)
        sys.stdout.write(f"{name}: {luma:.3f} / {rgb:.3f}\n")


if __name__ == "__main__":
    main()
