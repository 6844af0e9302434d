"""Fine-tune a general network on what the user has in high definition, and keep it only if it wins."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import LearningDidNotWin, RecipeError, UsageError
from repsr_cli.image.resize import imresize
from repsr_cli.model.checkpoint import load_plain, load_training, save_plain
from repsr_cli.model.plain import PlainSR
from repsr_cli.model.zoo import ModelFile
from repsr_cli.training.dataset import Pack, Pair, folder_pairs, write_pack
from repsr_cli.training.evaluate import upscale_pixels
from repsr_cli.training.frame_sampling import frames_at, sample_video
from repsr_cli.training.loop import StepReport, train
from repsr_cli.training.metrics import psnr_y
from repsr_cli.training.recipe import Batch, Data, Loss, Network, Recipe, Run, Schedule, Validation
from repsr_cli.version import __version__
from repsr_cli.video.probe import is_video

LEARNING_RATE = 4e-3  # of SOAP, on weights that are good already
PROBE = 60  # steps of a short run that measures speed
FEWEST_STEPS = 200
WINS_BY = 0.02  # dB; less is within the noise between two seeds

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LearnOutcome:
    """What learning brought, on frames that are seconds away from everything learnt from.

    Attributes:
        target: the file written.
        bicubic: Y-PSNR in dB on what was kept out.
        general: of the network it started from.
        learnt: of the new one.
        trained_on: frames or images learnt from.
        held_out: frames or images judged on.
        steps: training steps done.
    """

    target: Path
    bicubic: float
    general: float
    learnt: float
    trained_on: int
    held_out: int
    steps: int


def video_pairs(path: Path, scale: int, say: Callable[[str], None]) -> Iterator[Pair]:
    """Training and held-out frames of a video as pairs; errors as ``sample_video`` and ``frames_at``."""
    sampling = sample_video(path)
    kept_out = ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in sampling.stretches[:4])
    more = "" if len(sampling.stretches) <= 4 else f" and {len(sampling.stretches) - 4} more"
    counts = f"{len(sampling.training)} frames to learn from, {len(sampling.held_out)} kept out"
    say(f"{path.name}: {counts} ({kept_out}{more})")
    for held_out, wanted in ((False, sampling.training), (True, sampling.held_out)):
        for pts, hr in frames_at(sampling, wanted, scale):
            yield Pair(f"{path.name}@{pts}", path.name, hr, held_out=held_out)


def image_pairs(folder: Path, scale: int) -> Iterator[Pair]:
    """Images of a folder as pairs, a fifth of the photographs held out; errors as ``folder_pairs``."""
    groups: dict[str, bool] = {}
    for pair in folder_pairs(folder, scale):
        held_out = groups.setdefault(pair.group, len(groups) % 5 == 4)
        yield replace(pair, held_out=held_out)
    if len(groups) < 5:
        raise RecipeError(folder, f"holds {len(groups)} images", "Give at least five, so that one can be kept out.")


def pairs_to_learn_from(source: Path, scale: int, say: Callable[[str], None]) -> Iterator[Pair]:
    """Pairs of a video, of a folder of videos, or of a folder of images.

    Raises:
        UsageError: nothing of the kind.
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


