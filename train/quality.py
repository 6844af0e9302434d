r"""Write docs/quality.md and its images: models side by side on compressed photographs and clips.

    python train/quality.py -n balanced-real -n balanced-detail -n NAME=FILE --photo FILE@X,Y --clip FILE@START@X,Y \
        --scores rows.csv

Most options may be repeated. X,Y is the top left corner, in px of the original, of the part that is shown. ``--scores``
is what ``repsr eval IMAGES --perceptual --degrade jpeg:75 --degrade x264:26 --csv rows.csv`` wrote for the same models.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from repsr_cli.engine.pixels import to_pixels
from repsr_cli.engine.planes import rgb_from_planes
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.image.resize import imresize
from repsr_cli.model.zoo import load, resolve
from repsr_cli.training.clips import FORMAT, clip_frames, compressed
from repsr_cli.training.conditions import parse_condition
from repsr_cli.training.evaluate import BICUBIC, rgb_of, upscale_pixels

Pixels = NDArray[np.uint8]

DOCS = Path(__file__).parent.parent / "docs"
SCALE, COLUMNS, LABEL = 4, 3, 18
WIDTH, HEIGHT = 264, 184  # px of the original that a sheet shows
FRAMES, SHOWN = 24, 12
TIMED = (270, 480)

HEAD = """# What results look like

Made by `python train/quality.py`, whose first lines say how. Sources are compressed as people have them: photographs
are shrunk by 4 and saved as JPEG of quality 75, clips are shrunk by 4 and encoded by x264 at CRF 26. Everything is
enlarged by 4 again. `real` is the faithful end of `--detail`, `detail` the crisp one; a number after `@` lies between.

"""
MEASURES = """
PSNR of luma in dB and SSIMULACRA2: more is better. VGG distance: less is better. Gradient: that of the result over the
original's; below 1 is soft, above 1 harsh. The last column is CPU seconds on one thread for a frame of 480x270, in
fp32. No single figure decides: PSNR rewards blur, and invented texture may lower VGG distance. train/studies/detail.md
has the command.
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A source of which a part is shown.

    Attributes:
        name: of the sheet's file.
        lr: (height, width, 3), compressed.
        hr: (height * SCALE, width * SCALE, 3).
        corner: (top, left) of the part, HR px.
    """

    name: str
    lr: Pixels
    hr: Pixels
    corner: tuple[int, int]


def photo(text: str) -> Shown:
    """A photograph through JPEG, from FILE@X,Y."""
    path, corner = text.rsplit("@", 1)
    hr = rgb_of(Path(path), SCALE)
    return Shown(Path(path).stem, parse_condition("jpeg:75").lr(hr, SCALE), hr, _corner(corner))


def clip(text: str) -> Shown:
    """A frame of a clip through x264, from FILE@START@X,Y; START is the share of the clip to leave out."""
    path, start, corner = text.rsplit("@", 2)
    frames = clip_frames(Path(path), SCALE, FRAMES, float(start))
    planes = compressed(frames, SCALE, parse_condition("x264:26"))[SHOWN]
    lr = to_pixels(rgb_from_planes(planes, FORMAT), np.dtype(np.uint8), grey=False).astype(np.uint8)
    return Shown(f"{Path(path).stem}-{corner.replace(',', '-')}", lr, frames[SHOWN], _corner(corner))


def _corner(text: str) -> tuple[int, int]:
    x, y = (int(number) for number in text.split(","))
    return y, x


def sheet(shown: Shown, models: Sequence[tuple[str, Upscaler]]) -> Image.Image:
    """The same part of the original, of bicubic, and of each model's result, labelled."""
    height, width = shown.hr.shape[:2]
    results = [("original", shown.hr), (BICUBIC, imresize(shown.lr, (height, width)))]
    results += [(name, upscale_pixels(upscaler, shown.lr)) for name, upscaler in models]
    rows = -(-len(results) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * WIDTH, rows * (HEIGHT + LABEL)), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    top, left = shown.corner
    for number, (name, pixels) in enumerate(results):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * (HEIGHT + LABEL)
        whole.paste(Image.fromarray(pixels[top : top + HEIGHT, left : left + WIDTH]), (x, y + LABEL))
        draw.text((x + 3, y + 1), name, "black", font)
    return whole


def table(scores: Path, seconds: dict[str, float]) -> str:
    """Means of ``repsr eval --csv`` as a Markdown table, a row per model, its columns by condition."""
    with scores.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    heads = [f"{condition}: PSNR / SSIMULACRA2 / VGG / gradient" for condition in conditions]
    out = [f"| model | {' | '.join(heads)} | seconds |", "|" + "---|" * (len(heads) + 2)]
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for condition in conditions:
            found = [row for row in rows if row["model"] == model and row["condition"] == condition]
            means = [float(np.mean([float(row[name]) for row in found])) for name in ("psnr_y", "ssimulacra2")]
            looks = [float(np.mean([float(row[name]) for row in found])) for name in ("vgg", "gradient")]
            cells.append(f"{means[0]:.3f} / {means[1]:.2f} / {looks[0]:.3f} / {looks[1]:.3f}")
        spent = f"{seconds[model]:.2f}" if model in seconds else ""
        out.append(f"| `{model}` | {' | '.join(cells)} | {spent} |")
    return "\n".join(out) + "\n"


def cpu_seconds(upscaler: Upscaler) -> float:
    """CPU seconds for a frame of 480x270, the least of three where one takes less than 20."""
    frame = np.random.default_rng(0).integers(0, 256, (*TIMED, 3), np.uint8)

    def once() -> float:
        began = time.process_time()
        upscale_pixels(upscaler, frame)
        return time.process_time() - began

    first = once()
    return first if first > 20 else min(first, once(), once())


def main() -> None:
    """Draw the sheets, measure the time, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--model", action="append", required=True, metavar="NAME|NAME=FILE")
    parser.add_argument("--photo", action="append", default=[], metavar="FILE@X,Y")
    parser.add_argument("--clip", action="append", default=[], metavar="FILE@START@X,Y")
    parser.add_argument("--scores", type=Path, required=True, metavar="CSV")
    parser.add_argument("--sources", default="", help="where photographs and clips come from, and their licences")
    arguments = parser.parse_args()
    models = []
    for each in arguments.model:
        name, _, file = each.partition("=")
        net = load(resolve(file or name, SCALE, "real"))
        models.append((name, Upscaler(net, device="cpu", precision="fp32", threads=1)))
    (DOCS / "quality").mkdir(exist_ok=True)
    text = f"{HEAD}{arguments.sources}\n\n"
    for shown in [*map(clip, arguments.clip), *map(photo, arguments.photo)]:
        sheet(shown, models).save(DOCS / "quality" / f"{shown.name}.webp", quality=92)
        text += f"## {shown.name}\n\n![{shown.name}: original, bicubic and each model](quality/{shown.name}.webp)\n\n"
    seconds = {name: cpu_seconds(upscaler) for name, upscaler in models}
    text += f"## Figures\n\n{table(arguments.scores, seconds)}{MEASURES}"
    (DOCS / "quality.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
