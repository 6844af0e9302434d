"""Measure what bf16 costs shipped models against fp32, in dB of luma PSNR by the protocol of papers.

    python bench/precision.py Set5 Set14 --models fast-x4 balanced-x4

Folders of HR images; LR is made by bicubic interpolation. Also prints what ``--precision auto`` goes by.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.image.resize import downscale
from repsr_cli.model.zoo import available, load_compact
from repsr_cli.training.dataset import find_images
from repsr_cli.training.evaluate import rgb_of, upscale_pixels
from repsr_cli.training.metrics import psnr_y
from repsr_cli.upscale.precision import measured_loss


def main() -> None:
    """Print a line for each model and folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--models", nargs="+", default=[model.name for model in available()])
    arguments = parser.parse_args()
    for model in available():
        if model.name not in arguments.models:
            continue
        net = load_compact(model)
        print(f"{model.name}: check {measured_loss(net, 'torch'):+.4f} dB", flush=True)
        exact, half = (Upscaler(net, "cpu", precision, engine="torch") for precision in ("fp32", "bf16"))
        for folder in arguments.folders:
            losses = []
            for path in find_images(folder):
                hr = rgb_of(path, model.scale)
                lr = downscale(hr, model.scale)
                figures = [psnr_y(upscale_pixels(each, lr), hr, model.scale) for each in (exact, half)]
                losses.append(figures[0] - figures[1])
            print(f"{model.name} {folder.name}: {np.mean(losses):+.4f} dB, at most {np.max(losses):+.4f}", flush=True)


if __name__ == "__main__":
    main()
