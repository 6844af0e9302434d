"""Remember which engine and tiles are the fastest for videos of a kind on this machine."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

from repsr_cli.engine.backends.registry import ENGINES, engine_name, installed_engines
from repsr_cli.upscale.cache import Say, cache_folder, recall, remember
from repsr_cli.upscale.precision import processor
from repsr_cli.yuv.formats import PlaneFormat

if TYPE_CHECKING:  # torch, which short videos do without
    from repsr_cli.engine.array_frames import ArrayCompute
    from repsr_cli.engine.upscaler import Upscaler

# Seconds of work from which on trials pay.
WORTH = 30.0
# Multiply-accumulates a second and thread, of a processor with AVX2: for the guess whether they do.
RATE = 25e9


@dataclass(frozen=True, slots=True)
class Choice:
    """What computes videos of a kind.

    Attributes:
        engine: as ``--engine`` takes it.
        tile: as ``--tile`` takes it.
    """

    engine: str
    tile: str


def worth_measuring(macs: int, threads: int) -> bool:
    """Whether a video takes so long that trials pay.

    Args:
        macs: multiply-accumulates of all its frames.
    """
    return macs >= WORTH * RATE * threads


def kind_of(upscaler: Upscaler | ArrayCompute, fmt_in: PlaneFormat, fmt_out: PlaneFormat, size: tuple[int, int]) -> str:
    """Everything that the fastest choice depends on, in words: machine, versions, network, planes, size of frames.

    Args:
        size: (height, width) of a frame, LR px; those of about as many pixels, to the nearest power of two, count as
            one.
    """
    engines = installed_engines(upscaler.precision)
    versions = [f"torch {version('torch')}", *(engine_name(word) for word in engines[1:])]
    machine = f"{processor()}, {upscaler.threads} threads" + (", bf16" if upscaler.precision == "bf16" else "")
    planes = " to ".join(dict.fromkeys(_words(fmt) for fmt in (fmt_in, fmt_out)))
    pixels = 2 ** round(log2(size[0] * size[1]))
    return f"{upscaler.name}, {planes}, {pixels} pixels; {machine}; {', '.join(versions)}"


def choices_file() -> Path:
    """The JSON file of the choices made on this machine, by kinds of videos (``kind_of``); it need not exist."""
    return cache_folder() / "engines.json"


def recall_choices(say: Say) -> dict[str, Choice]:
    """All choices; none where there is no file, or where it is damaged, which is reported."""
    return recall(choices_file(), _choice, say)


def keep_choice(key: str, choice: Choice, say: Say) -> None:
    """Add a choice; the file is replaced as a whole. Failing to do so is reported, not raised."""
    choices = recall_choices(lambda _line: None) | {key: choice}
    remember(choices_file(), {key: asdict(each) for key, each in choices.items()}, say)


def _choice(entry: dict[str, str]) -> Choice:
    """A choice as the file has it.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    choice = Choice(entry["engine"], entry["tile"])
    if choice.engine not in ("torch", *ENGINES) or not re.fullmatch(r"auto:[1-9]\d*", choice.tile):
        raise ValueError(entry)
    return choice


def _words(fmt: PlaneFormat) -> str:
    subsampling = {(2, 2): "4:2:0", (1, 2): "4:2:2", (2, 1): "4:4:0"}.get(fmt.subsample, "4:4:4")
    layout = fmt.matrix if fmt.matrix in ("rgb", "grey") else f"{fmt.matrix} {subsampling} {fmt.siting}"
    return f"{layout} {fmt.depth} bit {'full' if fmt.full_range else 'limited'}"
