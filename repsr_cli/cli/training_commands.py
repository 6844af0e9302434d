"""Run ``repsr train``, ``repsr eval``, ``repsr finetune`` and ``repsr prepare``."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsr_cli.cli.console import Board, clock, friendly, print_json, print_line
from repsr_cli.cli.option_groups import grouped
from repsr_cli.cli.shared_options import Json, Quiet, Settings
from repsr_cli.training.options import (
    DrawingOptions,
    EvalOptions,
    FinetuneOptions,
    PrepareOptions,
    StartOptions,
    TableOptions,
)

if TYPE_CHECKING:
    from repsr_cli.training.evaluate import ImageScore
    from repsr_cli.training.loop import StepReport
    from repsr_cli.training.recipe import Recipe


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """A function that returns True after Ctrl-C, so that a step is finished and its state saved.

    A second Ctrl-C stops at once.
    """
    asked = threading.Event()

    def handle(*_signal: object) -> None:
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


def _step_line(report: StepReport) -> str:
    if report.note:
        return f"step {report.step}: {report.note}"
    line = f"step {report.step}/{report.steps}  loss {report.loss:.5f}  {report.steps_per_second:.1f} steps/s"
    if report.data_share >= 0.05:
        line += f"  {report.data_share:.0%} of the time spent waiting for data"
    if report.psnr_y is not None and report.psnr_rgb is not None:
        line += f"  validation {report.psnr_y:.3f} dB Y, {report.psnr_rgb:.3f} dB RGB"
    left = (report.steps - report.step) / max(1, report.steps_per_second)
    return f"{line}  {clock(left)} left" if report.step < report.steps else line


@friendly
@grouped
def train(
    drawing: DrawingOptions,
    recipe: Annotated[Path, typer.Argument(help="Recipe (TOML); train/recipes has examples.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run directory.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")] = False,
    settings: Settings = None,
    check: Annotated[bool, typer.Option("--check", help="List every unusable image and stop.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network as a recipe describes.

    Example: repsr train train/recipes/m4c16-x4.toml -o runs/mine --set data.train=IMAGES
    """
    from repsr_cli.training.recipe import load_recipe

    loaded = load_recipe(recipe, settings)
    with Board(quiet=quiet) as board:
        if check:
            _check_data(loaded, board)
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
                print_json(asdict(step))
            board.say(_step_line(step))

        with _stop_on_interrupt() as stopped:
            outcome = run_training(
                loaded, output, resume=resume, on_report=report, on_packing=packing, should_stop=stopped
            )
        board.say(f"best validation: {outcome.psnr_y:.3f} dB Y at step {outcome.step}")
        board.say(f"next: repsr fuse {outcome.best} -o mine.safetensors")
        if not json:
            print_line(str(outcome.best))


def _check_data(recipe: Recipe, board: Board) -> None:
    """List every image that a recipe cannot use, and report how the others are split."""
    from repsr_cli.errors import RecipeError
    from repsr_cli.training.dataset import check_images, find_images, held_out_groups, photographs

    folder = Path(recipe.data.train).expanduser()
    if folder.is_file():
        raise RecipeError(folder, "is a packed file, whose images were checked", "Give the folder of images.")
    images = find_images(folder)
    problems = check_images(images, recipe.network.scale, recipe.batch.patch)
    for problem in problems:
        print_line(problem)
    if problems:
        count = f"{len(problems)} of {len(images)} images cannot be used"
        raise RecipeError(recipe.data.train, count, "They are listed above.")
    board.say(f"{len(images)} images, all usable")
    if not recipe.data.validation:
        groups = set(photographs(folder).values())
        held_out = len(held_out_groups(groups, recipe.data.holdout))
        fewer = f" (data.holdout is {recipe.data.holdout})" if held_out < recipe.data.holdout else ""
        board.say(f"{len(groups)} photographs: {len(groups) - held_out} to train on, {held_out} held out{fewer}")


