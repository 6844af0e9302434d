"""Write docs/models.md and its images from weights/: ``python docs/zoo.py``. A test compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import repsr_cli
from repsr_cli.compare.videos import frame_at
from repsr_cli.image.resize import imresize
from repsr_cli.model.zoo import ModelFile, available, load
from repsr_cli.upscale.judged import BITS_PER_PIXEL, JPEG_QUALITY, OTHER_IMAGES, OTHER_VIDEOS

DOCS = Path(__file__).parent
MEASURED = DOCS.parent / "train" / "studies" / "kinds.md"  # by train/kinds.py
VIDEO = DOCS.parent / "examples" / "bbb_480x270.mp4"
SECONDS, TOP, LEFT, HEIGHT, WIDTH = 1.5, 62, 160, 84, 120  # the part of the frame that is shown, LR px

HEAD = """# Models

Made from `weights/` by `python docs/zoo.py`. PSNR is of luma, in dB, for the usual bicubic downscaling; `repsr eval`
reproduces these figures, with those of bicubic next to them. `repsr models` measures the speed on your machine. The
model cards in `weights/` describe how each was trained. `clean` models are for images
without compression, `real` ones for compressed images and video, but listed with figures on clean images here; for
figures on compressed videos see `train/studies/video` and, at x3 and x4, `train/studies/detail.md`.

"""

KINDS = """## Which kind a source gets

A name is a size, a kind, a scale and a detail: `balanced-real-x4@0.5`. Every part but the size may be left out.
Where nothing names the kind, each input decides it, files of one folder one by one:

| source | kind |
|---|---|
| PNG, TIFF, BMP, GIF, TGA, PPM, PSD, lossless WebP and other images stored without loss | `clean` |
| JPEG, and TIFF compressed as JPEG | `clean` from quality {jpeg:g} on, else `real`. The quantization tables tell \
the quality, on libjpeg's scale |
| lossy WebP, AVIF, HEIC | `clean` from {webp:g} (WebP) or {avif:g} (AVIF, HEIC) bits per pixel on, else `real` |
| JPEG 2000, JPEG XL, which can be either | `clean` from {other_image:g} bits per pixel on, else `real` |
| FFV1, Huffyuv, UT Video, y4m (on a pipe, too), lossless H.264 and HEVC; ProRes, DNxHD, CineForm | `clean` |
| H.264, HEVC, VP9, AV1 | `clean` from {h264:g}, {hevc:g}, {vp9:g} and {av1:g} bits per pixel on, else `real` |
| any other video | `clean` from {other_video:g} bits per pixel on, else `real` |
| numbered images (`frames/%06d.png`) | as the first of them |
| animated GIF, WebP, PNG, AVIF | as images of their format, also where a video is written |

A file shows only how it was saved last: a JPEG of quality 50 that was saved again at 95 counts as clean. `--kind real`
and `--kind clean` override the choice for all inputs; so does a kind in the name. If a size does not ship as `real` at
the scale needed, its `clean` model stands in, and the first line says so. The thresholds lie halfway between where
PSNR-Y and where SSIMULACRA2 of both kinds cross, on photographs and clips that no model was trained on:

{measured}
"""

DIAL = """## Faithful or crisp

A `real` model is faithful, and soft where detail is lost. A `detail` model is crisp: it synthesizes detail that may not
have been there. Where both ship in one size and scale, `--detail 0.5` mixes their weights half and half: 0 is exactly
the `real` model, 1 exactly the `detail` one, and every value between is a model of the same speed. `--detail` implies
`--kind real`, for lossless inputs too. Without it, inputs that get the kind `real` by themselves or by `--kind` get the
default of the pair, which stands in `weights/index.toml`; `-n balanced-real` is detail 0, `-n balanced-detail` is 1.
`-n balanced@0.5` is another way to write it, and the only one for `repsr eval`, `bench` and `finetune`. It is a usage
error with a file, with `clean`, and where no pair of that size ships. At scales without a pair, the next larger pair
computes, and a resize follows.
{ships}

"""


def page(weights: list[ModelFile]) -> str:
    """The page as Markdown: a table, and for each model an image next to bicubic."""
    sets = list(dict.fromkeys(name for weight in weights for name in weight.psnr_y))
    rows = [["name", "size", "scale", "parameters", *sets], ["---"] * (4 + len(sets))]
    for weight in weights:
        parameters = sum(parameter.numel() for parameter in load(weight).parameters())
        figures = [f"{weight.psnr_y[name]:.2f}" if name in weight.psnr_y else "" for name in sets]
        rows.append([f"`{weight.name}`", weight.network, f"x{weight.scale}", f"{parameters:,}", *figures])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    images = [
        f"## {weight.name}\n\n![Bicubic left, {weight.name} right](zoo/{weight.name}.webp)\n" for weight in weights
    ]
    return f"{HEAD}{table}\n\n{kinds()}\n{dial(weights)}" + "\n".join(images)


def kinds() -> str:
    """The section on kinds, with the thresholds that the code has and the figures they come from."""
    bits = BITS_PER_PIXEL
    return KINDS.format(
        jpeg=JPEG_QUALITY, webp=bits["WEBP"], avif=bits["AVIF"], h264=bits["h264"], hevc=bits["hevc"], vp9=bits["vp9"],
        av1=bits["av1"], other_image=OTHER_IMAGES, other_video=OTHER_VIDEOS,
        measured=MEASURED.read_text(encoding="utf-8"),
    )  # fmt: skip


def dial(weights: list[ModelFile]) -> str:
    """The section on the dial, with the pairs that ship."""
    pairs = [
        f"{each.size} x{each.scale} (default {each.default_detail:g})" for each in weights if each.kind == "detail"
    ]
    return DIAL.format(ships=f"Pairs: {', '.join(pairs)}." if pairs else "No pair ships yet.")


def image(weight: ModelFile) -> Image.Image:
    """Part of a frame of the example video: bicubic on the left, the model on the right."""
    lr = frame_at(VIDEO, SECONDS)[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    sr = repsr_cli.load_model(weight.name, precision="fp32").upscale(lr)
    return Image.fromarray(np.concatenate([imresize(lr, sr.shape[:2]), sr], axis=1))


if __name__ == "__main__":
    (DOCS / "zoo").mkdir(exist_ok=True)
    for weight in available():
        image(weight).save(DOCS / "zoo" / f"{weight.name}.webp", quality=90)
    (DOCS / "models.md").write_text(page(available()), encoding="utf-8")
