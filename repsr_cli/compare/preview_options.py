"""Declare the options of ``repsr preview``. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repsr_cli.errors import UsageError
from repsr_cli.options import option, parse_seconds
from repsr_cli.upscale.request import FILES, MODEL, VIDEOS


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
