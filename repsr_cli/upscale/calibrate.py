"""Choose the fastest engine and tile size for a video on this machine: timed once, and remembered.

On one processor ncnn wins on small tiles, on another OpenVINO on whole frames, and with another network torch does: no
rule predicts it. So where a video is long enough that it pays, engines and budgets of pixels for tiles
are tried on noise for a second or two. The choice changes a sample by one code value at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from repsr_cli.engine.backends.registry import ENGINES, PRECISIONS, engine_name, installed_engines
from repsr_cli.engine.colour_folding import Folded, fold, folds
from repsr_cli.engine.settings import Notify
from repsr_cli.engine.tile_reuse import ReuseCache
from repsr_cli.engine.tiled_frames import TiledFrames
from repsr_cli.engine.tiling import CPU_CONTEXT_PIXELS
from repsr_cli.engine.upscaler import Upscaler
from repsr_cli.errors import RepsrError
from repsr_cli.upscale.choices import Choice, keep_choice, kind_of, recall_choices, worth_measuring
from repsr_cli.upscale.frame_path import formats_of
from repsr_cli.upscale.plan_video import VideoPlan
from repsr_cli.video.segments import begun
from repsr_cli.yuv.formats import PlaneFormat

# LR pixels of a tile with its context. What a core's cache holds is in here somewhere; the first is tried first.
BUDGETS = (40_000, CPU_CONTEXT_PIXELS, 20_000, 160_000)
# Seconds for all trials together.
LIMIT = 2.0
# How much to run in one trial, some hundredths of a second: multiply-accumulates.
_SAMPLE = 1e9
# What is slower than the fastest by more than this at its first trial gets no second one.
_HOPELESS = 1.5


@dataclass(slots=True)
class Trial:
    """A choice and how fast it is.

    Attributes:
        seconds: for a frame of noise, at its best.
    """

    choice: Choice
    seconds: float
    _run: Callable[[], None] = field(repr=False)
    _share: float = field(repr=False)

    def again(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Time it once more."""
        began = clock()
        self._run()
        self.seconds = min(self.seconds, (clock() - began) / self._share)


def calibrated(upscaler: Upscaler, plan: VideoPlan, say: Notify) -> Upscaler:
    """The network with the engine and the tiles for a video.

    An interrupted job that goes on keeps its precision, where the user left it open. Where engine and tiles are open,
    on the CPU in fp32 or bf16: those of an interrupted job that goes on; those that were the fastest for such videos
    before; those that are now, if the video is long enough. Otherwise it stays as it is.

    Args:
        say: reports what was chosen, and what went wrong with remembering it.
    """
    if upscaler.device.type != "cpu":
        return upscaler
    job = (begun(plan.target) if plan.resume and not plan.benchmark else None) or {}
    upscaler = _in_precision_of(job, upscaler, plan, say)
    if (plan.compute.engine, plan.compute.tile) != ("auto", "auto") or upscaler.precision == "fp16":
        return upscaler
    chosen = _begun(job, upscaler)
    if chosen is not None:
        return upscaler.variant(chosen.engine, chosen.tile)
    fmt_in, fmt_out = formats_of(plan)
    size = (plan.source.height, plan.source.width)
    # A resize goes by way of RGB images, which are torch's.
    if not folds(upscaler.net, fmt_out) or plan.size != (size[0] * upscaler.scale, size[1] * upscaler.scale):
        return upscaler
    key = kind_of(upscaler, fmt_in, fmt_out, size)
    chosen = recall_choices(say).get(key)
    if chosen is not None:
        variant = upscaler.variant(chosen.engine, chosen.tile)
        say(f"by {variant.engine_name}, tile {variant.tile}, the fastest here as measured before")
        return variant
    macs = fold(upscaler.net, fmt_in, fmt_out).macs_per_pixel * size[0] * size[1] * (plan.frames or 0)
    if not worth_measuring(macs, upscaler.threads):
        return upscaler
    began = time.perf_counter()
    trials = measure(upscaler, fmt_in, fmt_out, size, say, LIMIT)
    best = trials[0].choice
    variant = upscaler.variant(best.engine, best.tile)
    say(
        f"by {variant.engine_name}, tile {variant.tile}, the fastest of {len(trials)} ways tried in "
        f"{time.perf_counter() - began:.1f} s ({1000 * trials[0].seconds:.3g} ms a frame)"
    )
    keep_choice(key, best, say)
    return variant


