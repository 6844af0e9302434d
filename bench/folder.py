"""Compare a folder of small images with the network alone: ``python bench/folder.py IMAGES [-n fast] [-s 4]``.

Cuts 100 images of 64 to 128 px out of a folder of images, upscales them like ``repsr upscale FOLDER``, from file to
file, and compares the time with that of the network on the same images in memory, one after the other with all threads.
Both are measured in turns, and the best of each counts: wall time and busy core-seconds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from repsr_cli.engine.pixels import to_tensor
from repsr_cli.image.files import read_image, write_image
from repsr_cli.image.page import page_of
from repsr_cli.reporting import Outcome, Reporter
from repsr_cli.upscale.api import load_model
from repsr_cli.upscale.batch import run_jobs
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.request import Naming, Request

COUNT = 100


def cut(images: Path, folder: Path) -> None:
    """Write the small images, always the same ones."""
    dice = random.Random(1)
    sources = sorted(path for path in images.rglob("*") if path.suffix in (".png", ".jpg", ".webp"))
    for number in range(COUNT):
        pixels = read_image(dice.choice(sources)).pixels
        height, width = (min(dice.randint(64, 128), side) for side in pixels.shape[:2])
        top, left = dice.randint(0, pixels.shape[0] - height), dice.randint(0, pixels.shape[1] - width)
        write_image(folder / f"{number}.png", [page_of(pixels[top : top + height, left : left + width])])


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of all cores."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("-n", "--model")
    parser.add_argument("-s", "--scale", type=float, default=4.0)
    parser.add_argument("-f", "--format", default="png")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temporary:
        small, big = Path(temporary) / "small", Path(temporary) / "big"
        small.mkdir()
        cut(asked.images, small)
        options = Request.of(scale=asked.scale, model=asked.model)
        upscaler = load_model(asked.model, asked.scale).upscaler
        tensors = [to_tensor(read_image(path).pixels) for path in small.iterdir()]

        def alone() -> None:
            for lr in tensors:
                upscaler(lr)

        def folder() -> None:
            plan = plan_jobs([str(small)], options, Naming(output=str(big), format=asked.format))
            results = list(run_jobs(plan.jobs, options, lambda _job: Reporter()))
            assert len(results) == COUNT
            assert all(isinstance(result, Outcome) for result in results)

        alone()
        rounds = []
        for _ in range(asked.rounds):
            rounds.append((*measured(alone), *measured(folder)))
            shutil.rmtree(big)  # replacing a file costs time of its own on some disks
    clock, cores, folder_clock, folder_cores = map(min, zip(*rounds, strict=True))
    print(
        f"{upscaler.spec.name} x{upscaler.scale}, {asked.format}: network {clock:.2f} s ({cores:.2f} s of cores), "
        f"folder {folder_clock:.2f} s ({folder_cores:.2f} s), "
        f"{folder_clock / clock:.2f} times ({folder_cores / cores:.2f} times)"
    )


if __name__ == "__main__":
    main()