def _recipe(weight: ModelFile, net: PlainSR, pack: Path, steps: int, threads: int, device: str) -> Recipe:
    return Recipe(
        network=Network(scale=net.spec.scale, blocks=net.spec.blocks, channels=net.spec.channels, block="plain"),
        data=Data(train=str(pack), holdout=0),
        schedule=Schedule(steps=steps, learning_rate=LEARNING_RATE, warmup=min(50, steps // 4)),
        batch=Batch(size=16, patch=32),
        loss=Loss(name="l1", luma=0.5),
        validation=Validation(every=steps + 1),
        run=Run(
            threads=threads,
            device=device,
            start_from=str(weight.path),
            log_every=max(1, steps // 20),
            checkpoint_every=max(1, steps // 4),
        ),
    )


def _judge(net: PlainSR | None, pack: Pack, device: str, threads: int) -> float:
    """Mean Y-PSNR in dB on what the packed file holds out; of bicubic without a network."""
    engine = None if net is None else Upscaler(net, device=device, precision="fp32", threads=threads)
    figures = []
    for image in pack.split(0)[1]:
        lr, hr = np.array(pack.lr(image)), np.array(pack.hr(image))
        sr = imresize(lr, hr.shape[:2]) if engine is None else upscale_pixels(engine, lr)
        figures.append(psnr_y(sr, hr, pack.scale))
    return float(np.mean(figures))


def learn(
    source: Path,
    weight: ModelFile,
    target: Path,
    *,
    minutes: float = 2.0,
    threads: int = 1,
    device: str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _line: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LearnOutcome:
    """Fine-tune a network on a video, or on images, for a given time.

    Args:
        source: a video, a folder of videos, or a folder of images, in high definition.
        weight: the network to start from.
        target: the file to write, ``.safetensors``.
        minutes: training time.
        threads: CPU threads.
        device: as of ``repsr train``.
        overwrite: whether an existing target may be replaced.
        say: told what was sampled and found.
        progress: called with (steps done, steps in all).

    Raises:
        UsageError: the target exists or has another suffix, or the source is nothing to learn from.
        MediaError: the source cannot be decoded.
        RecipeError: too little to learn from.
        LearningDidNotWin: the new network is not better on what was kept out; nothing is written.
    """
    if target.suffix != ".safetensors":
        raise UsageError(target, "is no .safetensors name", "Networks are safetensors files.")
    if target.exists() and not overwrite:
        raise UsageError(target, "exists", "Add -y to replace it.")
    if minutes <= 0:
        raise UsageError("--minutes", "must be above 0")
    general = load_plain(weight.path)
    scale = general.spec.scale
    folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
    try:
        write_pack(folder / "video.pack", scale, pairs_to_learn_from(source, scale, say))
        pack = Pack(folder / "video.pack")
        learnt_from, held_out = pack.split(0)

        def run(name: str, steps: int, tell: Callable[[int, int], None]) -> float:
            speeds: list[float] = []

            def on_report(report: StepReport) -> None:
                speeds.append(report.steps_per_second)
                tell(report.step, report.steps)

            recipe = _recipe(weight, general, folder / "video.pack", steps, threads, device)
            train(recipe, folder / name, on_report=on_report)
            # The first steps are slow, and the last report of a run includes its validation.
            return float(np.median(speeds[len(speeds) // 4 : -1]))

        speed = run("probe", PROBE, lambda _done, _total: None)
        steps = max(FEWEST_STEPS, int(speed * minutes * 60))
        say(f"{steps:,} steps in about {minutes:g} min ({speed:.1f} steps/s)")
        run("learn", steps, progress)
        # The last network, not the best on what was kept out: those frames are for judging, once.
        learnt = load_training(folder / "learn" / "last.pt").ema
        assert isinstance(learnt, PlainSR)
        outcome = LearnOutcome(
            target=target,
            bicubic=_judge(None, pack, device, threads),
            general=_judge(general, pack, device, threads),
            learnt=_judge(learnt.eval(), pack, device, threads),
            trained_on=len(learnt_from),
            held_out=len(held_out),
            steps=steps,
        )
        if not outcome.learnt > outcome.general + WINS_BY:  # two perfect networks are a draw, too
            raise LearningDidNotWin(
                source,
                f"on {outcome.held_out} images kept out, the learnt network has {outcome.learnt:.2f} dB, "
                f"{weight.name} {outcome.general:.2f} dB, bicubic {outcome.bicubic:.2f} dB",
                f"Nothing was written: go on with {weight.name}, or give more and more varied material.",
            )
        save_plain(
            target,
            learnt,
            {
                "repsr": __version__,
                "scale": str(scale),
                "network": learnt.spec.name,
                "started_from": weight.name,
                "learnt_from": source.name,
                "step": str(steps),
                "psnr_y_held_out": f"{outcome.learnt:.3f}",
                "psnr_y_held_out_before": f"{outcome.general:.3f}",
                "licence": "as the material it was learnt from",
            },
        )
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)
