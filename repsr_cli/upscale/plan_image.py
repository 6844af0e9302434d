"""Decide everything about an image that can be decided from its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from repsr_cli.image.files import MAX_PIXELS, open_image
from repsr_cli.image.formats import format_for
from repsr_cli.model.zoo import ModelFile
from repsr_cli.upscale.judge_image import judge_image
from repsr_cli.upscale.models import Compute, choose_model
from repsr_cli.upscale.request import Request, SizeOptions


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What will be done to an image file.

    Attributes:
        target: the file to write; its suffix decides the format.
        shown: (height, width) of the first page, upright.
        factor: how many times it is enlarged, on the axis that grows more.
        size: the size of the result, by the size of each page.
        format: name of the target's format.
        tta: average over the 8 flips and rotations.
        max_pixels: refuse to hold more at a time.
        strip_metadata: leave out EXIF, XMP, ICC and text.
        allow_loss: leave out what the format cannot hold.
        benchmark: write nothing.
    """

    kind: ClassVar[Literal["image"]] = "image"
    source: Path
    target: Path
    compute: Compute
    shown: tuple[int, int]
    factor: float
    size: SizeOptions
    format: str
    tta: bool
    max_pixels: int
    strip_metadata: bool
    overwrite: bool
    allow_loss: bool
    benchmark: bool

    def __str__(self) -> str:
        return f"format: {self.format}"


def plan_image(source: Path, target: Path, request: Request, model: ModelFile | None = None) -> ImagePlan:
    """Decide everything about an image.

    Args:
        model: the model to use; None: the one that fits the request.

    Raises:
        MediaError: the image cannot be read.
        CheckpointError: no model fits the request.
        UsageError: no format has the target's suffix, or the image is larger than the size asked for.
    """
    limit = request.image.max_pixels or MAX_PIXELS
    format = format_for(target).name
    image = open_image(source, limit)
    shown = image.height, image.width
    if model is None:
        compute, factor = choose_model(request, source, shown, lambda: judge_image(image))
    else:
        compute, factor = Compute.of(request, model), float(model.scale)
    return ImagePlan(
        source=source,
        target=target,
        compute=compute,
        shown=shown,
        factor=factor,
        size=request.size.sides(),
        format=format,
        tta=request.image.tta,
        max_pixels=limit,
        strip_metadata=request.image.strip_metadata,
        overwrite=request.run.overwrite,
        allow_loss=request.run.allow_loss,
        benchmark=request.run.benchmark,
    )
