"""Run ``repsr train``, ``repsr eval``, ``repsr finetune`` and ``repsr prepare``."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsr_cli.cli.console import Board, clock, friendly, print_json, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.training.options import (
    DrawingOptions,
    EvalOptions,
    FinetuneOptions,
    PrepareOptions,
    StartOptions,
    TableOptions,
)

if TYPE_CHECKING:
    from types import FrameType

    from repsr_cli.training.evaluate import ImageScore
    from repsr_cli.training.loop import StepReport


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """A function that returns True after Ctrl-C, so that a step is finished and its state saved.

    A second Ctrl-C stops at once.
    """
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def _counter(board: Board, what: str) -> Callable[[int, int], None]:
    """A callback that reports how many items are done, every few seconds."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == 0 or time.monotonic() - last > 5:
            last = time.monotonic()
            board.say(f"{what}: {done} of {total}")

    return report


def _step_line(report: StepReport, seconds: float) -> str:
    if report.note:
        return f"step {report.step}: {report.note}"
    line = f"step {report.step}/{report.steps}  loss {report.loss:.5f}  {report.steps_per_second:.1f} steps/s"
    if report.data_share >= 0.05:
        line += f"  {report.data_share:.0%} of the time spent waiting for data"
    if report.psnr_y is not None and report.psnr_rgb is not None:
        line += f"  validation {report.psnr_y:.3f} dB Y, {report.psnr_rgb:.3f} dB RGB"
    left = seconds / max(1, report.steps_per_second)
    return f"{line}  {clock(left)} left" if report.step < report.steps else line


@friendly
@grouped
def train(
    drawing: DrawingOptions,
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML); train/recipes has examples.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run directory.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Value to override in the recipe. Repeatable."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="List every unusable image and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON record per report on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only on stderr.")] = False,
) -> None:
    """Train a network as a recipe describes.

    Example: repsr train train/recipes/m4c16-x4.toml -o runs/mine --set data.train=IMAGES
    """
    from repsr_cli.errors import RecipeError
    from repsr_cli.training.recipe import load_recipe

    loaded = load_recipe(recipe, settings)
    with Board(quiet=quiet) as board:
        if check:
            from repsr_cli.training.dataset import check_images, find_images

            images = find_images(Path(loaded.data.train).expanduser())
            problems = check_images(images, loaded.network.scale, loaded.batch.patch)
            for problem in problems:
                print_line(problem)
            if problems:
                count = f"{len(problems)} of {len(images)} images cannot be used"
                raise RecipeError(loaded.data.train, count, "They are listed above.")
            board.say(f"{len(images)} images, all usable")
            return
        from repsr_cli.training.loop import train as run_training

        packing = _counter(board, "packing images")

        if drawing.show_batch is not None:
            from repsr_cli.training.run_data import draw_batch

            draw_batch(loaded, output, drawing.show_batch, packing, overwrite=drawing.overwrite)
            print_line(str(drawing.show_batch))
            return

        def report(step: StepReport) -> None:
            if json:
                print_json({name: getattr(step, name) for name in type(step).__slots__})
            board.say(_step_line(step, step.steps - step.step))

        with _stop_on_interrupt() as stopped:
            outcome = run_training(
                loaded, output, resume=resume, on_report=report, on_packing=packing, should_stop=stopped
            )
        board.say(f"best validation: {outcome.psnr_y:.3f} dB Y at step {outcome.step}")
        board.say(f"next: repsr fuse {outcome.best} -o mine.safetensors")
        if not json:
            print_line(str(outcome.best))


@friendly
@grouped
def evaluate(
    options: EvalOptions,
    table: TableOptions,
    folders: Annotated[list[Path], typer.Argument(help="Folders of HR images (8 bit).")],
    lr: Annotated[Path | None, typer.Option("--lr", help="Folder of LR images. Default: bicubic of HR.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Table as JSON lines on stdout.")] = False,
) -> None:
    """Evaluate models and bicubic: Y-PSNR, RGB-PSNR and SSIM, 8-bit output, border of SCALE px cropped.

    Example: repsr eval Set5 Set14 -n fast -n mine.safetensors -s 4
    """
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.errors import UsageError
    from repsr_cli.files import check_target
    from repsr_cli.model.zoo import available, load, resolve
    from repsr_cli.training.evaluate import evaluate as run_evaluation

    if table.csv is not None:
        check_target(table.csv, overwrite=table.overwrite, failure=UsageError)
    names = options.models or [model.name for model in available() if model.scale == options.scale]
    upscalers = [
        (
            name,
            Upscaler(
                load(resolve(name, options.scale, "clean")),
                device=options.device,
                precision="fp32",
                threads=options.threads,
            ),
        )
        for name in names
    ]
    rows = list(run_evaluation(upscalers, folders, options.scale, lr))
    if table.csv is not None:
        _write_rows(table.csv, rows, overwrite=table.overwrite)
    _print_means(rows, ["bicubic", *names], [folder.name for folder in folders], options.scale if json else None)


