"""``repsr bench``: how fast it is here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from repsr_cli.cli.console import Board, friendly, print_json, print_line
from repsr_cli.errors import MediaError
from repsr_cli.upscale.options import parse_box
from repsr_cli.upscale.request import Request


class _VideoUnlessNamed(TyperGroup):
    """``repsr bench VIDEO`` and ``repsr bench`` mean ``repsr bench upscale``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["upscale", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(cls=_VideoUnlessNamed, help="Measure how fast this machine upscales, or trains.")


@bench.command("upscale")
@friendly
def bench_upscale(
    video: Annotated[
        Path | None, typer.Argument(help="A video to measure the whole way with; default: the network alone.")
    ] = None,
    network: Annotated[
        str | None, typer.Option("-n", "--network", "--model", metavar="NAME|PATH", help="A name or a file.")
    ] = None,
    scale: Annotated[float | None, typer.Option("-s", "--scale", help="Factor; default: 4.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, fp32, fp16 or bf16.")] = "auto",
    tile: Annotated[str, typer.Option("-t", "--tile", help="auto, auto:PIXELS, off or a size.")] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.", min=1)] = None,
    engine: Annotated[str, typer.Option("--engine", help="As repsr upscale has it.")] = "auto",
    codec: Annotated[str | None, typer.Option("-c", "--codec", help="Encoder, e.g. libx265.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Of the encoder, e.g. veryfast.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="How often; the best counts.", min=1)] = 5,
    size: Annotated[
        str, typer.Option("--size", metavar="WxH", help="Of the frame that the network alone is measured with.")
    ] = "480x270",
    rival: Annotated[
        str | None, typer.Option("--rival", help="A command to race, with {source} and {target} in it.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also every engine and size of tiles that auto may use for long videos."),
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write bars as an SVG image here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only on stderr.")] = False,
) -> None:
    """Measure the network alone, the pipeline without encoder, and end to end; the word upscale may be left out.

    Example: repsr bench examples/bbb_480x270.mp4 -n fast
    """
    from repsr_cli.diagnostics.bench import BenchOptions
    from repsr_cli.diagnostics.bench import bench as measure

    upscale = Request.of(
        scale=scale,
        model=network,
        device=device,
        precision=precision,
        tile=tile,
        threads=threads,
        engine=engine,
        codec=codec,
        preset=preset,
    )
    frame = parse_box("--size", size)
    with Board(quiet) as board:
        options = BenchOptions(
            upscale=upscale, source=video, rival=rival, size=frame, rounds=rounds, calibrate=calibrate
        )
        measured = measure(options, board.reporter("bench" if video is None else video.name))
    if json:
        print_json(measured.record())
    else:
        for line in measured.lines():
            print_line(line)
    if plot is not None:
        try:
            plot.write_text(measured.plot(), encoding="utf-8")
        except OSError as error:
            raise MediaError(plot, f"cannot be written ({error.strerror})", "Choose another place.") from error


@bench.command("train")
@friendly
def bench_train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML): its network, batch, optimiser and device count.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's value. Repeatable.")
    ] = None,
    window: Annotated[int, typer.Option("--window", help="Steps per measurement.", min=1)] = 5,
    rounds: Annotated[int, typer.Option("--rounds", help="Measurements per phase; the best counts.", min=1)] = 3,
    json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only on stderr.")] = False,
) -> None:
    """Measure training steps a second: branched, merged, and the deployed network itself.

    Example: repsr bench train train/recipes/m4c16-x4.toml --set batch.size=32 --set batch.patch=48
    """
    from repsr_cli.diagnostics.bench_train import bench_train as measure
    from repsr_cli.training.recipe import load_recipe

    with Board(quiet) as board:
        measured = measure(load_recipe(recipe, settings), window, rounds, board.say)
    if json:
        print_json(measured.record())
    else:
        for line in measured.lines():
            print_line(line)
