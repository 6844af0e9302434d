"""Upscale a long video and a large folder, and watch memory and open files of the command.

    python -m tests.faults.memory [--frames 20000] [--images 5000]

Memory is the highest resident size in the first half and in the last quarter of the run; it is flat if the last is
not more than a tenth above the first. The exit code is 1 if it is not, or if descriptors grow.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.commands import UPSCALE, VIDEO, an_image
from tests.sample_videos import image, make_video

# Half a minute; before that, libraries load.
SAMPLES = 150


def watch(argv: list[str], folder: Path) -> tuple[list[int], list[int]]:
    """Run ``repsr``; its resident size in MB and its open descriptors, five times a second.

    Raises:
        SystemExit: it fails.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "repsr_cli", *argv]
    sizes, descriptors = [], []
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        place = Path(f"/proc/{process.pid}")
        while process.poll() is None:
            try:
                pages = int((place / "statm").read_text().split()[1])
                sizes.append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)
                descriptors.append(sum(1 for _ in (place / "fd").iterdir()))
            except (OSError, IndexError):
                break
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}")
    return sizes, descriptors


def judged(name: str, sizes: list[int], descriptors: list[int]) -> bool:
    """Print the figures. True if memory and descriptors are flat, or the run was too short to judge."""
    quarter = max(1, len(sizes) // 4)
    early, late = max(sizes[: 2 * quarter]), max(sizes[-quarter:])
    few, many = max(descriptors[: 2 * quarter]), max(descriptors[-quarter:])
    short = len(sizes) < SAMPLES
    flat = late <= 1.1 * early and many <= few + 4
    words = f"{early} MB in the first half, {late} MB in the last quarter; {few} and {many} descriptors"
    sys.stdout.write(f"{name}: {words}: {'too short to judge' if short else 'flat' if flat else 'GROWS'}\n")
    sys.stdout.flush()
    return flat or short


def main() -> None:
    """Parse, make inputs, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20000)
    parser.add_argument("--images", type=int, default=5000)
    words = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory(prefix="repsr-memory-") as name:
        folder = Path(name)
        if words.frames:
            planes = [image(number, 16, 16, "yuv420p") for number in range(50)]
            frames = [planes[number % 50] for number in range(words.frames)]
            make_video(folder / "v.mp4", range(words.frames), Fraction(1, 25), (16, 16), gop=60, frames=frames)
            sizes = watch(["upscale", "v.mp4", "-o", "w.mp4", *VIDEO], folder)
            fine &= judged(f"{words.frames} frames", *sizes)
        if words.images:
            (folder / "in").mkdir()
            an_image(folder / "in" / "00000.png")
            data = (folder / "in" / "00000.png").read_bytes()
            for number in range(words.images):
                (folder / "in" / f"{number:05}.png").write_bytes(data)
            sizes = watch(["upscale", "in", "-o", "out", *UPSCALE], folder)
            fine &= judged(f"{words.images} images", *sizes)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
