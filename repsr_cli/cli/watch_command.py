"""Define ``repsr watch``."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from repsr_cli.cli.console import Board, friendly
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Json, Quiet
from repsr_cli.cli.upscale_command import ReportOptions, ResultPrinter
from repsr_cli.errors import Interrupted
from repsr_cli.upscale.request import Naming, Request
from repsr_cli.upscale.watch_options import WatchOptions

# What exists is always left as it is, and results are always written.
_NOT_OFFERED = frozenset({"skip_existing", "overwrite", "benchmark", "dry_run", "estimate"})


@friendly
@functools.partial(grouped, without=_NOT_OFFERED)
def watch(
    naming: Naming,
    options: WatchOptions,
    request: Request,
    report: ReportOptions,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder whose images and videos are upscaled.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upscale whatever lands in a folder.

    Takes the options of upscale. A file is read once it has stopped changing. What has a result is left alone, so a
    restart continues where the last run ended, within a video too. One failure does not stop it; the file is tried
    again when it changes or when watch starts again. Ctrl-C and SIGTERM end it with exit code 0. Needs watchfiles.

    Example: repsr watch incoming/ -o upscaled/ -s 2
    """
    from repsr_cli.upscale.batch import settle_scale
    from repsr_cli.upscale.inputs import Failure
    from repsr_cli.upscale.watch import Skipped
    from repsr_cli.upscale.watch import watch as run

    printer = ResultPrinter(Board(quiet), json=json, verbose=report.verbose, benchmark=False, several=True)
    with printer.board as board:
        try:
            request = settle_scale(request)
            with closing(
                run(folder, request, naming, options, lambda job: board.reporter(job.source.name), board.say)
            ) as results:
                for result in results:
                    if isinstance(result, Failure):
                        printer.failed(result)
                    elif isinstance(result, Skipped):
                        printer.skipped(result.target, "exists")
                    else:
                        printer.done(result)
        except (Interrupted, KeyboardInterrupt):  # being stopped is the only way in which a service ends well
            board.say("stopped; the next run continues from here")
