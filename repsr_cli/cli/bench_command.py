"""Run ``repsr bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from repsr_cli.cli.console import Board, friendly, print_json, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Json, Quiet, Settings
from repsr_cli.diagnostics.bench_options import BenchOptions

if TYPE_CHECKING:
    from repsr_cli.diagnostics.bench import Bench
    from repsr_cli.diagnostics.bench_train import TrainBench


class _VideoUnlessNamed(TyperGroup):
    """``repsr bench VIDEO`` and ``repsr bench`` mean ``repsr bench upscale``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["upscale", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(cls=_VideoUnlessNamed, help="Measure how fast this machine upscales, or trains.")


@bench.command("upscale")
@friendly
@grouped
def bench_upscale(
    options: BenchOptions,
    video: Annotated[Path | None, typer.Argument(help="Video to upscale; default: measure the network alone.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the network alone, the pipeline without encoder, and end to end. The word upscale may be left out.

    Example: repsr bench examples/bbb_480x270.mp4 -n fast
    """
    from repsr_cli.diagnostics.bench import bench as measure

    with Board(quiet) as board:
        measured = measure(options, video, board.reporter("bench" if video is None else video.name))
    _print(measured, json)


@bench.command("train")
@friendly
def bench_train(
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML); its network, batch, optimiser and device are used.")],
    settings: Settings = None,
    window: Annotated[int, typer.Option("--window", help="Steps per measurement.", min=1)] = 5,
    rounds: Annotated[int, typer.Option("--rounds", help="Measurements per phase; the best counts.", min=1)] = 3,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure training steps per second: branched, merged, and the plain network.

    Example: repsr bench train train/recipes/m4c16-x4.toml --set batch.size=32 --set batch.patch=48
    """
    from repsr_cli.diagnostics.bench_train import bench_train as measure
    from repsr_cli.training.recipe import load_recipe

    with Board(quiet) as board:
        measured = measure(load_recipe(recipe, settings), window, rounds, board.say)
    _print(measured, json)


def _print(measured: Bench | TrainBench, json: bool) -> None:
    if json:
        print_json(measured.record(), result=True)
    else:
        for line in measured.lines():
            print_line(line, result=True)
