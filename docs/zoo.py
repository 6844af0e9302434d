"""Write docs/models.md and its images from weights/: ``python docs/zoo.py``. A test compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import repsr_cli
from repsr_cli.compare.videos import frame_at
from repsr_cli.image.resize import imresize
from repsr_cli.model.zoo import ModelFile, available, load

DOCS = Path(__file__).parent
VIDEO = DOCS.parent / "examples" / "bbb_480x270.mp4"
SECONDS, TOP, LEFT, HEIGHT, WIDTH = 1.5, 62, 160, 84, 120  # the part of the frame that is shown, LR px

HEAD = """# Models

Made from `weights/` by `python docs/zoo.py`. PSNR is of luma, in dB, for the usual bicubic downscaling; `repsr eval`
reproduces these figures, with those of bicubic next to them. `repsr models` measures the speed on your machine. The
model cards in `weights/` describe how each was trained. `clean` models are for images
without compression, `real` ones for compressed images and video, but listed with figures on clean images here; for
figures on compressed videos see `train/studies/video`.

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
    return f"{HEAD}{table}\n\n" + "\n".join(images)


def image(weight: ModelFile) -> Image.Image:
    """Part of a frame of the example video: bicubic on the left, the model on the right."""
    lr = frame_at(VIDEO, SECONDS)[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    sr = repsr_cli.load_model(weight.name).upscale(lr)
    return Image.fromarray(np.concatenate([imresize(lr, sr.shape[:2]), sr], axis=1))


if __name__ == "__main__":
    (DOCS / "zoo").mkdir(exist_ok=True)
    for weight in available():
        image(weight).save(DOCS / "zoo" / f"{weight.name}.webp", quality=90)
    (DOCS / "models.md").write_text(page(available()), encoding="utf-8")
