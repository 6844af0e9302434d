"""Find the numbered images that a pattern such as ``frames/%06d.png`` stands for."""

from __future__ import annotations

import re
from pathlib import Path

from repsr_cli.errors import MediaError

_PATTERN = re.compile(r"([^%]*)%(?:0?\d+)?d([^%]*\.\w+)")
# The first images of a Motion JPEG stream are within so many bytes.
_MOTION_JPEG_HEAD = 1 << 24


def is_pattern(path: Path) -> bool:
    """Whether a path stands for numbered images, that is, no file has this very name."""
    return _PATTERN.fullmatch(path.name) is not None and not path.exists()


def existing(pattern: Path) -> dict[int, Path]:
    """The existing images that a pattern stands for, by number, in order."""
    found = _PATTERN.fullmatch(pattern.name)
    assert found is not None
    named = re.compile(f"{re.escape(found[1])}([0-9]+){re.escape(found[2])}")
    try:
        matches = [named.fullmatch(path.name) for path in pattern.parent.iterdir()]
    except OSError as error:
        raise MediaError(pattern, error.strerror or str(error), "Check the path.") from error
    # %06d does not stand for 1.png.
    numbers = sorted(int(match[1]) for match in matches if match and pattern.name % int(match[1]) == match[0])
    return {number: pattern.with_name(pattern.name % number) for number in numbers}


def numbered(pattern: Path) -> dict[int, Path]:
    """Like ``existing``, but complete."""
    images = existing(pattern)
    if not images:
        raise MediaError(pattern, "no such images", "Check the path, and the digits: %06d is 000001.")
    first, last = min(images), max(images)
    missing = next((number for number in range(first, last) if number not in images), None)
    if missing is not None:
        name = pattern.with_name(pattern.name % missing)
        raise MediaError(name, f"is missing, but {images[last].name} exists")
    return images


def is_motion_jpeg(path: Path) -> bool:
    """Whether a file is JPEG images one after the other and nothing else: a raw Motion JPEG stream.

    Photos may hold further images as well (a preview, a depth map), but list them (MPF) or hide them in segments.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head[:3] != b"\xff\xd8\xff":
                return False
            head += file.read(_MOTION_JPEG_HEAD)
    except OSError:
        return False
    if b"MPF\0" in head[: 1 << 16]:
        return False
    follow = head.count(b"\xff\xd9\xff\xd8\xff")
    return follow >= 2 or (follow >= 1 and path.suffix.lower() in (".mjpeg", ".mjpg"))