@friendly
@grouped
def evaluate(
    options: EvalOptions,
    table: TableOptions,
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FOLDERS|CLIPS...", help="Folders of HR images (8 bit), and clips in HD.")
    ],
    lr: Annotated[Path | None, typer.Option("--lr", help="Folder of LR images. Default: bicubic of HR.")] = None,
    json: Json = False,
) -> None:
    """Evaluate models and bicubic: Y-PSNR, RGB-PSNR and SSIM, 8-bit output, border of SCALE px cropped.

    --degrade also compresses LR; --perceptual adds measures of how results look. Clips add flicker: how much still
    parts change, in code values.

    Example: repsr eval Set5 Set14 -n fast -n mine.safetensors -s 4
    """
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.errors import UsageError
    from repsr_cli.files import check_target
    from repsr_cli.model.zoo import available, load, resolve
    from repsr_cli.training.conditions import parse_conditions
    from repsr_cli.training.evaluate import CLEAN
    from repsr_cli.training.evaluate import evaluate as run_evaluation
    from repsr_cli.video.probe import is_video

    if table.csv is not None:
        check_target(table.csv, overwrite=table.overwrite, failure=UsageError)
    names = options.models or [model.name for model in available() if model.scale == options.scale]
    upscalers = []
    for name in names:
        net = load(resolve(name, options.scale, "clean"))
        upscalers.append((name, Upscaler(net, device=options.device, precision="fp32", threads=options.threads)))
    conditions = parse_conditions(options.degrade or ())
    made = {condition.name: condition.lr for condition in conditions} if options.degrade else CLEAN
    clips, folders = [path for path in inputs if path.is_file()], [path for path in inputs if not path.is_file()]
    for path in clips:
        if not is_video(path):
            raise UsageError(path, "is neither a folder nor a clip", "Give the folder that holds the image.")
        if lr is not None:
            raise UsageError(path, "is a clip, which --lr is not for", "Leave out one of them.")
    rows: list[ImageScore] = []
    if folders:
        rows += run_evaluation(upscalers, folders, options.scale, lr, made, perceptual=options.perceptual)
    if clips:
        from repsr_cli.training.clips import evaluate_clips

        rows += evaluate_clips(
            upscalers, clips, options.scale, conditions, options.frames, perceptual=options.perceptual
        )
    if table.csv is not None:
        _write_rows(table.csv, rows, overwrite=table.overwrite)
    _print_means(rows, options.scale if json else None)


def _write_rows(target: Path, rows: list[ImageScore], *, overwrite: bool) -> None:
    """Write one row per image, condition and model as CSV.

    Raises:
        UsageError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    import csv
    import io

    from repsr_cli.errors import UsageError
    from repsr_cli.files import write_text

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    figures = _figures(rows)
    writer.writerow(["model", "folder", "condition", "image", *figures])
    for row in rows:
        writer.writerow([row.model, row.folder, row.condition, row.image, *(row.scores.get(name) for name in figures)])
    write_text(target, text.getvalue(), overwrite=overwrite, failure=UsageError)


# Heading, width and decimals of each figure in the printed table.
_COLUMNS = {
    "psnr_y": ("Y-PSNR", 9, 3),
    "psnr_rgb": ("RGB-PSNR", 10, 3),
    "ssim_y": ("SSIM", 8, 4),
    "ssimulacra2": ("SSIMU2", 8, 2),
    "vgg": ("VGG", 8, 4),
    "gradient": ("grad", 7, 3),
    "flicker": ("flicker", 9, 3),
    "vmaf": ("VMAF", 7, 2),
    "vmaf_neg": ("VMAF-NEG", 10, 2),
}


def _figures(rows: list[ImageScore]) -> list[str]:
    """The figures that any row has, in the order of the printed table."""
    return [name for name in _COLUMNS if any(name in row.scores for row in rows)]


def _print_means(rows: list[ImageScore], json_scale: int | None) -> None:
    """Print the mean of every model in every folder and condition, as JSON lines with a scale or as a table without."""
    from repsr_cli.training.evaluate import mean_scores

    groups: dict[tuple[str, str, str], list[ImageScore]] = {}
    for row in rows:
        groups.setdefault((row.folder, row.condition, row.model), []).append(row)
    heads, figures = ("set", "LR", "model"), _figures(rows)
    table = [(heads, "images", [f"{head:>{width}}" for head, width, _ in (_COLUMNS[name] for name in figures)])]
    for place, found in groups.items():
        means = mean_scores([row.scores for row in found])
        if json_scale is not None:
            keys = dict(zip(("set", "condition", "model"), place, strict=True))
            print_json(keys | {"scale": json_scale, "images": len(found)} | means, result=True)
        table.append((place, str(len(found)), [_cell(name, means) for name in figures]))
    if json_scale is None:
        widths = [max(map(len, column)) + 2 for column in zip(heads, *groups, strict=True)]
        for names, count, cells in table:
            named = "".join(f"{name:<{width}}" for name, width in zip(names, widths, strict=True))
            print_line(f"{named}{count:>8}{''.join(cells)}", result=True)


def _cell(name: str, means: Mapping[str, float]) -> str:
    _head, width, decimals = _COLUMNS[name]
    return f"{means[name]:>{width}.{decimals}f}" if name in means else f"{'-':>{width}}"


@friendly
@grouped
def finetune(
    start: StartOptions,
    options: FinetuneOptions,
    source: Annotated[Path, typer.Argument(help="Video, or folder of videos or images, in high definition.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model to write, .safetensors.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on video or images in HD, and keep the result only if it is better on held-out parts.

    Example: repsr finetune episode1.mkv -s 4 -o mine.safetensors, then repsr upscale episode2.mkv -n mine.safetensors
    """
    from repsr_cli.model.zoo import resolve
    from repsr_cli.reporting import Progress
    from repsr_cli.training.finetune import finetune as run_finetuning

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
        print_json(asdict(outcome))
    else:
        print_line(str(outcome.target))


