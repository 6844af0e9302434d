"""Define ``repsr compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repsr_cli.cli.console import Board, friendly, print_line
from repsr_cli.upscale.options import parse_seconds


@friendly
def compare(
    before: Annotated[Path, typer.Argument(help="Shown on the left; enlarged if it is smaller.")],
    after: Annotated[Path, typer.Argument(help="Shown on the right.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: BEFORE_vs_AFTER.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="A page with a slider that needs no other file.")] = False,
    split: Annotated[bool, typer.Option("--split", help="One half of each instead of side by side.")] = False,
    blink: Annotated[bool, typer.Option("--blink", help="Two images that alternate, as an animated PNG.")] = False,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="WxH+X+Y", help="Show this window of two images.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="One frame of two videos, at this time: 2.5 or 1:30.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only.")] = False,
) -> None:
    """Compare two images or two videos.

    The smaller is enlarged by bicubic interpolation, as players do. Videos are compared frame by frame, by time;
    the first one's sound is kept.

    Example: repsr compare photo.jpg photo_x4.jpg --html
    """
    from repsr_cli.compare.comparison import compare as run
    from repsr_cli.compare.options import CompareOptions, parse_crop

    options = CompareOptions(
        output=output,
        html=html,
        split=split,
        blink=blink,
        crop=None if crop is None else parse_crop("--crop", crop),
        at=None if at is None else parse_seconds("--at", at),
        overwrite=overwrite,
    )
    with Board(quiet) as board:
        outcome = run(before, after, options, board.reporter(after.name))
    print_line(str(outcome.target))
