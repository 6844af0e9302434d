"""Run ``repsr compare`` and ``repsr preview``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from repsr_cli.cli.console import Board, friendly, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Quiet
from repsr_cli.compare.options import CompareOptions, PreviewOptions
from repsr_cli.upscale.request import Request

# Those that a preview repeats, and those that make no sense for a few frames.
_NOT_OFFERED = frozenset(
    {"model", "detail", "codec", "crf", "benchmark", "allow_loss", "ray", "fps", "start", "end", "resume"}
)


@friendly
@grouped
def compare(
    options: CompareOptions,
    before: Annotated[Path, typer.Argument(help="Shown on the left; enlarged if it is smaller.")],
    after: Annotated[Path, typer.Argument(help="Shown on the right.")],
    quiet: Quiet = False,
) -> None:
    """Compare two images or two videos.

    The smaller is enlarged by bicubic interpolation, as players do. Videos are compared frame by frame, by time;
    the first one's audio is kept.

    Example: repsr compare photo.jpg photo_x4.jpg --html
    """
    from repsr_cli.compare.comparison import compare as run

    with Board(quiet) as board:
        outcome = run(before, after, options, board.reporter(after.name))
    print_line(str(outcome.target))


@friendly
@functools.partial(grouped, without=_NOT_OFFERED)
def preview(
    options: PreviewOptions,
    request: Request,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Images, videos, folders of them, patterns, @list.txt.")
    ],
    quiet: Quiet = False,
) -> None:
    """Compare models and encoders on a few frames before hours of work.

    Writes one page, which needs no other file, with bicubic interpolation beside every model, encoder and quality asked
    for: a slider, zoom to pixels, about how large each result will be and how long it will take here, and its command.

    Example: repsr preview clip.mp4 -n fast -n balanced --crf 18 --crf 23
    """
    from repsr_cli.compare.preview import preview as run

    with Board(quiet) as board:
        print_line(str(run(inputs, request, options, board.say)))
