"""Fine-tune a model on a video or on images, and keep the result only if it is better on held-out frames."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import LearningDidNotWin, RecipeError, UsageError
from repsr_cli.files import check_target, translated_errors
from repsr_cli.image.resize import imresize
from repsr_cli.model.checkpoint import load_training, save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import ModelFile, load_compact
from repsr_cli.training.dataset import Pack, Pair, folder_pairs, write_pack
from repsr_cli.training.evaluate import upscale_pixels
from repsr_cli.training.frame_sampling import frames_at, sample_video
from repsr_cli.training.loop import StepReport, train
from repsr_cli.training.metrics import Pixels, psnr_y
from repsr_cli.training.options import FinetuneOptions
from repsr_cli.training.recipe import Batch, Data, Loss, Network, Recipe, Run, Schedule, Validation
from repsr_cli.version import __version__
from repsr_cli.video.probe import is_video

LEARNING_RATE = 4e-3  # of SOAP, for weights that are trained already
PROBE_STEPS = 60  # of a short run that measures speed
FEWEST_STEPS = 200
MOST_MINUTES = 1_000_000
WINS_BY = 0.02  # dB; less is within the noise between two seeds


@dataclass(frozen=True, slots=True)
class FinetuneOutcome:
    """The result of fine-tuning, measured on frames that are seconds away from all training frames.

    Attributes:
        bicubic: Y-PSNR of bicubic interpolation on held-out frames, dB.
        general: of the model it started from.
        learnt: of the new model.
        trained_on: frames or images trained on.
        held_out: frames or images evaluated on.
    """

    target: Path
    bicubic: float
    general: float
    learnt: float
    trained_on: int
    held_out: int
    steps: int


def finetune(
    source: Path,
    model: ModelFile,
    target: Path,
    options: FinetuneOptions,
    *,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> FinetuneOutcome:
    """Fine-tune a model on a video, or on images, for a given time.

    Args:
        source: a video, a folder of videos, or a folder of images, in high definition.
        target: the file to write, ``.safetensors``.
        say: called with a line on what was sampled and measured.
        progress: called with (steps done, steps in all).

    Raises:
        UsageError: the target exists or has another suffix, or the source is not a video and not a folder.
        MediaError: the source cannot be decoded.
        RecipeError: too little to train on.
        LearningDidNotWin: the new model is not better on held-out frames; nothing is written.
    """
    if target.suffix != ".safetensors":
        raise UsageError(target, "is not a .safetensors name", "Models are safetensors files.")
    check_target(target, overwrite=options.overwrite, failure=UsageError)
    if not 0 < options.minutes < MOST_MINUTES:
        raise UsageError("--minutes", f"must be above 0 and below {MOST_MINUTES:,}, not {options.minutes:g}")
    net = load_compact(model)
    with translated_errors(target, UsageError):
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem[:40]}-", dir=target.parent))
    try:
        write_pack(folder / "finetune.pack", net.spec.scale, training_pairs(source, net.spec.scale, say))
        pack = Pack(folder / "finetune.pack")
        recipe = _recipe(_start(model, net, folder), net, folder / "finetune.pack", options)
        steps = _steps_in(recipe, folder / "probe", options.minutes, say)
        _train(_with_steps(recipe, steps), folder / "run", progress)
        # The last network, not the best on held-out frames: those are for the comparison, once.
        tuned = load_training(folder / "run" / "last.pt").ema
        assert isinstance(tuned, PlainSR)
        outcome = _compare(target, net, tuned.eval(), pack, options, steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder}: could not be removed; nothing needs it any more")
    if not outcome.learnt > outcome.general + WINS_BY:  # also where both are infinite
        raise LearningDidNotWin(
            source,
            f"on {outcome.held_out} held-out images, the fine-tuned model has {outcome.learnt:.2f} dB, "
            f"{model.name} {outcome.general:.2f} dB, bicubic {outcome.bicubic:.2f} dB",
            f"Nothing was written: keep using {model.name}, or give more and more varied material.",
        )
    save_plain(target, tuned, _metadata(source, model, tuned, outcome), overwrite=options.overwrite)
    return outcome


def training_pairs(source: Path, scale: int, say: Callable[[str], None]) -> Iterator[Pair]:
    """Pairs of a video, of a folder of videos, or of a folder of images.

    Raises:
        UsageError: the source is none of these.
    """
    if source.is_file():
        yield from video_pairs(source, scale, say)
        return
    if not source.is_dir():
        raise UsageError(source, "no such file or folder", "Give a video, a folder of videos, or a folder of images.")
    videos = [path for path in sorted(source.rglob("*")) if path.is_file() and is_video(path)]
    for video in videos:
        yield from video_pairs(video, scale, say)
    if not videos:
        yield from image_pairs(source, scale)


def video_pairs(path: Path, scale: int, say: Callable[[str], None]) -> Iterator[Pair]:
    """Training and held-out frames of a video as pairs; errors as ``sample_video`` and ``frames_at``."""
    sampling = sample_video(path)
    stretches = ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in sampling.stretches[:4])
    more = "" if len(sampling.stretches) <= 4 else f" and {len(sampling.stretches) - 4} more"
    say(
        f"{path.name}: {len(sampling.training)} frames to train on, {len(sampling.held_out)} held out "
        f"({stretches}{more})"
    )
    for held_out, wanted in ((False, sampling.training), (True, sampling.held_out)):
        for pts, hr in frames_at(sampling.source, sampling.timeline, wanted, scale):
            yield Pair(f"{path.name}@{pts}", path.name, hr, held_out=held_out)


def image_pairs(folder: Path, scale: int) -> Iterator[Pair]:
    """Images of a folder as pairs, a fifth of the photographs held out; errors as ``folder_pairs``."""
    groups: dict[str, bool] = {}
    for pair in folder_pairs(folder, scale):
        held_out = groups.setdefault(pair.group, len(groups) % 5 == 4)
        yield replace(pair, held_out=held_out)
    if len(groups) < 5:
        raise RecipeError(folder, f"has {len(groups)} images", "Give at least five, so that one can be held out.")


def _start(model: ModelFile, net: PlainSR, folder: Path) -> Path:
    """The file to start from: the model's own, or one that is written of what two files are mixed to."""
    if model.blend is None:
        return model.path
    save_plain(folder / "start.safetensors", net, {})
    return folder / "start.safetensors"


