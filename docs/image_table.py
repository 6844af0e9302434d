"""Make the table of docs/images.md: every image of a folder from file to file, with an identity network.

    python docs/image_table.py FOLDER

Targets are the ones that ``repsr upscale`` chooses. The comparison is of what a reader of the output
finds. For lossy formats, the largest difference is given in 8-bit code values.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RepsrError
from repsr_cli.image.files import open_image
from repsr_cli.image.page import Page
from repsr_cli.model.plain import identity_network
from repsr_cli.model.zoo import ModelFile
from repsr_cli.reporting import SILENT
from repsr_cli.upscale.image import upscale_image
from repsr_cli.upscale.image_sinks import sink_for
from repsr_cli.upscale.jobs import plan_jobs
from repsr_cli.upscale.plan_image import plan_image
from repsr_cli.upscale.request import Naming, Request

HEAD = """# Test images

Made by `python docs/image_table.py FOLDER`: difficult images from file to file with an identity network, so that every
difference is repsr's. "Equal" is what a reader of the output finds; for lossy formats, the largest difference is given
in 8-bit code values. Metadata: ICC profile, XMP, text, colour chunks and resolution must be equal; EXIF must be there.
Which kind of model an image gets without asking is described under [models](models.md#which-kind-a-source-gets).

| image | to | mode | pixels | metadata | pages, times, loops | remarks |
|---|---|---|---|---|---|---|
"""


def mode(page: Page) -> str:
    """Channels and depth, e.g. ``RGB+A 16``."""
    depth = "float" if page.dtype.kind == "f" else str(8 * page.dtype.itemsize)
    return ("grey" if page.channels == 1 else "RGB") + ("+A " if page.alpha else " ") + depth


def difference(before: Page, after: Page) -> float:
    """The largest difference of visible pixels, in 8-bit code values."""
    old, new = before.read(), after.read()
    peak = 1.0 if before.dtype.kind == "f" else float(np.iinfo(before.dtype).max)
    apart = np.abs(old.pixels.astype(np.float64) - new.pixels)
    if old.alpha is not None and new.alpha is not None:
        apart = apart[(old.alpha > 0) & (new.alpha > 0)]
        apart = np.append(apart, np.abs(old.alpha.astype(np.float64) - new.alpha).max())
    # Floats come back to within rounding of the division by their largest value.
    scale = max(peak, float(old.pixels.max())) if peak == 1 else peak
    worst = float(apart.max(initial=0)) * 255 / scale
    return 0.0 if worst < 1e-4 else worst


def described(exif: bytes | None) -> bool:
    """Whether an EXIF block holds more than the orientation."""
    tags = Image.Exif()
    tags.load(exif or b"")
    return bool(set(tags) - {ExifTags.Base.Orientation})


IDENTITY = ModelFile("identity", Path("identity"), 1)


def row(path: Path, folder: Path, upscaler: Upscaler) -> str:
    """One image's line."""
    options = Request.of(scale=1.0)
    try:
        plan = plan_jobs([str(path)], options, Naming(output=f"{folder}/"))
        if plan.failures:
            raise plan.failures[0].error
        target = plan.jobs[0].target
        image_plan = plan_image(path, target, options, IDENTITY)
        outcome = upscale_image(image_plan, sink_for(image_plan), upscaler, SILENT)
    except RepsrError as error:
        return f"| {path.name} | refused: {error.happened.replace('|', '/')} | | | | | |"
    one, two = open_image(path), open_image(target)
    worst, modes, around, times = 0.0, set(), True, True
    for old, new in zip(one.pages(), two.pages(), strict=True):
        worst = max(worst, difference(old, new))
        modes.add(mode(new) if mode(new) == mode(old) else f"{mode(old)} CHANGED to {mode(new)}")
        times &= old.duration == new.duration
        a, b = old.metadata, new.metadata
        around &= (a.icc, a.xmp, a.text, a.colour) == (b.icc, b.xmp, b.text, b.colour)
        around &= described(a.exif) == described(b.exif)
        around &= a.dpi is None or (b.dpi is not None and np.allclose(a.dpi, b.dpi, rtol=1e-3))
    times &= (one.count, one.loop) == (two.count, two.loop)
    counted = "" if one.count == 1 else f"{one.count}, {'equal' if times else 'CHANGED'}"
    pixels = "equal" if not worst else f"within {worst:.0f}"
    kept = "equal" if around else "CHANGED"
    notes = " ".join(outcome.notes).replace("|", "/")
    return f"| {path.name} | {two.format} | {', '.join(sorted(modes))} | {pixels} | {kept} | {counted} | {notes} |"


def main(folder: Path) -> None:
    """Print the page."""
    upscaler = Upscaler(identity_network(1), device="cpu")
    sys.stdout.write(HEAD)
    for path in sorted(folder.iterdir()):
        if path.suffix != ".md":
            with tempfile.TemporaryDirectory() as made:
                sys.stdout.write(row(path, Path(made), upscaler) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
