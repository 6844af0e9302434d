"""Define ``repsr compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repsr_cli.cli.console import Board, friendly, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Quiet
from repsr_cli.compare.options import CompareOptions


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
