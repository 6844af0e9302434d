"""Networks on compressed videos: how near they come to the original, and how much they flicker.

    python train/studies/video/study.py VIDEOS... -n fast-x4 -n mine.safetensors [--crf 23 28] [--frames 48]

Each video's frames are shrunk by MATLAB's bicubic, compressed by libx264 (preset medium) at each CRF, decoded, and
enlarged again: by bicubic, by Lanczos, and by each network through the way that videos go. Prints a table.

Figures are means over videos. PSNR and SSIM are those of luma, against the frames before they were shrunk. Flicker is
the mean absolute change of luma, in code values, from one frame to the next where the original did not change at all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.planes import PlaneUpscaler, planes_from_rgb, rgb_from_planes
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.export.planes import parse_planes
from repsr_cli.image.resize import downscale, imresize
from repsr_cli.model import zoo
from repsr_cli.training.clips import clip_frames, flicker
from repsr_cli.training.metrics import psnr_rgb, ssim_y
from repsr_cli.video.roundtrip import through_codec

VIDEO = parse_planes("yuv420p")

Pixels = NDArray[np.uint8]


def lanczos(plane: Pixels, scale: int) -> Pixels:
    """A plane enlarged by Lanczos with three lobes, as players do it."""
    height, width = plane.shape
    return np.asarray(Image.fromarray(plane).resize((width * scale, height * scale), Image.Resampling.LANCZOS))


def main() -> None:
    """Judge the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("-n", "--network", action="append", required=True)
    parser.add_argument("--crf", type=int, nargs="+", default=[23, 28])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--images", type=Path, help="a folder for the last frame of each, as PNG")
    arguments = parser.parse_args()
    networks = {name: zoo.load(zoo.resolve(name, None, "clean")) for name in arguments.network}
    scale = next(iter(networks.values())).spec.scale
    ways = {Path(name).stem: PlaneUpscaler(Upscaler(net, device="cpu"), VIDEO, VIDEO) for name, net in networks.items()}
    rows: dict[tuple[int, str], list[tuple[float, float, float | None]]] = {}
    for video in arguments.videos:
        hr = clip_frames(video, scale, arguments.frames)
        luma = [planes_from_rgb(to_tensor(frame), VIDEO)[0] for frame in hr]
        still = [a == b for a, b in pairwise(luma)]
        lr = [planes_from_rgb(to_tensor(downscale(frame, scale)), VIDEO) for frame in hr]
        for crf in arguments.crf:
            decoded = through_codec(lr, "yuv420p", "libx264", {"crf": str(crf), "preset": "medium"})
            found = {
                "bicubic": [imresize(planes[0], hr[0].shape[:2]) for planes in decoded],
                "lanczos": [lanczos(planes[0], scale) for planes in decoded],
            }
            images = {}
            for name, way in ways.items():
                planes = [way(frame) for frame in decoded]
                found[name] = [each[0] for each in planes]
                images[name] = planes[-1]
            for name, frames in found.items():
                grey = [(a[..., None], b[..., None]) for a, b in zip(frames, luma, strict=True)]
                row = (
                    statistics.mean(psnr_rgb(a, b, scale) for a, b in grey),
                    statistics.mean(ssim_y(a, b, scale) for a, b in grey[::8]),
                    flicker(frames, still),
                )
                rows.setdefault((crf, name), []).append(row)
                sys.stdout.write(f"{video.name} crf {crf} {name}: {row[0]:.3f} dB {row[1]:.4f} {row[2]}\n")
                sys.stdout.flush()
            if arguments.images is not None:
                for name, image in {"lr": decoded[-1], **images}.items():
                    rgb = to_pixels(rgb_from_planes(image, VIDEO), np.dtype(np.uint8), grey=False)
                    arguments.images.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rgb.astype(np.uint8)).save(arguments.images / f"{video.stem}-{crf}-{name}.png")
    lines = ["| CRF | network | Y-PSNR, dB | Y-SSIM | flicker, code values |", "|---|---|---|---|---|"]
    for (crf, name), values in sorted(rows.items()):
        psnr, ssim = (statistics.mean(row[column] or 0 for row in values) for column in (0, 1))
        moved = [row[2] for row in values if row[2] is not None]
        lines.append(f"| {crf} | {name} | {psnr:.3f} | {ssim:.4f} | {statistics.mean(moved):.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