def _recipe(start: Path, net: PlainSR, pack: Path, options: FinetuneOptions) -> Recipe:
    recipe = Recipe(
        network=Network(scale=net.spec.scale, blocks=net.spec.blocks, channels=net.spec.channels, block="plain"),
        data=Data(train=str(pack), holdout=0),
        schedule=Schedule(steps=PROBE_STEPS, learning_rate=LEARNING_RATE),
        batch=Batch(size=16, patch=32),
        loss=Loss(name="l1", luma=0.5),
        run=Run(threads=options.threads, device=options.device, start_from=str(start)),
    )
    return _with_steps(recipe, PROBE_STEPS)


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    return replace(
        recipe,
        schedule=replace(recipe.schedule, steps=steps, warmup=min(50, steps // 4)),
        validation=Validation(every=steps + 1),
        run=replace(recipe.run, log_every=max(1, steps // 20), checkpoint_every=max(1, steps // 4)),
    )


def _steps_in(recipe: Recipe, run: Path, minutes: float, say: Callable[[str], None]) -> int:
    """The number of steps that take so many minutes, by a short trial."""
    speed = _train(recipe, run, lambda _done, _total: None)
    steps = max(FEWEST_STEPS, int(speed * minutes * 60))
    say(f"{steps:,} steps in about {minutes:g} min ({speed:.1f} steps/s)")
    return steps


def _train(recipe: Recipe, run: Path, progress: Callable[[int, int], None]) -> float:
    """Train.

    Returns:
        Steps per second.
    """
    speeds: list[float] = []

    def on_report(report: StepReport) -> None:
        speeds.append(report.steps_per_second)
        progress(report.step, report.steps)

    train(recipe, run, on_report=on_report)
    # The first steps are slow, and the last report of a run includes its validation.
    return float(np.median(speeds[len(speeds) // 4 : -1]))


def _compare(
    target: Path, net: PlainSR, tuned: PlainSR, pack: Pack, options: FinetuneOptions, steps: int
) -> FinetuneOutcome:
    """Evaluate both networks and bicubic interpolation on the held-out images."""
    trained_on, held_out = pack.split(0)

    def mean_psnr(upscale: Callable[[Pixels], Pixels]) -> float:
        pairs = ((np.array(pack.lr(entry)), np.array(pack.hr(entry))) for entry in held_out)
        return float(np.mean([psnr_y(upscale(lr), hr, pack.scale) for lr, hr in pairs]))

    general, learnt = (
        partial(upscale_pixels, Upscaler(each, device=options.device, precision="fp32", threads=options.threads))
        for each in (net, tuned)
    )
    return FinetuneOutcome(
        target=target,
        bicubic=mean_psnr(lambda lr: imresize(lr, (lr.shape[0] * pack.scale, lr.shape[1] * pack.scale))),
        general=mean_psnr(general),
        learnt=mean_psnr(learnt),
        trained_on=len(trained_on),
        held_out=len(held_out),
        steps=steps,
    )


def _metadata(source: Path, model: ModelFile, tuned: PlainSR, outcome: FinetuneOutcome) -> dict[str, str]:
    return {
        "repsr": __version__,
        "scale": str(tuned.spec.scale),
        "network": tuned.spec.name,
        "started_from": model.name,
        "learnt_from": source.name,
        "step": str(outcome.steps),
        "psnr_y_held_out": f"{outcome.learnt:.3f}",
        "psnr_y_held_out_before": f"{outcome.general:.3f}",
        "licence": "as the material it was trained on",
    }