@friendly
@grouped
def prepare(
    options: PrepareOptions,
    folder: Annotated[Path, typer.Argument(help="Folder of HR images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Packed file to write.")],
    quiet: Quiet = False,
) -> None:
    """Make training pairs ahead of training.

    With --mix, LR images are degraded as real ones are: moving, blurred, noisy, rescaled, compressed. With --teacher, a
    larger model gives targets, from which smaller ones learn faster. A stopped run continues with the same command.

    Example: repsr prepare IMAGES -o real-x4.pack --mix train/mixes/real.toml, then repsr train RECIPE -o RUN
    """
    from repsr_cli.errors import UsageError
    from repsr_cli.files import check_target
    from repsr_cli.training.resumable import is_complete

    if options.scale > 8:
        raise UsageError(f"-s {options.scale}", "is above 8", "Choose 2 to 8.")
    check_target(output, overwrite=options.overwrite or is_complete(output), failure=UsageError)
    if options.mix is None and options.teacher is None:
        raise UsageError("repsr prepare", "nothing to do", "Add --mix with a file of degradations, --teacher, or both.")
    with Board(quiet=quiet) as board:
        _prepare(folder, output, options, _counter(board, "images"), board.say)
    print_line(str(output))


def _prepare(
    folder: Path,
    output: Path,
    options: PrepareOptions,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
) -> None:
    """Make the pairs that the options describe."""
    from repsr_cli.engine.upscaler import Upscaler
    from repsr_cli.model.zoo import load, resolve
    from repsr_cli.training.distill import distil
    from repsr_cli.training.mix import load_mix
    from repsr_cli.training.prepare import Preparation, teacher_of
    from repsr_cli.training.prepare import prepare as run_preparing

    teacher = None
    if options.teacher is not None:
        net = load(resolve(options.teacher, options.scale, "clean" if options.mix is None else "real"))
        teacher = Upscaler(net, precision=options.precision)
    if options.mix is None:
        assert teacher is not None
        distil(folder, output, options.scale, teacher, options.holdout, progress, overwrite=options.overwrite)
        return
    preparation = Preparation(
        options.scale,
        load_mix(options.mix),
        options.variants,
        options.seed,
        options.holdout,
        "" if teacher is None else f"{teacher.digest()} in {options.precision}",
    )
    teach = None if teacher is None else teacher_of(teacher, options.scale)
    run_preparing(folder, output, preparation, teach, progress, say, overwrite=options.overwrite)
