"""``repsr compare``: two images or videos against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsr_cli.cli.console import Board, friendly, print_line
from repsr_cli.cli.upscale_command import parse_seconds
from repsr_cli.errors import UsageError

if TYPE_CHECKING:
    from repsr_cli.compare.images import Form


@friendly
def compare(
    before: Annotated[Path, typer.Argument(help="Shown at the left; enlarged if it is the smaller.")],
    after: Annotated[Path, typer.Argument(help="Shown at the right.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: BEFORE_vs_AFTER.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="A page with a slider that needs no other file.")] = False,
    split: Annotated[bool, typer.Option("--split", help="One half each, not side by side.")] = False,
    blink: Annotated[
        bool, typer.Option("--blink", help="Two images in turns at one place, as an animated PNG.")
    ] = False,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="WxH+X+Y", help="Show this window of two images.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="An image of two videos at this time: 2.5 or 1:30.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only.")] = False,
) -> None:
    """Hold two images or two videos against each other.

    The smaller is enlarged by bicubic interpolation, as players do. Videos are compared frame by frame, by time;
    the first one's sound is kept.

    Example: repsr compare photo.jpg photo_x4.jpg --html
    """
    from repsr_cli.compare.images import compare as make
    from repsr_cli.compare.images import parse_crop

    forms: dict[Form, bool] = {"page": html, "split": split, "blink": blink}
    asked = [form for form, wanted in forms.items() if wanted]
    if len(asked) > 1:
        raise UsageError("--html, --split, --blink", "more than one was given", "Give one of them.")
    with Board(quiet) as board:
        outcome = make(
            before,
            after,
            output,
            asked[0] if asked else "beside",
            crop=None if crop is None else parse_crop(crop),
            at=parse_seconds("--at", at),
            overwrite=overwrite,
            reporter=board.reporter(after.name),
        )
    print_line(str(outcome.target))
