"""Declare the options of ``repsr compare`` and ``repsr preview``. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repsr_cli.errors import UsageError
from repsr_cli.options import option, parse_seconds, shared
from repsr_cli.upscale.request import FILES, MODEL, VIDEOS, RunOptions

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


def _times(flag: str, texts: list[str]) -> tuple[float, ...]:
    return tuple(parse_seconds(flag, text) for text in texts)


def _names(_flag: str, texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _numbers(flag: str, texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(text) for text in texts))
    except ValueError as error:
        example = "0.5" if flag == "--detail" else "18"
        raise UsageError(f"{flag} {' '.join(texts)}", "not numbers", f"Try {flag} {example}.") from error


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """What a preview shows: every combination of models, encoders and qualities.

    Attributes:
        details: values of ``--detail``, None among them for the default.
        codecs: encoders by name, None among them for the container's default.
    """

    output: Path | None = option("-o", "--output", help="Page to write; default: NAME_preview.html.", panel=FILES)
    models: tuple[str, ...] = option(
        "-n", "--model", default=(), metavar="NAME|PATH", parse=_names, repeated=True,
        help="A model to show, several if repeated; default: fast and balanced.", panel=MODEL,
    )  # fmt: skip
    details: tuple[float | None, ...] = option(
        "--detail", default=(None,), metavar="0..1", parse=_numbers, repeated=True,
        help="From faithful (0) to crisp (1), several if repeated.", panel=MODEL,
    )  # fmt: skip
    codecs: tuple[str | None, ...] = option(
        "-c", "--codec", default=(None,), parse=_names, repeated=True,
        help="Encoder to show, several if repeated.", panel=VIDEOS,
    )  # fmt: skip
    crfs: tuple[float | None, ...] = option(
        "--crf", default=(None,), parse=_numbers, repeated=True, help="Quality to show, several if repeated.",
        panel=VIDEOS,
    )  # fmt: skip
    at: tuple[float, ...] = option(
        "--at", default=(), metavar="TIME", parse=_times, repeated=True,
        help="Time of a frame to show, several if repeated; default: chosen by scene.", panel=VIDEOS,
    )  # fmt: skip
    frames: int = option("--frames", default=3, minimum=1, help="Frames to choose of each video.", panel=VIDEOS)