def _write_rows(target: Path, rows: list[ImageScore], *, overwrite: bool) -> None:
    """Write one row per image and model as CSV.

    Raises:
        UsageError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    import csv
    import io

    from repsr_cli.errors import UsageError
    from repsr_cli.files import write_text

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["network", "folder", "image", "psnr_y", "psnr_rgb", "ssim_y"])
    for row in rows:
        s = row.score
        writer.writerow([row.model, row.folder, row.image, s.psnr_y, s.psnr_rgb, s.ssim_y])
    write_text(target, text.getvalue(), overwrite=overwrite, failure=UsageError)


def _print_means(rows: list[ImageScore], models: list[str], folders: list[str], json_scale: int | None) -> None:
    """Print the mean of every model on every folder, as JSON lines with a scale or as a table without."""
    from repsr_cli.training.evaluate import mean_score

    width, set_width = (max(map(len, column)) + 2 for column in (["model", *models], ["set", *folders]))
    if json_scale is None:
        print_line(f"{'model':<{width}}{'set':<{set_width}}{'images':>8}{'Y-PSNR':>9}{'RGB-PSNR':>10}{'SSIM':>8}")
    for model in models:
        for folder in folders:
            scores = [row.score for row in rows if (row.model, row.folder) == (model, folder)]
            mean = mean_score(scores)
            if json_scale is not None:
                place = {"network": model, "scale": json_scale, "set": folder, "images": len(scores)}
                print_json(place | {"psnr_y": mean.psnr_y, "psnr_rgb": mean.psnr_rgb, "ssim_y": mean.ssim_y})
            else:
                print_line(
                    f"{model:<{width}}{folder:<{set_width}}{len(scores):>8}"
                    f"{mean.psnr_y:>9.3f}{mean.psnr_rgb:>10.3f}{mean.ssim_y:>8.4f}"
                )


@friendly
@grouped
def finetune(
    start: StartOptions,
    options: FinetuneOptions,
    source: Annotated[Path, typer.Argument(help="Video, or folder of videos or images, in high definition.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model to write, .safetensors.")],
    json: Annotated[bool, typer.Option("--json", help="Outcome as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only on stderr.")] = False,
) -> None:
    """Fine-tune a model on video or images in HD, and keep the result only if it is better on held-out parts.

    Example: repsr finetune episode1.mkv -s 4 -o mine.safetensors, then repsr upscale episode2.mkv -n mine.safetensors
    """
    from repsr_cli.model.zoo import resolve
    from repsr_cli.training.finetune import finetune as run_finetuning
    from repsr_cli.upscale.request import Progress

    with Board(quiet=quiet) as board:
        shown = board.reporter(source.name)
        outcome = run_finetuning(
            source,
            resolve(start.model, start.scale, "clean"),
            output,
            options,
            say=board.say,
            progress=lambda done, total: shown.progress(Progress(done, total, "step")),
        )
        board.say(
            f"on {outcome.held_out} held-out images: bicubic {outcome.bicubic:.2f} dB, {start.model} "
            f"{outcome.general:.2f} dB, fine-tuned {outcome.learnt:.2f} dB ({outcome.learnt - outcome.general:+.2f})"
        )
    if json:
        print_json({name: getattr(outcome, name) for name in type(outcome).__slots__})
    else:
        print_line(str(outcome.target))


@friendly
@grouped
def prepare(
    options: PrepareOptions,
    folder: Annotated[Path, typer.Argument(help="Folder of HR images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Packed file to write.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only on stderr.")] = False,
) -> None:
    """Make training pairs ahead of training.

    Pairs look like the output of video decoders: moving, blurred, noisy, and compressed by H.264 or H.265. With
    --teacher, LR images stay clean and targets come from a larger model, from which smaller ones learn faster.

    Example: repsr prepare IMAGES -o video-x4.pack -s 4, then repsr train RECIPE -o RUN --set data.train=video-x4.pack
    """
    from repsr_cli.errors import UsageError
    from repsr_cli.files import check_target

    if options.scale > 8:
        raise UsageError(f"-s {options.scale}", "is above 8", "Choose 2 to 8.")
    check_target(output, overwrite=options.overwrite, failure=UsageError)
    with Board(quiet=quiet) as board:
        if options.teacher is None:
            from repsr_cli.training.prepare import prepare as run_preparing

            counter = _counter(board, "degrading images")
            run_preparing(
                folder, output, options.scale, options.variants, options.seed, counter, overwrite=options.overwrite
            )
        else:
            from repsr_cli.engine.upscaler import Upscaler
            from repsr_cli.model.zoo import load, resolve
            from repsr_cli.training.distill import distil

            net = load(resolve(options.teacher, options.scale, "clean"))
            teacher = Upscaler(net, precision=options.precision)
            counter = _counter(board, f"running {options.teacher}")
            distil(folder, output, options.scale, teacher, options.holdout, counter, overwrite=options.overwrite)
    print_line(str(output))


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(train)
    app.command("eval")(evaluate)
    app.command()(finetune)
    app.command("learn", hidden=True)(finetune)
    app.command()(prepare)
