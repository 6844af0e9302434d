"""Declare the options of ``repsr compare``. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repsr_cli.errors import UsageError
from repsr_cli.options import option, parse_seconds, shared
from repsr_cli.upscale.request import RunOptions

Form = Literal["beside", "split", "blink", "page"]


@dataclass(frozen=True, slots=True)
class Crop:
    """A window into the larger of two images, in its pixels."""

    width: int
    height: int
    left: int
    top: int


def parse_crop(flag: str, text: str) -> Crop:
    """Parse a window from ``WxH+LEFT+TOP``.

    Args:
        flag: the option, for the error.

    Raises:
        UsageError: it has another form, or is empty.
    """
    match = re.fullmatch(r"([0-9]+)x([0-9]+)\+([0-9]+)\+([0-9]+)", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"{flag} {text}", "not a window", f"Try {flag} 640x360+100+50: width, height, left, top.")
    return Crop(*map(int, match.groups()))


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How two images or videos are compared. Without ``html``, ``split`` and ``blink`` they are put side by side."""

    output: Path | None = option("-o", "--output", help="File to write; default: BEFORE_vs_AFTER next to AFTER.")
    html: bool = option("--html", default=False, help="A page with a slider that needs no other file.")
    split: bool = option("--split", default=False, help="One half of each instead of side by side.")
    blink: bool = option("--blink", default=False, help="Two images that alternate, as an animated PNG.")
    crop: Crop | None = option("--crop", metavar="WxH+X+Y", parse=parse_crop, help="Show this window of two images.")
    at: float | None = option(
        "--at", metavar="TIME", parse=parse_seconds, help="One frame of two videos, at this time: 2.5 or 1:30."
    )
    overwrite: bool = shared(RunOptions, "overwrite", panel=None)

    @property
    def form(self) -> Form:
        """The form of the result.

        Raises:
            UsageError: more than one was chosen.
        """
        forms: dict[Form, bool] = {"page": self.html, "split": self.split, "blink": self.blink}
        chosen = [form for form, wanted in forms.items() if wanted]
        if len(chosen) > 1:
            raise UsageError("--html, --split, --blink", "more than one was given", "Give one of them.")
        return chosen[0] if chosen else "beside"