def measure(
    upscaler: Upscaler,
    fmt_in: PlaneFormat,
    fmt_out: PlaneFormat,
    size: tuple[int, int],
    say: Notify,
    limit: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Trial]:
    """Time every engine that is installed, with several budgets for tiles.

    Args:
        upscaler: an RGB network on the CPU, in fp32 or bf16.
        size: (height, width) of a frame, LR px.
        say: reports an engine that fails, and is left out.
        limit: seconds after which no further trial is begun; every engine's first choice of tiles comes before the
            others, the faster engines' others before the slower ones'. None: everything is tried, three times.
        clock: seconds from any point in time.

    Returns:
        What was tried, the fastest first; one at least.
    """
    folded = fold(upscaler.net, fmt_in, fmt_out)
    frame = torch.rand(1, len(folded.black), *size, generator=torch.Generator().manual_seed(0))
    end = None if limit is None else clock() + limit
    trials = _Trials(upscaler, folded, (fmt_in, fmt_out), frame, say, end, clock)
    # What is used without a calibration comes first: should time be short, it is what there is to beat.
    for engine in sorted(installed_engines(upscaler.precision), key=lambda word: word != upscaler.engine):
        trials.attempt(engine, BUDGETS[0])
    for first in trials.promising():
        for budget in BUDGETS[1:]:
            if first in trials.promising():
                trials.attempt(first.choice.engine, budget)
    for _ in range(2):
        for trial in trials.promising():
            if trials.time_left():
                trial.again(clock)
    if not trials.made:
        raise RuntimeError("torch itself failed")
    return sorted(trials.made, key=lambda trial: trial.seconds)


@dataclass(slots=True)
class _Trials:
    """The trials so far, and what they are made of."""

    upscaler: Upscaler
    folded: Folded
    formats: tuple[PlaneFormat, PlaneFormat]
    frame: Tensor
    say: Notify
    end: float | None
    clock: Callable[[], float]
    made: list[Trial] = field(default_factory=list)

    def time_left(self) -> bool:
        """Whether another trial may begin; the first always may."""
        return not self.made or self.end is None or self.clock() < self.end

    def promising(self) -> list[Trial]:
        """The trials that are not far behind, the fastest first; all, where there is no limit."""
        ordered = sorted(self.made, key=lambda trial: trial.seconds)
        return [each for each in ordered if self.end is None or each.seconds < _HOPELESS * ordered[0].seconds]

    def attempt(self, engine: str, budget: int) -> None:
        """Time one choice, if there is time; one that fails is reported and left out."""
        if not self.time_left():
            return
        choice = Choice(engine, f"auto:{budget}")
        try:
            variant = self.upscaler.variant(engine, choice.tile)
            frames = TiledFrames(variant, self.folded, *self.formats, ReuseCache(enabled=False))
            if frames.engine != engine_name(engine):  # OpenVINO leaves this format to torch, which is tried anyway
                return
            run, share = frames.sample(self.frame, int(_SAMPLE / self.folded.macs_per_pixel))
            run()  # kernels are chosen and memory is allocated
            trial = Trial(choice, float("inf"), run, share)
            trial.again(self.clock)
        except (ImportError, OSError, RuntimeError, RepsrError) as error:
            self.say(f"{engine_name(engine)} fails here and is left out: {error}")
            return
        self.made.append(trial)


def _in_precision_of(job: Mapping[str, Any], upscaler: Upscaler, plan: VideoPlan, say: Notify) -> Upscaler:
    """The network in the precision of an interrupted job, where the user left that open."""
    precision = job.get("precision")
    if plan.compute.precision != "auto" or precision not in PRECISIONS or precision == upscaler.precision:
        return upscaler
    if upscaler.engine in ENGINES and precision not in ENGINES[upscaler.engine].precisions:
        return upscaler
    say(f"goes on in {precision}, in which it was begun")
    return upscaler.variant(upscaler.engine, upscaler.tile, precision)


def _begun(job: Mapping[str, Any], upscaler: Upscaler) -> Choice | None:
    """The choice of an interrupted job, so that packets are of one kind; None where there is none, or none for here.

    In the latter case the job is refused when its folder is opened, with the reason.
    """
    words = {engine_name(word): word for word in installed_engines(upscaler.precision)}
    tile = str(job.get("tile"))
    if job.get("engine") not in words or tile.partition(":")[0] != "auto":
        return None
    return Choice(words[job["engine"]], tile)
