"""Cut off the rows and columns of frames that their container crops (Matroska's PixelCrop, MP4's clap)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av.video.format import VideoFormat

from repsr_cli.errors import MediaError
from repsr_cli.video.planes import Planes, subsampling


@dataclass(frozen=True, slots=True)
class Crop:
    """Rows (``top``, ``bottom``) and columns (``left``, ``right``) that are not shown."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return self != NO_CROP

    def __str__(self) -> str:
        return f"{self.top} rows above, {self.bottom} below, {self.left} columns left, {self.right} right"


NO_CROP = Crop()


def find_crop(path: Path, description: Sequence[str], planar: str, height: int, width: int) -> Crop:
    """What a container crops of a stream's frames.

    Args:
        description: FFmpeg's, of the stream, line by line.
        height: of a frame as decoded.

    Raises:
        MediaError: the crop leaves nothing, or begins within a sample of chroma.
    """
    for line in description:
        found = re.match(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", line, re.IGNORECASE)
        if found is None:
            continue
        left, right, top, bottom = map(int, found.groups())
        crop = Crop(top, bottom, left, right)
        rows, columns = subsampling(VideoFormat(planar))
        if top + bottom >= height or left + right >= width:
            raise MediaError(path, f"its container crops all of its {width}x{height} ({crop})", "Remux it without.")
        if top % rows or left % columns:
            happened = f"its container crops it within samples of chroma ({crop})"
            raise MediaError(path, happened, "Crop it with another tool first.")
        return crop
    return NO_CROP


def cropped(planes: Planes, planar: str, crop: Crop, height: int, width: int) -> Planes:
    """Views of planes as decoded without what is cropped; ``height`` and ``width`` are of what remains."""
    if not crop:
        return planes
    rows, columns = subsampling(VideoFormat(planar))
    result = []
    for number, plane in enumerate(planes):
        down, across = (rows, columns) if number in (1, 2) else (1, 1)
        top, left = crop.top // down, crop.left // across
        result.append(plane[top : top - (-height // down), left : left - (-width // across)])
    return tuple(result)
