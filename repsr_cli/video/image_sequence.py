"""Numbered images that stand for a video: ``frames/%06d.png``. Floor 2, without PyAV."""

from __future__ import annotations

import re
from pathlib import Path

from repsr_cli.errors import MediaError

_PATTERN = re.compile(r"([^%]*)%(?:0?\d+)?d([^%]*\.\w+)")


def is_pattern(path: Path) -> bool:
    """Whether a path stands for numbered images; a file of that very name is that file."""
    return _PATTERN.fullmatch(path.name) is not None and not path.exists()


def existing(pattern: Path) -> dict[int, Path]:
    """The images there are of those that a pattern stands for, by number, in order.

    Raises:
        MediaError: the folder cannot be read.
    """
    found = _PATTERN.fullmatch(pattern.name)
    assert found is not None
    named = re.compile(f"{re.escape(found[1])}([0-9]+){re.escape(found[2])}")
    try:
        matches = [named.fullmatch(path.name) for path in pattern.parent.iterdir()]
    except OSError as error:
        raise MediaError(pattern, error.strerror or str(error), "Check the path.") from error
    # 1.png is not among those that %06d stands for.
    numbers = sorted(int(match[1]) for match in matches if match and pattern.name % int(match[1]) == match[0])
    return {number: pattern.with_name(pattern.name % number) for number in numbers}


def numbered(pattern: Path) -> dict[int, Path]:
    """As ``existing``, for images that are to be read.

    Raises:
        MediaError: there are none, or one in between is missing.
    """
    images = existing(pattern)
    if not images:
        raise MediaError(pattern, "no such images", "Check the path, and the digits: %06d is 000001.")
    first, last = min(images), max(images)
    missing = next((number for number in range(first, last) if number not in images), None)
    if missing is not None:
        name = pattern.with_name(pattern.name % missing)
        raise MediaError(name, f"is missing, with {images[last].name} still to come")
    return images
