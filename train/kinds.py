"""Measure which kind of model, clean or real, a compressed source needs, by how strongly it is compressed.

    python train/kinds.py PHOTOS VIDEOS... [--clean balanced-clean-x4] [--real balanced-real-x4] [--rows FILE]

PHOTOS is the folder of training images, of whose photographs the held-out ones are measured, 24 by default. Images are
shrunk by MATLAB's bicubic and compressed at every quality; the middle is enlarged by both models. Figures are means;
where those of the two models cross is where the kinds change. Writes ``studies/kinds.md``, shown by docs/models.md.
``--rows`` keeps what each file gave, and reads it back where it exists, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from repsr_cli.engine.pixels import to_pixels, to_tensor
from repsr_cli.engine.planes import planes_from_rgb, rgb_from_planes
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.export.planes import parse_planes
from repsr_cli.image.resize import downscale
from repsr_cli.model.zoo import load, resolve
from repsr_cli.training.dataset import held_out_groups, photographs
from repsr_cli.training.evaluate import rgb_of, upscale_pixels
from repsr_cli.training.frame_sampling import frames_at
from repsr_cli.training.metrics import psnr_y
from repsr_cli.training.perceptual import ssimulacra2
from repsr_cli.video.probe import probe
from repsr_cli.video.roundtrip import sized_through_codec
from repsr_cli.video.timeline import scan

RESULT = Path(__file__).with_name("studies") / "kinds.md"
# Qualities from weak to strong compression.
IMAGES = {
    "JPEG": (98, 94, 90, 86, 80, 70, 60),
    "WEBP": (95, 85, 75, 60),
    "AVIF": (90, 75, 60, 45),
}
VIDEOS = {
    "libx264": (9, 13, 17, 22),
    "libx265": (13, 17, 22),
    "libvpx-vp9": (8, 18, 28),
    "libsvtav1": (10, 20, 30),
}
OPTIONS = {
    "libx264": {},
    "libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"b": "0", "cpu-used": "4", "deadline": "good"},
    "libsvtav1": {"preset": "8", "svtav1-params": "lp=1"},
}
SCALE = 4
WHOLE, SIDE = 1024, 256  # largest side of what is compressed, and of the middle that is measured, HR px
FRAMES, MEASURED = 20, 10  # frames of a video, of which every tenth is measured
PLANES = parse_planes("yuv420p")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Row:
    """What one file gave at one quality: bits a pixel, and the figures of both models."""

    source: str
    codec: str
    quality: int
    bits_per_pixel: float
    clean_psnr_y: float
    real_psnr_y: float
    clean_ssimulacra2: float
    real_ssimulacra2: float


def middle(image: Pixels, side: int, multiple: int) -> Pixels:
    """The middle of an image, of sides that are multiples of a number."""
    height, width = (min(side, each) // multiple * multiple for each in image.shape[:2])
    top, left = ((each - kept) // 2 for each, kept in zip(image.shape[:2], (height, width), strict=True))
    top, left = top // multiple * multiple, left // multiple * multiple
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def held_out(folder: Path, count: int) -> list[Path]:
    """One image each of the photographs that recipes hold out for validation."""
    groups = photographs(folder)
    first = {group: path for path, group in sorted(groups.items(), reverse=True)}
    return [folder / first[group] for group in held_out_groups(groups.values(), count)]


class Models:
    """Both models, and the figures of their results."""

    def __init__(self, names: Sequence[str]) -> None:
        networks = [load(resolve(name, SCALE, "clean")) for name in names]
        self._upscalers = [Upscaler(net, device="cpu", precision="fp32") for net in networks]

    def figures(self, pairs: Sequence[tuple[Pixels, Pixels]]) -> tuple[float, float, float, float]:
        """PSNR-Y of both, then SSIMULACRA2 of both: means over pairs of LR and HR."""
        parts = [(middle(lr, SIDE // SCALE, 2), middle(hr, SIDE, 2 * SCALE)) for lr, hr in pairs]
        results = [[(upscale_pixels(model, lr), hr) for lr, hr in parts] for model in self._upscalers]
        psnr = [statistics.mean(psnr_y(sr, hr, SCALE) for sr, hr in each) for each in results]
        seen = [statistics.mean(ssimulacra2(sr, hr) for sr, hr in each) for each in results]
        return psnr[0], psnr[1], seen[0], seen[1]


def of_images(paths: Sequence[Path], models: Models, known: set[tuple[str, str, int]]) -> Iterator[Row]:
    """The rows of images."""
    for path in paths:
        hr = middle(rgb_of(path), WHOLE, 2 * SCALE)
        lr = downscale(hr, SCALE)
        for codec, qualities in IMAGES.items():
            for quality in qualities:
                if (path.name, codec, quality) in known:
                    continue
                file = io.BytesIO()
                Image.fromarray(lr).save(file, codec, quality=quality)
                decoded = np.asarray(Image.open(file).convert("RGB"))
                bits = 8 * len(file.getvalue()) / (lr.shape[0] * lr.shape[1])
                yield Row(path.name, codec, quality, bits, *models.figures([(decoded, hr)]))


def of_videos(paths: Sequence[Path], models: Models, known: set[tuple[str, str, int]]) -> Iterator[Row]:
    """The rows of videos, whose frames are taken from a third of them on."""
    for path in paths:
        source = probe(path)
        timeline = scan(source)
        start = len(timeline.pts) // 3
        wanted = tuple(timeline.pts[start : start + FRAMES])
        frames = frames_at(source, timeline, wanted, 2 * SCALE)
        hr = [middle(rgb, WHOLE, 2 * SCALE) for _pts, rgb in frames]
        lr = [planes_from_rgb(to_tensor(downscale(frame, SCALE)), PLANES) for frame in hr]
        for codec, qualities in VIDEOS.items():
            for quality in qualities:
                if (path.name, codec, quality) in known:
                    continue
                options = OPTIONS[codec] | {"crf": str(quality)}
                decoded, size = sized_through_codec(lr, "yuv420p", codec, options)
                rgb = [to_pixels(rgb_from_planes(each, PLANES), np.dtype(np.uint8), grey=False) for each in decoded]
                bits = 8 * size / (len(lr) * lr[0][0].size)
                pairs = list(zip(rgb, hr, strict=True))[MEASURED // 2 :: MEASURED]
                yield Row(path.name, codec, quality, bits, *models.figures(pairs))


def crossing(points: Sequence[tuple[float, float]]) -> float | None:
    """Where a line through points (x, y), in order, goes from above 0 to below; None: nowhere."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 >= 0 > y1:
            return x0 + (x1 - x0) * y0 / (y0 - y1)
    return None


