"""Put the commands together as the Typer app ``repsr``. A command imports its pipeline inside its body."""

from __future__ import annotations

import atexit
import gc
from typing import Annotated

import typer

from repsr_cli.cli import export_commands, training_commands
from repsr_cli.cli.bench_command import bench
from repsr_cli.cli.compare_command import compare
from repsr_cli.cli.info_commands import doctor, models
from repsr_cli.cli.upscale_command import upscale
from repsr_cli.version import __version__

# Python looks for garbage before it ends, through all that was imported: a third of a second where torch was.
atexit.register(gc.freeze)

app = typer.Typer(
    name="repsr",
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


app.command()(upscale)
training_commands.register(app)
export_commands.register(app)
app.command()(compare)
app.add_typer(bench, name="bench")
app.command()(models)
app.command()(doctor)
