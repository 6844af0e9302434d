"""Put the commands together as the Typer app ``repsr``. A command imports its pipeline inside its body."""

from __future__ import annotations

import atexit
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from repsr_cli.cli.bench_command import bench
from repsr_cli.cli.compare_commands import compare, preview
from repsr_cli.cli.console import print_error
from repsr_cli.cli.export_commands import export, fuse
from repsr_cli.cli.info_commands import doctor, models
from repsr_cli.cli.streams import lenient_streams, lost_output, visible
from repsr_cli.cli.training_commands import evaluate, finetune, prepare, train
from repsr_cli.cli.upscale_command import upscale
from repsr_cli.cli.watch_command import watch
from repsr_cli.errors import UsageError
from repsr_cli.version import __version__

# Python looks for garbage before it ends, through all that was imported: a third of a second where torch was.
atexit.register(gc.freeze)

_EMPTY_OPTION = re.compile(r"--[a-z-]+=")


class _Commands(TyperGroup):
    """The commands.

    Streams that cannot be written do not stop them, and control characters that users typed are shown as escapes.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As Click does it; fails at the end where what was printed is lost."""
        with lenient_streams():
            try:
                return super().main(*args, **kwargs)
            except SystemExit as end:
                lost = lost_output()
                if end.code or lost is None:
                    raise
                print_error(lost)
                raise SystemExit(lost.exit_code) from end

    def make_context(self, info_name: Any, args: list[str], *others: Any, **kwargs: Any) -> Any:
        """As Click does it; refuses empty arguments, but not where a shell asks how to complete them."""
        refused = None if kwargs.get("resilient_parsing") else _empty_argument(args)
        if refused is not None:
            print_error(refused)
            raise SystemExit(refused.exit_code)
        with _shown():
            return super().make_context(info_name, args, *others, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """As Click does it."""
        with _shown():
            return super().invoke(ctx)


def _empty_argument(arguments: list[str]) -> UsageError | None:
    """An error for the first empty argument: to Python, an empty path is the current folder.

    Only ``--suffix`` may be empty.
    """
    options = True
    for before, argument in pairwise(["repsr", *arguments]):
        options = options and before != "--"
        remedy = "In a script, see whether its variable is set."
        if not argument and not (options and before == "--suffix"):
            return UsageError(f"the argument after {before or repr('')}", "is empty", remedy)
        if options and argument != "--suffix=" and _EMPTY_OPTION.fullmatch(argument):
            return UsageError(argument.removesuffix("="), "is empty", remedy)
    return None


@contextmanager
def _shown() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Click's errors: some versions of Typer bring a Click of their own.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            cast(Any, error).message = visible(str(error.message))
        raise


app = typer.Typer(
    name="repsr",
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"repsr {__version__}")
        raise typer.Exit


@app.callback()
def repsr(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Upscale images and video; train the networks that do it, on what you have.

    Start with: repsr upscale clip.mp4 -s 4
    """
    from repsr_cli.engine.memory import keep_freed_memory

    keep_freed_memory()


app.command()(upscale)
app.command()(watch)
app.command()(train)
app.command("eval")(evaluate)
app.command()(finetune)
app.command("learn", hidden=True)(finetune)
app.command()(prepare)
app.command()(fuse)
app.command()(export)
app.command()(compare)
app.command()(preview)
app.add_typer(bench, name="bench")
app.command()(models)
app.command()(doctor)
