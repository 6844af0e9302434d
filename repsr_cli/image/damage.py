"""Report what is wrong with an image file in the same words for every format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repsr_cli.errors import MediaError, raise_shortage

# Bytes that hold nothing where they follow an image.
FILLING = b"\0\xff\r\n "


def left_out_after(nbytes: int) -> list[str]:
    """The note on so many bytes after an image, if there are any."""
    return [f"{nbytes} bytes after the image are left out."] if nbytes else []


class Damaged(Exception):
    """What is wrong, in words that follow "is damaged:"."""


@contextmanager
def reporting_damage(path: Path, what: str, *others: type[Exception]) -> Iterator[None]:
    """Turn ``Damaged``, and ``others`` that a decoder raises, into a MediaError that calls the file ``what``."""
    kinds: tuple[type[Exception], ...] = (Damaged, *others)
    try:
        yield
    except kinds as damage:
        raise_shortage(damage, path)
        raise MediaError(path, f"the {what} is damaged: {damage}", "Repair or re-export it.") from damage