def page(rows: Sequence[Row]) -> str:
    """Tables of means, and where the figures cross, as Markdown."""
    lines = [
        "| source | quality | bits per pixel | PSNR-Y of `clean` | of `real` | SSIMULACRA2 of `clean` | of `real` |",
        "|---|---|---|---|---|---|---|",
    ]
    cross = [
        "| source | files | quality where PSNR-Y crosses | SSIMULACRA2 | bits per pixel, by PSNR-Y | by SSIMULACRA2 |",
        "|---|---|---|---|---|---|",
    ]
    for codec in dict.fromkeys(row.codec for row in rows):
        found = [row for row in rows if row.codec == codec]
        means = []
        for quality in dict.fromkeys(row.quality for row in found):
            values = [_numbers(row) for row in found if row.quality == quality]
            mean = [statistics.mean(column) for column in zip(*values, strict=True)]
            means.append((quality, *mean))
            figures = " | ".join(f"{each:.3f}" for each in mean)
            lines.append(f"| {codec} | {quality} | {figures} |")
        # By quality and by bits per pixel, for each measure.
        at = [crossing([(m[x], m[y] - m[y + 1]) for m in means]) for x in (0, 1) for y in (2, 4)]
        words = [_number(each, 1 + number // 2) for number, each in enumerate(at)]
        cross.append(f"| {codec} | {len({row.source for row in found})} | {' | '.join(words)} |")
    return "\n".join([*cross, "", *lines, ""])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _numbers(row: Row) -> tuple[float, ...]:
    return tuple(getattr(row, each.name) for each in fields(row)[3:])


def read_rows(file: Path | None) -> list[Row]:
    """The rows that an earlier run has written."""
    if file is None or not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            Row(row["source"], row["codec"], int(row["quality"]), *(float(row[each.name]) for each in fields(Row)[3:]))
            for row in csv.DictReader(lines)
        ]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--clean", default="balanced-clean-x4")
    parser.add_argument("--real", default="balanced-real-x4")
    parser.add_argument("--photographs", type=int, default=24)
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)
    known = {(row.source, row.codec, row.quality) for row in rows}
    models = Models([arguments.clean, arguments.real])
    paths = held_out(arguments.photos, arguments.photographs)
    for work in (of_images(paths, models, known), of_videos(arguments.videos, models, known)):
        for row in work:
            rows.append(row)
            if arguments.rows is not None:
                begun = arguments.rows.exists()
                with arguments.rows.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, [each.name for each in fields(Row)])
                    if not begun:
                        writer.writeheader()
                    writer.writerow(asdict(row))
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
    order = [*IMAGES, *VIDEOS]
    rows.sort(key=lambda row: order.index(row.codec))
    command = f"`python train/kinds.py PHOTOS VIDEOS --clean {arguments.clean} --real {arguments.real}`"
    RESULT.write_text(f"{command}:\n\n{page(rows)}", encoding="utf-8")


if __name__ == "__main__":
    main()
