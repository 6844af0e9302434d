"""Print how user shaders look on compressed clips, beside scalers of players, all by FFmpeg's libplacebo filter.

    python train/studies/shaders.py CLIPS... [--shader NAME=FILE] [--scaler lanczos] [--crf 23 28] [--images FOLDER]

One frame of each clip is shrunk by two, compressed with its predecessors by x264, decoded to RGB of 8 bits and enlarged
by the libplacebo filter: by the scalers named, by every ``.compute.glsl`` of weights/shaders/, and by other shaders.
Y-PSNR in dB, SSIMULACRA2 and VGG distance (``repsr[perceptual]``) against the frame before it was shrunk; means over
clips.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.engine.pixels import to_pixels
from repsr_cli.engine.planes import rgb_from_planes
from repsr_cli.training.clips import FORMAT, clip_frames, compressed
from repsr_cli.training.conditions import parse_condition
from repsr_cli.training.metrics import psnr_y
from repsr_cli.training.perceptual import looks_beside

SHADERS = Path(__file__).resolve().parents[2] / "weights" / "shaders"
SCALE = 2

Pixels = NDArray[np.uint8]


def enlarged(lr: Pixels, options: str) -> Pixels:
    """A frame (height, width, 3) as the filter enlarges it."""
    height, width = lr.shape[:2]
    size = f"w={SCALE * width}:h={SCALE * height}:colorspace=gbr:range=pc:dithering=none:format=rgba64le"
    command = ["ffmpeg", "-v", "error", "-init_hw_device", "vulkan=vk", "-filter_hw_device", "vk"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{width}x{height}", "-color_range", "pc"]
    command += ["-colorspace", "rgb", "-i", "-"]
    command += ["-vf", f"hwupload,libplacebo={size}:{options},hwdownload,format=rgba64le", "-f", "rawvideo", "-"]
    opaque = np.concatenate([lr, np.full((height, width, 1), 255, np.uint8)], axis=2)
    made = subprocess.run(command, input=opaque.tobytes(), capture_output=True, check=True).stdout
    samples = np.frombuffer(made, "<u2").reshape(SCALE * height, SCALE * width, 4)[..., :3]
    return np.rint(samples / 257).astype(np.uint8)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--shader", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--scaler", nargs="+", default=["bicubic", "lanczos", "ewa_lanczos"])
    parser.add_argument("--crf", type=int, nargs="+", default=[23, 28])
    parser.add_argument("--frames", type=int, default=9, help="of each clip; the last is measured")
    parser.add_argument("--images", type=Path, help="a folder for what is measured, as PNG")
    arguments = parser.parse_args()
    ours = {path.name.removesuffix(".compute.glsl"): path for path in sorted(SHADERS.glob("*.compute.glsl"))}
    others = {name: Path(file) for name, _, file in (each.partition("=") for each in arguments.shader)}
    ways = {name: f"upscaler={name}" for name in arguments.scaler}
    ways |= {name: f"upscaler=none:custom_shader_path={path}" for name, path in {**ours, **others}.items()}
    rows: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for clip in arguments.clips:
        frames = clip_frames(clip, SCALE, arguments.frames)
        looks = looks_beside(frames[-1])
        for crf in arguments.crf:
            planes = compressed(frames, SCALE, parse_condition(f"x264:{crf}"))[-1]
            lr = to_pixels(rgb_from_planes(planes, FORMAT), np.dtype(np.uint8), grey=False).astype(np.uint8)
            for name, options in ways.items():
                sr = enlarged(lr, options)
                seen = looks(sr)
                row = (psnr_y(sr, frames[-1], SCALE), seen["ssimulacra2"], seen["vgg"])
                rows.setdefault((crf, name), []).append(row)
                sys.stdout.write(f"{clip.name} crf {crf} {name}: {row[0]:.3f} dB {row[1]:.2f} {row[2]:.4f}\n")
                sys.stdout.flush()
                if arguments.images is not None:
                    arguments.images.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(sr).save(arguments.images / f"{clip.stem}-{crf}-{name}.png")
    lines = ["| CRF | | Y-PSNR, dB | SSIMULACRA2 | VGG distance |", "|---|---|---|---|---|"]
    for (crf, name), values in sorted(rows.items(), key=lambda item: item[0][0]):
        psnr, ssimulacra, vgg = (statistics.mean(column) for column in zip(*values, strict=True))
        lines.append(f"| {crf} | {name} | {psnr:.3f} | {ssimulacra:.2f} | {vgg:.4f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
